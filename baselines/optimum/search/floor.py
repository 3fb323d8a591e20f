"""Lower bounds on what a state still costs, compiled.

For a linear minorant of the cost model the remaining seconds are at least

    token times + one * J + prefill * J_p + decode * (J - J_p) + extra of forced refills

with J batches of which J_p prefill. J is bounded by the longest chain and by packing (dual feasible functions, on
tokens that lie a window away from both ends). J_p and the refills are bounded by finishing: requests that finish
without another prefill in between are resident together when the first of them finishes, at its peak.

The arrays `ints`, `floats`, `work`, `work_s` are those of `layout.py`; `at` is where the codes of the state begin
in `work`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.search.layout import (
    ARRIVAL,
    BLOCK_SIZE,
    CHAIN,
    CHAIN_S,
    CODE,
    CODE_COLUMNS,
    CODE_S,
    DUE,
    FINISHES,
    FLOOR_S,
    LATENCY,
    LOAD,
    LOAD_CAP,
    LOAD_WINDOW,
    LOW,
    MAX_SEQS,
    NUM_BLOCKS,
    NUM_LOADS,
    NUM_MINORANTS,
    NUM_REQUESTS,
    OFFSET,
    PER_BATCH,
    REFILL_S,
    RESIDENT,
    RISE,
    ROOM,
    RUNS,
    TAIL,
    UNFINISHED,
)  # fmt: skip
from infermax_gym.compile import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@compiled
def batch_constants(floats: Floats, at: int, batches: int, with_prefill: int) -> Any:
    """Least total of the batch constants floats[at:at + 3] of some iterations, `with_prefill` of which prefill."""
    one, decode, prefill = floats[at], floats[at + 1], floats[at + 2]
    if prefill >= decode:
        return one * batches + prefill * with_prefill + decode * max(batches - with_prefill, 0)
    return one * batches + prefill * max(batches, with_prefill)


@compiled
def _insert(values: Any, at: int, count: int, value: Any) -> None:
    """Insert into the sorted values[at:at + count]."""
    j = at + count
    while j > at and values[j - 1] > value:
        values[j] = values[j - 1]
        j -= 1
    values[j] = value


@compiled
def _column(ints: Ints, work: Ints, at: int, i: int, column: int) -> Any:
    """An integer column of request i's code."""
    return ints[ints[CODE] + (ints[ints[OFFSET] + i] + work[at + i]) * CODE_COLUMNS + column]


@compiled
def _seconds(ints: Ints, floats: Floats, work: Ints, at: int, i: int, column: int) -> Any:
    """A float column of request i's code."""
    return floats[ints[CODE_S] + (ints[ints[OFFSET] + i] + work[at + i]) * (FLOOR_S + ints[NUM_MINORANTS]) + column]


@compiled
def together(ints: Ints, work: Ints, at: int, only_resident: bool) -> Any:
    """At most how many of the unfinished (resident) requests finish without another prefill in between."""
    low = ints[ROOM]
    count = 0
    rise = ints[NUM_BLOCKS]
    for i in range(ints[NUM_REQUESTS]):
        if _column(ints, work, at, i, FINISHES) == 1 and not (only_resident and _column(ints, work, at, i, DUE) == 1):
            _insert(work, low, count, _column(ints, work, at, i, LOW))
            rise = min(rise, _column(ints, work, at, i, RISE))
            count += 1
    room = ints[NUM_BLOCKS] - rise
    for k in range(count):
        room -= work[low + k]
        if room < 0 or k >= ints[MAX_SEQS]:
            return k
    return count


@compiled
def _refill_floor(ints: Ints, floats: Floats, work: Ints, work_s: Floats, at: int, num_preempted: int) -> Any:
    """Least extra of so many preemptions of resident requests, seconds."""
    if num_preempted <= 0:
        return 0.0
    count = 0
    for i in range(ints[NUM_REQUESTS]):
        if _column(ints, work, at, i, UNFINISHED) == 1 and _column(ints, work, at, i, DUE) == 0:
            _insert(work_s, 0, count, _seconds(ints, floats, work, at, i, REFILL_S))
            count += 1
    total = 0.0
    for k in range(num_preempted):
        total += work_s[k]
    return total


