"""Lower bounds on what a state still costs, compiled.

For a linear minorant of the cost model the remaining seconds are at least

    token times + any * J + prefill * J_p + decode * (J - J_p) + extra of forced refills

with J batches of which J_p prefill. J is bounded by the longest chain and by packing (dual feasible functions, on
tokens that lie some batches away from both ends). J_p and the refills are bounded by finishing: requests that finish
without another prefill in between are resident together when the first of them finishes, at its peak.

A state is given by its codes; its total loads lie in the last row of `Scratch.load_sums`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.baselines.optimum.search.layout import (
    ANY_BATCH,
    CHAIN,
    CHAIN_S,
    DUE,
    FINISHES,
    FLOOR_S,
    LOW,
    REFILL_S,
    RESIDENT,
    RISE,
    RUNS,
    UNFINISHED,
    WITH_DECODES,
    WITH_PREFILLS,
    Floats,
    Ints,
    Scratch,
    Tables,
)
from infermax_gym.compile import compiled, inlined


@inlined
def batch_constants(constants_s: Floats, minorant: int, batches: int, with_prefill: int) -> Any:
    """Least total of the batch constants of some iterations, `with_prefill` of which prefill, under a minorant."""
    one = constants_s[minorant, ANY_BATCH]
    decode, prefill = constants_s[minorant, WITH_DECODES], constants_s[minorant, WITH_PREFILLS]
    if prefill >= decode:
        return one * batches + prefill * with_prefill + decode * max(batches - with_prefill, 0)
    return one * batches + prefill * max(batches, with_prefill)


@inlined
def _insert(values: Any, count: int, value: Any) -> None:
    """Insert into the sorted values[:count]."""
    j = count
    while j > 0 and values[j - 1] > value:
        values[j] = values[j - 1]
        j -= 1
    values[j] = value


@inlined
def together(t: Tables, w: Scratch, codes: Ints, only_resident: bool) -> Any:
    """At most how many of the unfinished (resident) requests finish without another prefill in between."""
    count = 0
    rise = t.num_blocks
    for i in range(t.num_requests):
        c = t.offset[i] + codes[i]
        if t.code[c, FINISHES] == 1 and not (only_resident and t.code[c, DUE] == 1):
            _insert(w.sorted_blocks, count, t.code[c, LOW])
            rise = min(rise, t.code[c, RISE])
            count += 1
    room = t.num_blocks - rise
    for k in range(count):
        room -= w.sorted_blocks[k]
        if room < 0 or k >= t.max_num_seqs:
            return k
    return count


@inlined
def _refill_floor(t: Tables, w: Scratch, codes: Ints, num_preempted: int) -> Any:
    """Least extra of so many preemptions of resident requests, seconds."""
    if num_preempted <= 0:
        return 0.0
    count = 0
    for i in range(t.num_requests):
        c = t.offset[i] + codes[i]
        if t.code[c, UNFINISHED] == 1 and t.code[c, DUE] == 0:
            _insert(w.sorted_refill_s, count, t.code_s[c, REFILL_S])
            count += 1
    total = 0.0
    for k in range(num_preempted):
        total += w.sorted_refill_s[k]
    return total


@inlined
def num_overflowing(t: Tables, w: Scratch, codes: Ints) -> Any:
    """At least how many resident requests are preempted yet.

    What runs does so until it finishes, whatever waits beside it holds its KV; where that outgrows the memory,
    somebody has to go. The worst moments are the last passes of those who run.
    """
    worst = 0
    for k in range(t.num_requests):
        last = t.offset[k] + codes[k]
        if t.code[last, RUNS] == 0:
            continue
        ahead = t.code[last, CHAIN]
        total = -t.num_blocks
        count = 0
        for i in range(t.num_requests):
            c = t.offset[i] + codes[i]
            resident = t.code[c, RESIDENT]
            if resident > 0 and t.code[c, CHAIN] >= ahead:
                tokens = resident + ahead * t.code[c, RUNS]
                blocks = (tokens + t.block_size - 1) // t.block_size
                total += blocks
                _insert(w.sorted_blocks, count, blocks)
                count += 1
        out = 0
        while total > 0:
            out += 1
            total -= w.sorted_blocks[count - out]
        worst = max(worst, out)
    return worst


@inlined
def _num_batches(t: Tables, w: Scratch, codes: Ints) -> Any:
    """Least number of iterations until all are finished."""
    batches = 0
    for i in range(t.num_requests):
        batches = max(batches, t.code[t.offset[i] + codes[i], CHAIN])
    for f in range(t.load_cap.size):
        load = w.load_sums[t.num_requests, f]
        cap = t.load_cap[f]
        # More than `batches` are needed if load > cap * (batches - outside); a division only then.
        if load > 0 and load > cap * (batches - t.load_outside[f]):
            batches = t.load_outside[f] + (load + cap - 1) // cap
    return batches


@inlined
def _floor_total(t: Tables, codes: Ints, batches: int, prefills: int) -> Any:
    """Token times and batch constants under the best minorant."""
    largest = 0.0
    for k in range(t.per_batch_s.shape[0]):
        total = batch_constants(t.per_batch_s, k, batches, prefills)
        for i in range(t.num_requests):
            total += t.code_s[t.offset[i] + codes[i], FLOOR_S + k]
        largest = max(largest, total)
    return largest


@inlined
def makespan_bound(t: Tables, w: Scratch, codes: Ints, enough: float) -> Any:
    """Least seconds until all requests of a state are finished, ignoring arrivals.

    Args:
        t: the problem.
        w: scratch.
        codes: the state.
        enough: a bound beyond this is not made better.
    """
    batches = _num_batches(t, w, codes)
    due = 0
    resident = 0
    finishes = 0
    for i in range(t.num_requests):
        c = t.offset[i] + codes[i]
        due += t.code[c, DUE]
        resident += t.code[c, UNFINISHED] - t.code[c, DUE]
        finishes += t.code[c, FINISHES]
    prefills = 1 if due > 0 else 0
    quick = _floor_total(t, codes, batches, prefills)
    if quick >= enough or finishes < 2:
        return quick
    kept = together(t, w, codes, True)
    each = max(together(t, w, codes, False), 1)
    preempted = max(resident - kept, num_overflowing(t, w, codes))
    prefills = max(prefills, (finishes - kept + each - 1) // each, min(preempted, 1))
    refills = _refill_floor(t, w, codes, preempted)
    return refills + _floor_total(t, codes, batches, prefills)


@inlined
def _set_finish_batches(t: Tables, w: Scratch, codes: Ints) -> Any:
    """Fill `Scratch.finish_batches`; returns how many requests are unfinished."""
    count = 0
    for i in range(t.num_requests):
        c = t.offset[i] + codes[i]
        if t.code[c, UNFINISHED] == 1:
            _insert(w.finish_batches, count, t.code[c, CHAIN])
            count += 1
    for f in range(t.load_cap.size):
        count = 0
        for i in range(t.num_requests):
            c = t.offset[i] + codes[i]
            if t.code[c, UNFINISHED] == 1:
                _insert(w.sorted_steps, count, t.load[c, f])
                count += 1
        total = 0
        cap = t.load_cap[f]
        outside = t.load_outside[f]
        for k in range(count):
            total += w.sorted_steps[k]
            if total > 0 and total > cap * (w.finish_batches[k] - outside):
                w.finish_batches[k] = outside + (total + cap - 1) // cap
    return count


@inlined
def latency_bound(t: Tables, w: Scratch, codes: Ints, clock: float) -> Any:
    """Least sum of (finish - clock) over the unfinished requests of a state.

    The k-th finish needs at least the k smallest token times, the batches that the k smallest loads or the
    k-th shortest chain take, and the prefills that k finishes take.
    """
    count = _set_finish_batches(t, w, codes)
    m = 0
    resident = 0
    for i in range(t.num_requests):
        c = t.offset[i] + codes[i]
        resident += t.code[c, UNFINISHED] - t.code[c, DUE]
        if t.code[c, UNFINISHED] == 1:
            wait = max(t.arrival_s[i] - clock, 0.0)
            _insert(w.sorted_alone_s, m, wait + t.code_s[c, CHAIN_S])
            m += 1
    kept = together(t, w, codes, True)
    each = max(together(t, w, codes, False), 1)
    preempted = max(resident - kept, num_overflowing(t, w, codes))
    extra = _refill_floor(t, w, codes, preempted)
    largest = 0.0
    for minorant in range(t.per_batch_s.shape[0]):
        m = 0
        for i in range(t.num_requests):
            c = t.offset[i] + codes[i]
            if t.code[c, UNFINISHED] == 1:
                _insert(w.sorted_floor_s, m, t.code_s[c, FLOOR_S + minorant])
                m += 1
        total_s = 0.0
        run = 0.0
        for k in range(count):
            run += w.sorted_floor_s[k]
            prefills = max(k - kept + each, 0) // each
            finish = run + batch_constants(t.per_batch_s, minorant, w.finish_batches[k], prefills)
            total_s += max(finish, w.sorted_alone_s[k])
        largest = max(largest, total_s)
    return largest + extra


@inlined
def state_bound(t: Tables, w: Scratch, codes: Ints, clock: float, cost: float, enough: float) -> Any:
    """Lower bound on the objective of every completion of a state reached at `clock` with `cost`."""
    if t.latency:
        return cost + latency_bound(t, w, codes, clock)
    bound = clock + makespan_bound(t, w, codes, enough - clock)
    for k in range(t.num_requests):
        if t.arrival_s[k] > clock:
            return max(bound, t.tail_s[k])
    return bound


@compiled
def bound_of_scratch(t: Tables, w: Scratch, clock: float, cost: float) -> Any:
    """`state_bound` of the state in `Scratch.after`, for callers that are not compiled."""
    t, w = borrowed(t), borrowed(w)
    for f in range(t.load_cap.size):
        total = 0
        for i in range(t.num_requests):
            total += t.load[t.offset[i] + w.after[i], f]
        w.load_sums[t.num_requests, f] = total
    return state_bound(t, w, w.after, clock, cost, np.inf)
