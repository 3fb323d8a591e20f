"""How tenants, or SLO classes, fare beside each other: figures of each, and how evenly they are served.

Service is counted as VTC does (arXiv 2401.00588): 1 per prompt token, 2 per output token. From per-request records
alone: a prompt counts when its first token appears, the answer evenly between its first and its last token. A group
is backlogged while one of its requests has arrived and has not been scheduled yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import SimulationResult, Slo
from infermax_gym.engine.metrics import distribution, meets_slo

By = Literal["tenant", "slo-class"]

PROMPT_CHARGE, OUTPUT_CHARGE = 1.0, 2.0
_MOST_PAIRED = 32
"""Groups that are compared pair by pair: those that were backlogged longest."""


def group_figures(result: SimulationResult, by: By, slo: Slo | None = None) -> dict[str, Any]:
    """Figures of every group, and how evenly they were served.

    Args:
        result: a run.
        by: what makes a group.
        slo: limits, as in `summarize`.

    Returns:
        `fairness`: `jain_index` of the service per backlogged second over groups that were backlogged (1 = even);
        `max_service_gap_tokens`, the most that one group's service grew beyond another's while both were backlogged;
        `longest_wait_s` from arrival to the first token scheduled. None where there is nothing to compare.
        `groups`: by name, counts, latencies, attainment and service of each.
    """
    workload = result.workload
    numbers = workload.tenant if by == "tenant" else workload.slo_class
    names = workload.tenant_names if by == "tenant" else workload.slo_class_names
    present = sorted({*range(len(names)), *np.unique(numbers).tolist()})
    met = meets_slo(result, slo)
    histories = [_history(result, numbers == number) for number in present]
    rates = [h.service / h.backlogged_s for h in histories if h.backlogged_s > 0.0]
    waits = result.first_scheduled_s - result.arrival_s
    groups = {
        _name(names, number): _figures(result, numbers == number, met, waits, history)
        for number, history in zip(present, histories, strict=True)
    }
    fairness = {
        "jain_index": jain_index(np.array(rates)),
        "max_service_gap_tokens": _max_service_gap(histories),
        "longest_wait_s": _largest(waits),
    }
    return {"fairness": fairness, "groups": groups}


def jain_index(shares: NDArray[np.float64]) -> float | None:
    """(sum of shares)^2 / (n x sum of their squares): 1 where all are equal, 1 / n where one has all; None without."""
    squares = float((shares * shares).sum())
    return float(shares.sum()) ** 2 / (len(shares) * squares) if squares > 0.0 else None


@dataclass(frozen=True, eq=False)
class _History:
    """One group over time.

    Attributes:
        waiting: (k, 2) float64, disjoint intervals in seconds, in order, in which it was backlogged.
        jumps: (j, 2) float64, (second, tokens): service that came at once.
        ramps: (r, 3) float64, (begin, end, tokens): service that came evenly in between.
        service: tokens that it received while backlogged.
    """

    waiting: NDArray[np.float64]
    jumps: NDArray[np.float64]
    ramps: NDArray[np.float64]
    service: float

    @property
    def backlogged_s(self) -> float:
        """Seconds in which it was backlogged."""
        return float((self.waiting[:, 1] - self.waiting[:, 0]).sum())

    def received(self, at_s: NDArray[np.float64], *, after: bool) -> NDArray[np.float64]:
        """(k,) tokens received until each moment, with or without what comes at that very moment."""
        return _received(self.jumps, self.ramps, at_s, after)


def _history(result: SimulationResult, members: NDArray[np.bool_]) -> _History:
    workload = result.workload
    arrival_s = result.arrival_s[members]
    scheduled_s = result.first_scheduled_s[members]
    came = np.isfinite(scheduled_s)
    waiting = _union(arrival_s[came], scheduled_s[came])
    done = members & result.finished
    first_s, last_s = result.first_token_s[done], result.finish_s[done]
    prompts, outputs = workload.num_prompt_tokens[done], workload.num_output_tokens[done]
    jumps = np.column_stack([first_s, PROMPT_CHARGE * prompts + OUTPUT_CHARGE])
    ramps = np.column_stack([first_s, last_s, OUTPUT_CHARGE * (outputs - 1)])[outputs > 1]
    gained = [
        _received(jumps, ramps, waiting[:, 1], True).sum(),
        _received(jumps, ramps, waiting[:, 0], True).sum(),
    ]
    return _History(waiting, jumps, ramps, float(gained[0] - gained[1]))


def _union(begin_s: NDArray[np.float64], end_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, 2) disjoint intervals, in order, that cover what the given ones cover; `begin_s` is sorted."""
    if not len(begin_s):
        return np.zeros((0, 2))
    reach = np.maximum.accumulate(end_s)
    starts = np.flatnonzero(np.concatenate([[True], begin_s[1:] > reach[:-1]]))
    ends = np.concatenate([starts[1:] - 1, [len(begin_s) - 1]])
    return np.column_stack([begin_s[starts], reach[ends]])