@compiled
def num_overflowing(ints: Ints, work: Ints, at: int) -> Any:
    """At least how many resident requests are preempted yet.

    What runs does so until it finishes, whatever waits beside it holds its KV; where that outgrows the memory,
    somebody has to go. The worst moments are the last passes of those who run.
    """
    n = ints[NUM_REQUESTS]
    b = ints[BLOCK_SIZE]
    worst = 0
    for k in range(n):
        if _column(ints, work, at, k, RUNS) == 0:
            continue
        ahead = _column(ints, work, at, k, CHAIN)
        total = -ints[NUM_BLOCKS]
        count = 0
        for i in range(n):
            resident = _column(ints, work, at, i, RESIDENT)
            if resident > 0 and _column(ints, work, at, i, CHAIN) >= ahead:
                tokens = resident + ahead * _column(ints, work, at, i, RUNS)
                blocks = (tokens + b - 1) // b
                total += blocks
                _insert(work, ints[ROOM], count, blocks)
                count += 1
        out = 0
        while total > 0:
            out += 1
            total -= work[ints[ROOM] + count - out]
        worst = max(worst, out)
    return worst


@compiled
def _num_batches(ints: Ints, work: Ints, at: int, loads_at: int) -> Any:
    """Least number of iterations until all are finished."""
    batches = 0
    for i in range(ints[NUM_REQUESTS]):
        batches = max(batches, _column(ints, work, at, i, CHAIN))
    for f in range(ints[NUM_LOADS]):
        load = work[loads_at + f]
        cap = ints[ints[LOAD_CAP] + f]
        # More than `batches` are needed if load > cap * (batches - window); a division only then.
        if load > 0 and load > cap * (batches - ints[ints[LOAD_WINDOW] + f]):
            batches = ints[ints[LOAD_WINDOW] + f] + (load + cap - 1) // cap
    return batches


@compiled
def _floor_total(ints: Ints, floats: Floats, work: Ints, at: int, batches: int, prefills: int) -> Any:
    """Token times and batch constants under the best minorant."""
    largest = 0.0
    for k in range(ints[NUM_MINORANTS]):
        total = batch_constants(floats, ints[PER_BATCH] + 3 * k, batches, prefills)
        for i in range(ints[NUM_REQUESTS]):
            total += _seconds(ints, floats, work, at, i, FLOOR_S + k)
        largest = max(largest, total)
    return largest


