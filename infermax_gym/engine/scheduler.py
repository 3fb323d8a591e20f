"""Schedulers written in Python: what they see, what they answer, how the answer is carried out.

A policy that is no policy of the table (a set-valued plan, a rollout, a network in another framework) is an object
with a `decide` method. It is slower than a policy and equal in rights. Information is typed: the online view has no
output lengths; only a scheduler that declares `Information.ORACLE` gets the clairvoyant view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.kernel.apply import FAULTS, NOT_THERE, apply_decision
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.prefix import sharing_of
from infermax_gym.engine.policy import Information
from infermax_gym.engine.state import Engine
from infermax_gym.workload.workload import Workload

if TYPE_CHECKING:
    from infermax_gym.engine.config import EngineConfig
    from infermax_gym.engine.result import SimulationResult


class SchedulerError(RuntimeError):
    """A scheduler's answer cannot be carried out; the message says what and why."""


@dataclass(frozen=True)
class Decision:
    """The next iteration.

    Attributes:
        batch: (request, tokens): one token for a decode; 1 .. known - computed for a prefill; a waiting request
            is thereby admitted, and of its tokens only those are computed that the prefix cache does not hold.
            Running requests that are not named keep their KV and idle.
        preempt: running requests to preempt first. They may be in the batch again.
    """

    batch: Sequence[tuple[int, int]]
    preempt: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class RequestsView:
    """Some requests, as read-only arrays of one length k.

    Attributes:
        request: (k,) int64 request numbers in the workload, in order of arrival; running ones in list order.
        arrival_s: (k,) float64.
        num_prompt_tokens: (k,) int64, I.
        num_generated_tokens: (k,) int64, g.
        num_computed_tokens: (k,) int64, m, tokens in the KV cache.
        num_blocks: (k,) int64, KV blocks held.
        is_prefill: (k,) bool.
        on_host: (k,) bool, KV swapped to the host.
        priority: (k,) float64.
        predicted_output_tokens: (k,) float64, 0 where nothing is predicted.
        num_cached_tokens: (k,) int64, tokens that a waiting request would find in the prefix cache if it were admitted
            now; 0 without a cache, and for running requests.
        num_shared_blocks: (k,) int64, of the blocks that a waiting request would find, those that somebody holds (they
            take no free one); of a running request's, those that others hold too (preempting it frees them not). 0
            without a cache.
    """

    request: NDArray[np.int64]
    arrival_s: NDArray[np.float64]
    num_prompt_tokens: NDArray[np.int64]
    num_generated_tokens: NDArray[np.int64]
    num_computed_tokens: NDArray[np.int64]
    num_blocks: NDArray[np.int64]
    is_prefill: NDArray[np.bool_]
    on_host: NDArray[np.bool_]
    priority: NDArray[np.float64]
    predicted_output_tokens: NDArray[np.float64]
    num_cached_tokens: NDArray[np.int64]
    num_shared_blocks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.request)


@dataclass(frozen=True, eq=False)
class OnlineView:
    """What an online scheduler may know when it decides.

    Attributes:
        clock_s: now.
        free_blocks: KV blocks that nobody holds.
        num_blocks: KV capacity in blocks.
        block_size: tokens per block.
        max_num_batched_tokens: token budget of the iteration.
        max_num_seqs: most running requests.
        waiting: requests that have arrived and are not running.
        running: requests that hold KV.
    """

    clock_s: float
    free_blocks: int
    num_blocks: int
    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    waiting: RequestsView
    running: RequestsView

    def blocks_for(self, num_tokens: int) -> int:
        """KV blocks that hold so many tokens."""
        return -(-num_tokens // self.block_size)


@dataclass(frozen=True, eq=False)
class ClairvoyantView(OnlineView):
    """An online view, and everything that will happen.

    Attributes:
        workload: all requests, those to come included, with their output lengths.
    """

    workload: Workload


@runtime_checkable
class Scheduler(Protocol):
    """A scheduler written in Python.

    `information` says which view `decide` gets: `ClairvoyantView` for ORACLE, `OnlineView` otherwise.
    """

    @property
    def name(self) -> str:
        """Its name in results and messages."""
        ...

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        ...

    def decide(self, view: Any) -> Decision:
        """The next iteration. An empty batch waits for the next arrival."""
        ...


@runtime_checkable
class Player(Protocol):
    """A contender that serves whole workloads by itself, such as a trained policy or a rollout over policies."""

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        ...

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end.

        Args:
            workload: the requests.
            engine: the replica.
            seed: of the run; whatever is random in it comes from named streams of this seed.
            record_schedule: keep every iteration.
        """
        ...


def view_of(engine: Engine, workload: Workload | None = None) -> OnlineView:
    """The view of an engine as it stands; with `workload`, the clairvoyant one."""
    disband(engine.core)
    core = engine.core
    shared: dict[str, Any] = {
        "clock_s": engine.clock_s,
        "free_blocks": engine.free_blocks,
        "num_blocks": int(core["num_blocks"]),
        "block_size": int(core["block_size"]),
        "max_num_batched_tokens": int(core["token_budget"]),
        "max_num_seqs": int(core["max_num_seqs"]),
        "waiting": _requests_view(engine, engine.waiting),
        "running": _requests_view(engine, engine.running),
    }
    return OnlineView(**shared) if workload is None else ClairvoyantView(**shared, workload=workload)


def _requests_view(engine: Engine, places: NDArray[np.int64]) -> RequestsView:
    rows = engine.requests[places]
    numbers = np.array(rows["number"])
    cached, shared = sharing_of(engine.core, places)
    for array in (rows, numbers, cached, shared):
        array.flags.writeable = False
    return RequestsView(
        request=numbers,
        arrival_s=rows["arrival_s"],
        num_prompt_tokens=rows["prompt"],
        num_generated_tokens=rows["generated"],
        num_computed_tokens=rows["computed"],
        num_blocks=rows["held"],
        is_prefill=rows["in_prefill"].view(np.bool_),
        on_host=rows["on_host"].view(np.bool_),
        priority=rows["priority"],
        predicted_output_tokens=rows["prediction"],
        num_cached_tokens=cached,
        num_shared_blocks=shared,
    )


def carry_out(engine: Engine, decision: Decision, name: str) -> None:
    """Make `decision` the batch of the next iteration.

    Raises:
        SchedulerError: it breaks a rule of the engine; the engine is then unusable.
    """
    where = f"scheduler {name!r} at {engine.clock_s:.6g} s"
    try:
        batch = np.array([(index(r), index(c)) for r, c in decision.batch], np.int64).reshape(-1, 2)
        preempt = np.array([index(r) for r in decision.preempt], np.int64)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        expected = "Decision(batch=[(request, tokens), ...], preempt=[request, ...]) of integers"
        raise SchedulerError(f"{where}: cannot read its decision ({error}); expected {expected}") from None
    for numbers in (batch[:, 0], preempt):
        places = engine.places_of(numbers)
        if (places < 0).any() and engine.core["takes_from_loop"]:
            raise SchedulerError(f"{where}: request {numbers[places < 0][0]} {FAULTS[NOT_THERE]}")
        numbers[:] = places
    fault, place = apply_decision(engine.core, batch, preempt)
    if fault:
        request = engine.requests["number"][place] if engine.core["takes_from_loop"] else place
        raise SchedulerError(f"{where}: request {request} {FAULTS[fault]}")


__all__ = [
    "ClairvoyantView",
    "Decision",
    "OnlineView",
    "Player",
    "RequestsView",
    "Scheduler",
    "SchedulerError",
    "carry_out",
    "view_of",
]