def _received(
    jumps: NDArray[np.float64], ramps: NDArray[np.float64], at_s: NDArray[np.float64], after: bool
) -> NDArray[np.float64]:
    order = np.argsort(jumps[:, 0], kind="stable")
    totals = np.concatenate([[0.0], np.cumsum(jumps[order, 1])])
    tokens = totals[np.searchsorted(jumps[order, 0], at_s, side="right" if after else "left")]
    if not len(ramps):
        return np.asarray(tokens)
    # A ramp adds rate x (t - begin) from its begin on, and takes the same back from its end on.
    rates = ramps[:, 2] / (ramps[:, 1] - ramps[:, 0])
    return np.asarray(tokens + _ramped(ramps[:, 0], rates, at_s) - _ramped(ramps[:, 1], rates, at_s))


def _ramped(begin_s: NDArray[np.float64], rates: NDArray[np.float64], at_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over i of rates_i x max(t - begin_i, 0)."""
    order = np.argsort(begin_s, kind="stable")
    slopes = np.concatenate([[0.0], np.cumsum(rates[order])])
    offsets = np.concatenate([[0.0], np.cumsum(rates[order] * begin_s[order])])
    count = np.searchsorted(begin_s[order], at_s, side="right")
    return np.asarray(slopes[count] * at_s - offsets[count])


def _max_service_gap(histories: list[_History]) -> float | None:
    """The most tokens by which one group's service grew beyond another's while both were backlogged.

    None if no two groups ever were backlogged at once.
    """
    largest: float | None = None
    longest_first = sorted(histories, key=lambda h: -h.backlogged_s)[:_MOST_PAIRED]
    for one, other in combinations(longest_first, 2):
        common = _intersection(one.waiting, other.waiting)
        if common:
            gap = _gap_between(one, other, np.array(common))
            largest = gap if largest is None else max(largest, gap)
    return largest


def _intersection(a: NDArray[np.float64], b: NDArray[np.float64]) -> list[tuple[float, float]]:
    """What two lists of disjoint intervals, each in order, have in common."""
    common, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        begin_s, end_s = max(a[i, 0], b[j, 0]), min(a[i, 1], b[j, 1])
        if begin_s < end_s:
            common.append((float(begin_s), float(end_s)))
        if a[i, 1] < b[j, 1]:
            i += 1
        else:
            j += 1
    return common


def _gap_between(one: _History, other: _History, common: NDArray[np.float64]) -> float:
    """The most that the difference of two services changed within one of the (k, 2) intervals, or a part of it."""
    moments = [h.jumps[:, 0] for h in (one, other)] + [h.ramps[:, :2].ravel() for h in (one, other)]
    times = np.unique(np.concatenate([common.ravel(), *moments]))
    after = one.received(times, after=True) - other.received(times, after=True)
    before = one.received(times, after=False) - other.received(times, after=False)
    largest = 0.0
    for first, last in np.searchsorted(times, common).tolist():
        inside = np.concatenate([after[first:last], before[first + 1 : last + 1]])
        largest = max(largest, float(inside.max() - inside.min()))
    return largest


def _figures(
    result: SimulationResult,
    members: NDArray[np.bool_],
    met: NDArray[np.bool_] | None,
    waits: NDArray[np.float64],
    history: _History,
) -> dict[str, Any]:
    finished = members & result.finished
    attained = None if met is None or not members.any() else float(met[members].mean())
    tpot_s = result.tpot_s[finished]
    return {
        "num_requests": int(members.sum()),
        "num_finished": int(finished.sum()),
        "num_preemptions": int(result.num_preemptions_of[members].sum()),
        "ttft_s": distribution(result.ttft_s[finished]),
        "tpot_s": distribution(tpot_s[np.isfinite(tpot_s)]),
        "latency_s": distribution(result.latency_s[finished]),
        "longest_wait_s": _largest(waits[members]),
        "backlogged_s": history.backlogged_s,
        "service_tokens": float(history.jumps[:, 1].sum() + history.ramps[:, 2].sum()),
        "slo_attainment": attained,
    }


def _largest(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else None


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else f"{number}"
