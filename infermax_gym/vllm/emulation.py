"""An engine that is timed but not computed: what a GPU would take for each batch, on a clock that sleeps or jumps.

`executor` hands vLLM's batches to an `EmulatedDevice`; nothing here imports vllm.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from infermax_gym.vllm.engines import find_cost
from infermax_gym.vllm.errors import PlugInError
from infermax_gym.vllm.seconds import batch_seconds

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel

CLOCK = "_infermax_clock"
"""Where the executor leaves its clock for the scheduler: an attribute of vLLM's configuration."""

_KEYS = ("engine", "kv_tokens", "clock", "async_scheduling")
_CLOCKS = ("real", "virtual")
_FIRST_TOKEN = 16  # ids below are often special


@dataclass(frozen=True)
class Emulation:
    """What is emulated.

    Attributes:
        cost: what iterations cost.
        num_kv_tokens: KV memory in tokens; None: vLLM's --num-gpu-blocks-override says it.
        virtual: whether the clock jumps to the end of each iteration instead of sleeping until then.
        async_scheduling: whether an iteration is decided while the one before it runs, as vLLM does on GPUs.
    """

    cost: CostModel
    num_kv_tokens: int | None
    virtual: bool
    async_scheduling: bool


def read_emulation(given: Any) -> Emulation:
    """What stands under "emulate" in the settings: an engine's name, or an object with `engine` and more.

    Raises:
        PlugInError: an entry is unknown or wrong, or names no engine or cost; one line.
    """
    record = {"engine": given} if isinstance(given, str) else given
    if not isinstance(record, Mapping) or not isinstance(record.get("engine"), str):
        raise PlugInError(f'infermax: emulate must be an engine, such as "qwen3-32b@h100x2", got {given!r}')
    for key in record:
        if key not in _KEYS:
            raise PlugInError(f"infermax: emulate: unknown entry {key!r}; known: {', '.join(_KEYS)}")
    clock = record.get("clock", "real")
    if clock not in _CLOCKS:
        raise PlugInError(f"infermax: emulate: clock must be real or virtual, got {clock!r}")
    asynchronous = record.get("async_scheduling", False)
    if not isinstance(asynchronous, bool):
        raise PlugInError(f"infermax: emulate: async_scheduling must be true or false, got {asynchronous!r}")
    cost, kv_tokens = find_cost(record["engine"], "emulate")
    own = record.get("kv_tokens")
    if own is not None:
        if not isinstance(own, int) or isinstance(own, bool) or own < 1:
            raise PlugInError(f"infermax: emulate: kv_tokens must be a whole number of at least 1, got {own!r}")
        kv_tokens = own
    return Emulation(cost, kv_tokens, clock == "virtual", asynchronous)


class Clock(Protocol):
    """Where the emulated engine stands in time."""

    def now(self) -> float:
        """Seconds since 1970, or since the virtual clock began."""

    def wait_until(self, end_s: float) -> None:
        """Return at that moment."""


class RealClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def wait_until(self, end_s: float) -> None:
        """Sleep."""
        time.sleep(max(end_s - time.time(), 0.0))


class VirtualClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        """Seconds since it began."""
        return self.now_s

    def wait_until(self, end_s: float) -> None:
        """Be there; never goes back."""
        self.now_s = max(self.now_s, end_s)


@dataclass(slots=True)
class _Resident:
    """A request that has been scheduled and has not finished."""

    num_prompt_tokens: int
    stop_tokens: frozenset[int]
    seed: int
    known_at_admission: int = 0
    num_emitted: int = 0


@dataclass(frozen=True)
class Launched:
    """An iteration under way.

    Attributes:
        end_s: when it ends.
        names: its requests, in order.
        tokens: for each the token that it emits, or none.
    """

    end_s: float
    names: list[str]
    tokens: list[list[int]]


class EmulatedDevice:
    """Iterations one after another, each as long as it costs.

    Args:
        cost: what iterations cost.
        clock: where it stands.
        vocab_size: of the model; answers are pseudo-random tokens below it.
    """

    def __init__(self, cost: CostModel, clock: Clock, vocab_size: int) -> None:
        self._cost, self.clock, self._vocab_size = cost, clock, vocab_size
        self._free_s = 0.0
        self._requests: dict[str, _Resident] = {}
        self._num_requests = 0

    def launch(self, output: Any) -> Launched:
        """Begin the iteration that a scheduler has decided, once the one before it has ended.

        Args:
            output: vLLM's `SchedulerOutput`.
        """
        self.forget(output.finished_req_ids)
        computed = self._admit(output)
        prefills: list[tuple[int, int]] = []
        decodes: list[int] = []
        tokens: list[list[int]] = []
        for name, count in output.num_scheduled_tokens.items():
            entry, before = self._requests[name], computed[name]
            in_prefill = before < entry.known_at_admission
            if in_prefill:
                prefills.append((count, before))
            else:
                decodes.append(before)
            emits = not in_prefill or before + count >= entry.known_at_admission
            tokens.append([self._token(entry)] if emits else [])
        end_s = max(self.clock.now(), self._free_s) + _seconds(self._cost, prefills, decodes)
        self._free_s = end_s
        return Launched(end_s, list(output.num_scheduled_tokens), tokens)

    def forget(self, names: Iterable[str]) -> None:
        """Some requests have finished or have been aborted."""
        for name in names:
            self._requests.pop(name, None)

    def _admit(self, output: Any) -> dict[str, int]:
        """Take note of who has joined; tokens resident of each request before the iteration."""
        computed: dict[str, int] = {}
        for new in output.scheduled_new_reqs:
            entry = self._requests.get(new.req_id)
            if entry is None:
                stops = _stop_tokens(new.sampling_params)
                entry = _Resident(len(new.prompt_token_ids), stops, self._num_requests)
                self._requests[new.req_id] = entry
                self._num_requests += 1
            # A newer model runner gets preempted requests as new ones, with all their tokens.
            known = getattr(new, "prefill_token_ids", None) or new.prompt_token_ids
            entry.known_at_admission = len(known)
            computed[new.req_id] = new.num_computed_tokens
        old = output.scheduled_cached_reqs
        for name, before, outputs in zip(old.req_ids, old.num_computed_tokens, old.num_output_tokens, strict=True):
            entry = self._requests[name]
            if name in old.resumed_req_ids:
                entry.known_at_admission = entry.num_prompt_tokens + outputs
            computed[name] = before
        return computed

    def _token(self, entry: _Resident) -> int:
        """The next token of an answer, pseudo-random and none at which it would stop early."""
        entry.num_emitted += 1
        mixed = (entry.seed * 0x9E3779B1 + entry.num_emitted * 0x85EBCA6B) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
        for step in range(len(entry.stop_tokens) + 1):
            token = _FIRST_TOKEN + ((mixed >> 4) + step) % (self._vocab_size - _FIRST_TOKEN)
            if token not in entry.stop_tokens:
                return token
        return _FIRST_TOKEN


def _stop_tokens(params: Any) -> frozenset[int]:
    stops = set(getattr(params, "all_stop_token_ids", None) or ())
    eos = getattr(params, "eos_token_id", None)
    return frozenset(stops if eos is None else {*stops, eos})


def _seconds(cost: CostModel, prefills: Sequence[tuple[int, int]], decodes: Sequence[int]) -> float:
    return batch_seconds(
        cost,
        sum(c for c, _ in prefills) + len(decodes),
        sum(c * c + 2 * c * m for c, m in prefills),
        len(prefills),
        sum(m for _, m in prefills),
        sum(decodes),
        len(decodes),
    )
