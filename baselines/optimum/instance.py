"""`Instance`: one scheduling problem to be solved to optimality, with the JSON format of `infermax optimal`.

An instance is a list of requests and one engine (memory, caps, cost model). Everything a user can get wrong is
reported as an `InstanceError` of one line that says what is wrong and where.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym import files
from infermax_gym.cost import COSTS, CostModel, CostModelError, load_cost_model
from infermax_gym.cost.engines import Engine, EngineNameError, find_engine
from infermax_gym.engine.config import EngineConfig
from infermax_gym.workload.workload import Workload

MAX_REQUESTS = 100_000
MAX_TOKENS = 1_000_000
"""Of a prompt, or of an output."""
MAX_OUTPUT_TOKENS = 500_000
"""Of all requests together: a plan is a list of every pass."""
MAX_KV_TOKENS = 10**12
MAX_TIME_S = 1e9


class InstanceError(ValueError):
    """An instance, or the file that holds one, is not usable; the message says where and why."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        arrival_s: seconds, at least 0.
        num_prompt_tokens: I, at least 1.
        num_output_tokens: O, at least 1.
        ttft_limit_s: hard limit on first token - arrival, seconds; infinite where there is none.
    """

    arrival_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    ttft_limit_s: float = math.inf

    @property
    def peak_tokens(self) -> int:
        """KV tokens of its last pass: I + O - 1 (the last token's KV is never stored)."""
        return self.num_prompt_tokens + self.num_output_tokens - 1


@dataclass(frozen=True)
class Instance:
    """Requests in order of arrival and the engine that serves them.

    Attributes:
        requests: at least one, by arrival.
        kv_tokens: KV capacity in tokens, of which whole blocks are used.
        max_num_batched_tokens: token budget of an iteration.
        max_num_seqs: most requests that are resident at once.
        block_size: tokens per KV block.
        cost: seconds per iteration.

    Raises:
        InstanceError: a size is out of range, arrivals decrease, or a request can never fit.
    """

    requests: tuple[Request, ...]
    kv_tokens: int
    max_num_batched_tokens: int = 512
    max_num_seqs: int = 256
    block_size: int = 1
    cost: CostModel = COSTS["llama2-7b-a100"]

    def __post_init__(self) -> None:
        _check_engine(self)
        _check_requests(self)

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def num_blocks(self) -> int:
        """KV capacity in blocks."""
        return self.kv_tokens // self.block_size

    def blocks(self, tokens: int) -> int:
        """Blocks that hold `tokens` KV tokens."""
        return -(-tokens // self.block_size)

    @property
    def has_ttft_limits(self) -> bool:
        """Whether any request has a finite limit on its time to first token."""
        return any(math.isfinite(r.ttft_limit_s) for r in self.requests)

    @property
    def is_offline(self) -> bool:
        """Whether all requests arrive at the same time."""
        return self.requests[0].arrival_s == self.requests[-1].arrival_s

    def from_zero(self) -> Instance:
        """The same instance with the first arrival at 0, where clocks round off least."""
        first_s = self.requests[0].arrival_s
        if first_s == 0.0:
            return self
        return replace(self, requests=tuple(replace(r, arrival_s=r.arrival_s - first_s) for r in self.requests))

    def workload(self) -> Workload:
        """The requests as the engine takes them."""
        return Workload(
            arrival_s=np.array([r.arrival_s for r in self.requests]),
            num_prompt_tokens=np.array([r.num_prompt_tokens for r in self.requests]),
            num_output_tokens=np.array([r.num_output_tokens for r in self.requests]),
            ttft_slo_s=np.array([r.ttft_limit_s for r in self.requests]),
            name="instance",
        )

    def engine(self) -> EngineConfig:
        """The engine as the simulator takes it."""
        return EngineConfig(
            cost=self.cost,
            num_kv_tokens=self.kv_tokens,
            block_size=self.block_size,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
        )

    @classmethod
    def of(
        cls, lengths: Sequence[tuple[int, int]], kv_tokens: int, cost: str | CostModel = "llama2-7b-a100", **engine: int
    ) -> Instance:
        """An instance whose requests all arrive at time 0.

        Args:
            lengths: (prompt tokens, output tokens) of each request.
            kv_tokens: KV capacity in tokens.
            cost: a cost model or a preset's name.
            **engine: other fields of `Instance`.

        Example:
            >>> len(Instance.of([(2, 16)] * 5, kv_tokens=19, cost="llama3-70b-a100x4"))
            5
        """
        model = COSTS[cost] if isinstance(cost, str) else cost
        return cls(tuple(Request(0.0, i, o) for i, o in lengths), kv_tokens, cost=model, **engine)

    @classmethod
    def from_workload(cls, workload: Workload, engine: EngineConfig) -> Instance:
        """The instance of a workload on an engine; requests that can never fit are left out, as the engine does."""
        if workload.is_closed_loop:
            raise InstanceError(
                f"{workload.name}: requests are sent when others have ended; an instance has known arrivals"
            )
        capacity = engine.num_blocks * engine.block_size
        requests = tuple(
            Request(float(a), int(i), int(o))
            for a, i, o in zip(workload.arrival_s, workload.num_prompt_tokens, workload.num_output_tokens, strict=True)
            if i + o - 1 <= capacity and (engine.max_model_len is None or i + o <= engine.max_model_len)
        )
        if not requests:
            raise InstanceError(f"{workload.name}: no request fits {capacity} KV tokens")
        return cls(
            requests,
            engine.num_kv_tokens,
            engine.max_num_batched_tokens,
            engine.max_num_seqs,
            engine.block_size,
            engine.cost,
        )

    def to_dict(self) -> dict[str, Any]:
        """The instance in the format of INSTANCE.json (the cost model by name)."""
        requests = []
        for r in self.requests:
            entry: dict[str, Any] = {
                "arrival_s": r.arrival_s,
                "num_prompt_tokens": r.num_prompt_tokens,
                "num_output_tokens": r.num_output_tokens,
            }
            if math.isfinite(r.ttft_limit_s):
                entry["ttft_limit_s"] = r.ttft_limit_s
            requests.append(entry)
        return {
            "requests": requests,
            "kv_tokens": self.kv_tokens,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "max_num_seqs": self.max_num_seqs,
            "block_size": self.block_size,
            "cost": self.cost.name,
        }


def load_instance(path: str | Path) -> Instance:
    """Read INSTANCE.json.

    Args:
        path: the file. Its `cost` is a preset's name or the path of a cost model file (relative to `path`).

    Raises:
        InstanceError: the file is missing, is not JSON, or holds an instance that is not valid.
    """
    path = Path(path)
    try:
        data = json.loads(files.read_text(path))
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"{path}: not JSON ({error})") from None
    try:
        return instance_from_dict(data, path.parent)
    except InstanceError as error:
        raise InstanceError(f"{path}: {error}") from None


_DEFAULTS = {"max_num_batched_tokens": 512, "max_num_seqs": 256, "block_size": 1}
_FIELDS = {"requests", "kv_tokens", "cost", *_DEFAULTS}
_REQUEST_FIELDS = {"arrival_s", "num_prompt_tokens", "num_output_tokens", "ttft_limit_s"}


def instance_from_dict(data: object, folder: Path = Path(".")) -> Instance:
    """An instance from the parsed INSTANCE.json.

    Args:
        data: the parsed JSON.
        folder: where a cost model file named in it is looked for.
    """
    if not isinstance(data, Mapping):
        raise InstanceError('expected an object with "requests" and "kv_tokens"')
    _only(data, _FIELDS, "instance")
    entries = data.get("requests")
    if not isinstance(entries, list) or not entries:
        raise InstanceError('"requests" must be a non-empty list')
    if len(entries) > MAX_REQUESTS:
        raise InstanceError(f'"requests" holds {len(entries)} entries; at most {MAX_REQUESTS} are supported')
    requests = tuple(_request(entry, index) for index, entry in enumerate(entries))
    defaults = _DEFAULTS | _sizes(data.get("cost"), folder)
    sizes = {name: _integer(data.get(name, default), name) for name, default in defaults.items()}
    if "kv_tokens" not in sizes and "kv_tokens" not in data:
        raise InstanceError('"kv_tokens" is missing')
    kv_tokens = _integer(data.get("kv_tokens", sizes.pop("kv_tokens", None)), "kv_tokens")
    return Instance(requests, kv_tokens, cost=_cost(data.get("cost"), folder), **sizes)


def _request(entry: object, index: int) -> Request:
    where = f"request {index}"
    if not isinstance(entry, Mapping):
        raise InstanceError(f"{where}: expected an object with num_prompt_tokens and num_output_tokens")
    _only(entry, _REQUEST_FIELDS, where)
    for name in ("num_prompt_tokens", "num_output_tokens"):
        if name not in entry:
            raise InstanceError(f'{where}: "{name}" is missing')
    return Request(
        _number(entry.get("arrival_s", 0.0), f"{where}: arrival_s"),
        _integer(entry["num_prompt_tokens"], f"{where}: num_prompt_tokens"),
        _integer(entry["num_output_tokens"], f"{where}: num_output_tokens"),
        math.inf if entry.get("ttft_limit_s") is None else _number(entry["ttft_limit_s"], f"{where}: ttft_limit_s"),
    )


def _sizes(cost: object, folder: Path) -> dict[str, int]:
    """What a named engine resolves to, by the names of the file; nothing for other costs."""
    if not isinstance(cost, str) or "@" not in cost or os.path.isfile(folder / cost):
        return {}
    sizes = _engine(cost).sizes
    return {"kv_tokens": sizes.pop("num_kv_tokens"), **sizes}


def _engine(name: str) -> Engine:
    try:
        return find_engine(name)
    except EngineNameError as error:
        raise InstanceError(f'"cost": {error}') from None


def _cost(value: object, folder: Path) -> CostModel:
    if value is None:
        raise InstanceError('"cost" is missing; name one of ' + ", ".join(COSTS))
    if not isinstance(value, str):
        raise InstanceError(f'"cost" must be a preset\'s name or a path, got {value!r}')
    if value in COSTS:
        return COSTS[value]
    path = folder / value
    if "@" in value and not os.path.isfile(path):
        return _engine(value).cost
    if not os.path.isfile(path):
        raise InstanceError(f'"cost": no preset and no file {value!r}; presets: {", ".join(COSTS)}')
    try:
        return load_cost_model(path)
    except CostModelError as error:
        raise InstanceError(str(error)) from None


def _only(data: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in data:
        if name not in known:
            raise InstanceError(f"{where}: unknown field {name!r}; known: {', '.join(sorted(known))}")


def _integer(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InstanceError(f"{what} must be a whole number, got {value!r}")
    return value


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InstanceError(f"{what} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise InstanceError(f"{what} is out of range") from None


def _check_engine(instance: Instance) -> None:
    for name in ("kv_tokens", "max_num_batched_tokens", "max_num_seqs", "block_size"):
        value = getattr(instance, name)
        if not 1 <= value <= MAX_KV_TOKENS:
            raise InstanceError(f"{name} must be between 1 and {MAX_KV_TOKENS}, got {value}")
    if instance.kv_tokens < instance.block_size:
        raise InstanceError(f"kv_tokens ({instance.kv_tokens}) must hold at least one block of {instance.block_size}")


def _check_requests(instance: Instance) -> None:
    if not instance.requests:
        raise InstanceError("an instance needs at least one request")
    total = sum(r.num_output_tokens for r in instance.requests)
    if total > MAX_OUTPUT_TOKENS:
        raise InstanceError(
            f"{total} output tokens in all; plans are searched for at most {MAX_OUTPUT_TOKENS} (`infermax bound` has "
            "no such limit)"
        )
    previous = 0.0
    for index, r in enumerate(instance.requests):
        where = f"request {index}"
        if not 0.0 <= r.arrival_s <= MAX_TIME_S:
            raise InstanceError(f"{where}: arrival_s must be between 0 and {MAX_TIME_S:.0e} s, got {r.arrival_s}")
        if r.arrival_s < previous:
            raise InstanceError(f"{where}: arrives before request {index - 1}; sort requests by arrival_s")
        previous = r.arrival_s
        for name in ("num_prompt_tokens", "num_output_tokens"):
            value = getattr(r, name)
            if not 1 <= value <= MAX_TOKENS:
                raise InstanceError(f"{where}: {name} must be between 1 and {MAX_TOKENS}, got {value}")
        if not r.ttft_limit_s > 0.0:
            raise InstanceError(f"{where}: ttft_limit_s must be positive, got {r.ttft_limit_s}")
        if instance.blocks(r.peak_tokens) > instance.num_blocks:
            raise InstanceError(
                f"{where}: needs {r.peak_tokens} KV tokens (prompt {r.num_prompt_tokens} + output "
                f"{r.num_output_tokens} - 1), more than the {instance.num_blocks * instance.block_size} of the engine"
            )