@compiled
def makespan_bound(
    ints: Ints, floats: Floats, work: Ints, work_s: Floats, at: int, loads_at: int, enough: float
) -> Any:
    """Least seconds until all requests of a state are finished, ignoring arrivals.

    Args:
        ints, floats, work, work_s, at: see the module.
        loads_at: where the state's total loads begin in `work`.
        enough: a bound beyond this is not made better.
    """
    batches = _num_batches(ints, work, at, loads_at)
    due = 0
    resident = 0
    finishes = 0
    for i in range(ints[NUM_REQUESTS]):
        due += _column(ints, work, at, i, DUE)
        resident += _column(ints, work, at, i, UNFINISHED) - _column(ints, work, at, i, DUE)
        finishes += _column(ints, work, at, i, FINISHES)
    prefills = 1 if due > 0 else 0
    quick = _floor_total(ints, floats, work, at, batches, prefills)
    if quick >= enough or finishes < 2:
        return quick
    kept = together(ints, work, at, True)
    each = max(together(ints, work, at, False), 1)
    preempted = max(resident - kept, num_overflowing(ints, work, at))
    prefills = max(prefills, (finishes - kept + each - 1) // each, min(preempted, 1))
    refills = _refill_floor(ints, floats, work, work_s, at, preempted)
    return refills + _floor_total(ints, floats, work, at, batches, prefills)


@compiled
def _batches_by_finish(ints: Ints, work: Ints, at: int, batches: int, values: int) -> Any:
    """work[batches + k] = least iterations until k + 1 requests are finished; returns how many are unfinished."""
    count = 0
    for f in range(-1, ints[NUM_LOADS]):
        count = 0
        for i in range(ints[NUM_REQUESTS]):
            if _column(ints, work, at, i, UNFINISHED) == 1:
                code = ints[ints[OFFSET] + i] + work[at + i]
                value = _column(ints, work, at, i, CHAIN) if f < 0 else ints[ints[LOAD] + code * ints[NUM_LOADS] + f]
                _insert(work, values, count, value)
                count += 1
        total = 0
        for k in range(count):
            total += work[values + k]
            if f < 0:
                work[batches + k] = work[values + k]
                continue
            cap = ints[ints[LOAD_CAP] + f]
            window = ints[ints[LOAD_WINDOW] + f]
            if total > 0 and total > cap * (work[batches + k] - window):
                work[batches + k] = window + (total + cap - 1) // cap
    return count


@compiled
def latency_bound(ints: Ints, floats: Floats, work: Ints, work_s: Floats, at: int, clock: float) -> Any:
    """Least sum of (finish - clock) over the unfinished requests of a state.

    The k-th finish needs at least the k smallest token times, the batches that the k smallest loads or the
    k-th shortest chain take, and the prefills that k finishes take.
    """
    n = ints[NUM_REQUESTS]
    batches, alone, floors = ints[ROOM] + n, n, 2 * n
    count = _batches_by_finish(ints, work, at, batches, ints[ROOM] + 2 * n)
    m = 0
    for i in range(n):
        if _column(ints, work, at, i, UNFINISHED) == 1:
            wait = max(floats[ints[ARRIVAL] + i] - clock, 0.0)
            _insert(work_s, alone, m, wait + _seconds(ints, floats, work, at, i, CHAIN_S))
            m += 1
    kept = together(ints, work, at, True)
    each = max(together(ints, work, at, False), 1)
    resident = 0
    for i in range(n):
        resident += _column(ints, work, at, i, UNFINISHED) - _column(ints, work, at, i, DUE)
    preempted = max(resident - kept, num_overflowing(ints, work, at))
    extra = _refill_floor(ints, floats, work, work_s, at, preempted)
    largest = 0.0
    for minorant in range(ints[NUM_MINORANTS]):
        m = 0
        for i in range(n):
            if _column(ints, work, at, i, UNFINISHED) == 1:
                _insert(work_s, floors, m, _seconds(ints, floats, work, at, i, FLOOR_S + minorant))
                m += 1
        total_s = 0.0
        run = 0.0
        for k in range(count):
            run += work_s[floors + k]
            prefills = max(k - kept + each, 0) // each
            finish = run + batch_constants(floats, ints[PER_BATCH] + 3 * minorant, work[batches + k], prefills)
            total_s += max(finish, work_s[alone + k])
        largest = max(largest, total_s)
    return largest + extra


@compiled
def state_bound(
    ints: Ints, floats: Floats, work: Ints, work_s: Floats, at: int, loads_at: int, clock: float, cost: float,
    enough: float,
) -> Any:  # fmt: skip
    """Lower bound on the objective of every completion of a state reached at `clock` with `cost`."""
    if ints[LATENCY] == 1:
        return cost + latency_bound(ints, floats, work, work_s, at, clock)
    bound = clock + makespan_bound(ints, floats, work, work_s, at, loads_at, enough - clock)
    for k in range(ints[NUM_REQUESTS]):
        if floats[ints[ARRIVAL] + k] > clock:
            return max(bound, floats[ints[TAIL] + k])
    return bound
