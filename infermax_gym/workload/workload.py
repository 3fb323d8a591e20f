"""`Workload`: the requests of a run, as immutable arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class WorkloadError(ValueError):
    """A workload, or the file that holds one, is not usable; the message says where and why."""


_UNSET: Any = None  # marks a field whose default depends on the number of requests
_INTEGER_FIELDS = (
    "num_prompt_tokens",
    "num_output_tokens",
    "priority",
    "tenant",
    "slo_class",
    "session",
    "turn",
    "after",
)
_FLOAT_FIELDS = ("ttft_slo_s", "tpot_slo_s", "think_s")

NOBODY = -1
"""`Workload.after` of a request that arrives at its `arrival_s`."""
ANYBODY = -2
"""`Workload.after` of a request that the next client without another one to send takes."""


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
        session: (n,) int64, equal for the requests of one conversation; by default each request is one of its own.
        turn: (n,) int64, place in the conversation, from 1; ones by default.
        ttft_slo_s: (n,) float64, each request's own limit on its time to first token; inf (none) by default.
        tpot_slo_s: (n,) float64, each request's own limit on its time per output token; inf by default.
        after: (n,) int64, who must end before the request is sent: NOBODY (-1, the default), it arrives at its
            `arrival_s`; the index of an earlier request; or ANYBODY (-2): the first end of a request that has no other
            one behind it sends the first request marked so, the second end the second. A rejected request ends when it
            is rejected. Of requests with somebody before them, `arrival_s` only says where they stand in the order.
        think_s: (n,) float64, seconds from that end to the arrival; zeros by default.
        tenant_names: names of the tenants.
        slo_class_names: names of the SLO classes.
        prefix_blocks: (num_hashes,) int64 prefix block hashes of all requests, one request after another;
            empty by default. They cover a request's prompt from its beginning; if there are more of them than its
            prompt has blocks, its output as well. Equal hashes behind equal ones mean equal tokens.
        prefix_start: (n + 1,) int64, request r owns prefix_blocks[prefix_start[r]:prefix_start[r + 1]].
        prefix_block_size: tokens per prefix block (0 without prefixes).
        name: where the requests come from.
        metadata: plain facts about the origin (format, path, generator parameters, seed).

    Raises:
        WorkloadError: lengths differ, a token count is below 1, arrivals decrease, are negative or not finite, a
            limit is not a number, a turn is below 1, `prefix_start` does not divide `prefix_blocks`, or `after` and
            `think_s` do not say who is sent when.
    """

    arrival_s: NDArray[np.float64]
    num_prompt_tokens: NDArray[np.int64]
    num_output_tokens: NDArray[np.int64]
    priority: NDArray[np.int64] = _UNSET
    tenant: NDArray[np.int64] = _UNSET
    slo_class: NDArray[np.int64] = _UNSET
    session: NDArray[np.int64] = _UNSET
    turn: NDArray[np.int64] = _UNSET
    ttft_slo_s: NDArray[np.float64] = _UNSET
    tpot_slo_s: NDArray[np.float64] = _UNSET
    after: NDArray[np.int64] = _UNSET
    think_s: NDArray[np.float64] = _UNSET
    tenant_names: tuple[str, ...] = ("default",)
    slo_class_names: tuple[str, ...] = ("default",)
    prefix_blocks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    prefix_start: NDArray[np.int64] = _UNSET
    prefix_block_size: int = 0
    name: str = "workload"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.arrival_s)

        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("arrival_s", _frozen(self.arrival_s, np.float64))
        unset = {"session": np.arange(n), "turn": np.ones(n), "after": np.full(n, NOBODY), "think_s": np.zeros(n)}
        for name in _INTEGER_FIELDS:
            value = getattr(self, name)
            put(name, _frozen(unset.get(name, np.zeros(n)) if value is _UNSET else value, np.int64))
        for name in _FLOAT_FIELDS:
            value = getattr(self, name)
            put(name, _frozen(unset.get(name, np.full(n, np.inf)) if value is _UNSET else value, np.float64))
        put("prefix_blocks", _frozen(self.prefix_blocks, np.int64))
        start = np.zeros(n + 1) if self.prefix_start is _UNSET else self.prefix_start
        put("prefix_start", _frozen(start, np.int64))
        put("metadata", MappingProxyType(dict(self.metadata)))
        self._check(n)

    def _check(self, n: int) -> None:
        for name in (*_INTEGER_FIELDS, *_FLOAT_FIELDS):
            if getattr(self, name).shape != (n,):
                raise WorkloadError(f"{self.name}: {name} has shape {getattr(self, name).shape}, expected ({n},)")
        if self.prefix_start.shape != (n + 1,):
            raise WorkloadError(f"{self.name}: prefix_start has shape {self.prefix_start.shape}, expected ({n + 1},)")
        arrival = self.arrival_s
        bad = np.flatnonzero(~np.isfinite(arrival) | (arrival < 0.0))
        if bad.size:
            where = f"{self.name}: request {bad[0]}"
            raise WorkloadError(f"{where} arrives at {arrival[bad[0]]} s; expected a finite time >= 0")
        bad = np.flatnonzero(np.diff(arrival) < 0.0)
        if bad.size:
            raise WorkloadError(f"{self.name}: request {bad[0] + 1} arrives before request {bad[0]}; sort by arrival")
        for name in ("num_prompt_tokens", "num_output_tokens", "turn"):
            values = getattr(self, name)
            bad = np.flatnonzero(values < 1)
            if bad.size:
                raise WorkloadError(f"{self.name}: request {bad[0]} has {name} = {values[bad[0]]}; expected at least 1")
        for name in ("ttft_slo_s", "tpot_slo_s"):
            bad = np.flatnonzero(np.isnan(getattr(self, name)))
            if bad.size:
                raise WorkloadError(f"{self.name}: request {bad[0]} has {name} = nan; expected a time, or inf for none")
        edges = self.prefix_start
        if edges[0] != 0 or edges[-1] != len(self.prefix_blocks) or np.any(np.diff(edges) < 0):
            num_blocks = len(self.prefix_blocks)
            raise WorkloadError(
                f"{self.name}: prefix_start must rise from 0 to the number of prefix blocks, {num_blocks}"
            )
        self._check_closed_loop(n)

    def _check_closed_loop(self, n: int) -> None:
        after = self.after
        bad = np.flatnonzero((after < ANYBODY) | (after >= np.arange(n)))
        if bad.size:
            raise WorkloadError(
                f"{self.name}: request {bad[0]} has after = {after[bad[0]]}; expected an earlier request, -1 or -2"
            )
        bad = np.flatnonzero(~np.isfinite(self.think_s) | (self.think_s < 0.0))
        if bad.size:
            where = f"{self.name}: request {bad[0]}"
            raise WorkloadError(f"{where} has think_s = {self.think_s[bad[0]]}; expected a finite time >= 0")
        if not self.is_closed_loop:
            return
        if not np.any(after == NOBODY):
            raise WorkloadError(f"{self.name}: every request is sent after another one; expected one that begins")
        behind = after[after >= 0]
        if np.any(after == ANYBODY) and len(np.unique(behind)) < len(behind):
            raise WorkloadError(
                f"{self.name}: two requests are sent after the same one, and others after anybody; "
                "expected clients that send one request at a time"
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and arrays come back writable: rebuild through the constructor.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return _rebuild, ({**values, "metadata": dict(self.metadata)},)

    @property
    def is_closed_loop(self) -> bool:
        """Whether some requests are sent when others have ended."""
        return bool(np.any(self.after != NOBODY))

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second: one over the mean gap between arrivals; inf if all arrive at once, nan for none."""
        n = len(self)
        if n == 0:
            return math.nan
        span_s = float(self.arrival_s[-1] - self.arrival_s[0])
        return (n - 1) / span_s if span_s > 0.0 else math.inf

    def check_output_bound(self, max_output_tokens: int | None) -> None:
        """Refuse outputs longer than what a service promises its scheduler (`EngineConfig.max_output_tokens`).

        Raises:
            WorkloadError: how many requests are above the bound, and which is the first.
        """
        if max_output_tokens is None:
            return
        over = np.flatnonzero(self.num_output_tokens > max_output_tokens)
        if over.size:
            raise WorkloadError(
                f"{self.name}: {over.size} of {len(self)} requests have more output tokens than max_output_tokens = "
                f"{max_output_tokens}, the first is request {over[0]} with {self.num_output_tokens[over[0]]}; expected "
                f"a bound of at least {self.num_output_tokens.max()}, or none"
            )

    def trace_slice(self, start: int, count: int | None = None) -> Workload:
        """The requests [start, start + count), with arrivals counted from the first of them.

        A request whose predecessor is not among them arrives at its `arrival_s`.

        Args:
            start: index of the first request kept.
            count: how many requests to keep, at least 1; all that follow by default.

        Raises:
            WorkloadError: the workload does not hold that many requests, or clients share them (`closed_loop` comes
                after the slice).
        """
        n = len(self)
        count = n - start if count is None else count
        if start < 0 or count < 1 or start + count > n:
            raise WorkloadError(f"{self.name}: no trace slice of {count} requests from request {start}; it holds {n}")
        if count < n and np.any(self.after == ANYBODY):
            raise WorkloadError(f"{self.name}: clients share its requests; take the slice first, then closed_loop")
        keep = slice(start, start + count)
        after = self.after[keep]
        edges = self.prefix_start[start : start + count + 1]
        return replace(
            self,
            arrival_s=self.arrival_s[keep] - self.arrival_s[start],
            **{name: getattr(self, name)[keep] for name in (*_INTEGER_FIELDS, *_FLOAT_FIELDS) if name != "after"},
            after=np.where(after >= start, after - start, np.where(after == ANYBODY, ANYBODY, NOBODY)),
            prefix_blocks=self.prefix_blocks[edges[0] : edges[-1]],
            prefix_start=edges - edges[0],
        )

    def scaled(self, time_scale: float) -> Workload:
        """The same requests with every arrival time multiplied; below 1 compresses time, so raises the load.

        `think_s` stays: people think as long as they do.

        Raises:
            WorkloadError: the scale is not positive and finite.
        """
        if not 0.0 < time_scale < math.inf:
            raise WorkloadError(f"time scale must be positive and finite, got {time_scale}")
        return replace(self, arrival_s=self.arrival_s * time_scale)

    def with_limits(self, ttft_slo_s: float | None, tpot_slo_s: float | None) -> Workload:
        """The same requests, where those without a limit of their own get these; None: they stay without.

        So what counts as in time is also what schedulers are told.

        Args:
            ttft_slo_s: seconds to the first token.
            tpot_slo_s: seconds per output token.

        Raises:
            WorkloadError: a limit is not positive.
        """
        for name, limit in (("ttft_slo_s", ttft_slo_s), ("tpot_slo_s", tpot_slo_s)):
            if limit is not None and not limit > 0.0:
                raise WorkloadError(f"{name} must be positive, got {limit}")

        def filled(own_s: NDArray[np.float64], limit_s: float | None) -> NDArray[np.float64]:
            return own_s if limit_s is None else np.where(np.isfinite(own_s), own_s, limit_s)

        ttft, tpot = filled(self.ttft_slo_s, ttft_slo_s), filled(self.tpot_slo_s, tpot_slo_s)
        return replace(self, ttft_slo_s=ttft, tpot_slo_s=tpot)

    def with_rate(self, rate_per_s: float) -> Workload:
        """The same requests with arrivals stretched so that their mean rate is exactly the one given.

        Raises:
            WorkloadError: the rate is not positive and finite, or all requests arrive at once, so that no
                stretching gives them a rate.
        """
        if not 0.0 < rate_per_s < math.inf:
            raise WorkloadError(f"rate must be positive and finite, got {rate_per_s}")
        if len(self) < 2:
            return self
        if math.isinf(self.mean_rate_per_s):
            raise WorkloadError(f"{self.name}: all {len(self)} requests arrive at once, so a rate does not apply")
        return self.scaled(self.mean_rate_per_s / rate_per_s)


def _rebuild(values: dict[str, Any]) -> Workload:
    return Workload(**values)
