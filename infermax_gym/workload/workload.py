"""`Workload`: the requests of a run, as immutable arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class WorkloadError(ValueError):
    """A workload, or the file that holds one, is not usable; the message says where and why."""


_INTEGER_FIELDS = ("num_prompt_tokens", "num_output_tokens", "priority", "tenant", "slo_class")


def _frozen(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests in order of arrival. Arrays are copied and made read-only.

    Attributes:
        arrival_s: (n,) float64, seconds, not negative, not decreasing.
        num_prompt_tokens: (n,) int64, at least 1.
        num_output_tokens: (n,) int64, at least 1.
        priority: (n,) int64, smaller is more urgent; zeros by default.
        tenant: (n,) int64 index into `tenant_names`; zeros by default.
        slo_class: (n,) int64 index into `slo_class_names`; zeros by default.
        ttft_slo_s: (n,) float64, each request's own limit on its time to first token; inf (none) by default.
        tpot_slo_s: (n,) float64, each request's own limit on its time per output token; inf by default.
        tenant_names: names of the tenants.
        slo_class_names: names of the SLO classes.
        prefix_blocks: (num_hashes,) int64 prefix block hashes of all requests, one request after another;
            empty by default.
        prefix_start: (n + 1,) int64, request r owns prefix_blocks[prefix_start[r]:prefix_start[r + 1]].
        prefix_block_size: tokens per prefix block (0 without prefixes).
        name: where the requests come from.
        metadata: plain facts about the origin (format, path, generator parameters, seed).

    Raises:
        WorkloadError: lengths differ, a token count is below 1, arrivals decrease, are negative or not finite.
    """

    arrival_s: NDArray[np.float64]
    num_prompt_tokens: NDArray[np.int64]
    num_output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] | None = None  # type: ignore[assignment]
    tenant: NDArray[np.int64] | None = None  # type: ignore[assignment]
    slo_class: NDArray[np.int64] | None = None  # type: ignore[assignment]
    ttft_slo_s: NDArray[np.float64] | None = None  # type: ignore[assignment]
    tpot_slo_s: NDArray[np.float64] | None = None  # type: ignore[assignment]
    tenant_names: tuple[str, ...] = ("default",)
    slo_class_names: tuple[str, ...] = ("default",)
    prefix_blocks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    prefix_start: NDArray[np.int64] | None = None  # type: ignore[assignment]
    prefix_block_size: int = 0
    name: str = "workload"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("arrival_s", _frozen(self.arrival_s, np.float64))
        for name in _INTEGER_FIELDS:
            value = getattr(self, name)
            put(name, _frozen(np.zeros(n) if value is None else value, np.int64))
        for name in ("ttft_slo_s", "tpot_slo_s"):
            value = getattr(self, name)
            put(name, _frozen(np.full(n, np.inf) if value is None else value, np.float64))
        put("prefix_blocks", _frozen(self.prefix_blocks, np.int64))
        start = np.zeros(n + 1) if self.prefix_start is None else self.prefix_start
        put("prefix_start", _frozen(start, np.int64))
        put("metadata", MappingProxyType(dict(self.metadata)))
        self._check(n)

    def _check(self, n: int) -> None:
        for name in (*_INTEGER_FIELDS, "ttft_slo_s", "tpot_slo_s"):
            if getattr(self, name).shape != (n,):
                raise WorkloadError(f"{self.name}: {name} has shape {getattr(self, name).shape}, expected ({n},)")
        if self.prefix_start.shape != (n + 1,):
            raise WorkloadError(f"{self.name}: prefix_start has shape {self.prefix_start.shape}, expected ({n + 1},)")
        arrival = self.arrival_s
        bad = np.flatnonzero(~np.isfinite(arrival) | (arrival < 0.0))
        if bad.size:
            raise WorkloadError(f"{self.name}: request {bad[0]} arrives at {arrival[bad[0]]} s; expected a finite time >= 0")
        bad = np.flatnonzero(np.diff(arrival) < 0.0)
        if bad.size:
            raise WorkloadError(f"{self.name}: request {bad[0] + 1} arrives before request {bad[0]}; sort by arrival")
        for name in ("num_prompt_tokens", "num_output_tokens"):
            values = getattr(self, name)
            bad = np.flatnonzero(values < 1)
            if bad.size:
                raise WorkloadError(f"{self.name}: request {bad[0]} has {name} = {values[bad[0]]}; expected at least 1")

    def __len__(self) -> int:
        return len(self.arrival_s)
