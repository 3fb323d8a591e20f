"""One step of the search: every iteration that can follow a state, with a lower bound on each successor.

A state is one code per request (`tables.py`). A successor picks one action per request: stay, decode, prefill,
drop. Compiled; the arrays are those of `layout.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.search.floor import state_bound
from infermax_gym.baselines.optimum.search.layout import (
    ACTION,
    ACTION_START,
    AFTER,
    ARRIVAL,
    BACKWARD,
    BASE,
    BEFORE_GAPS,
    BLOCKS,
    CHOSEN,
    CHUNK_RULE,
    CODE,
    CODE_COLUMNS,
    CODES,
    CONTINUES,
    DECODE_CONTEXT,
    DECODES,
    FIRST,
    FLOOR_CONTEXT,
    FULL_BATCHES,
    HELD,
    LATENCY,
    LEAN,
    LOAD,
    LOAD_SUMS,
    LOCKS,
    MASK_BITS,
    MAX_SEQS,
    MAX_TOKENS,
    MOST,
    NUM_BLOCKS,
    NUM_COLUMNS,
    NUM_LOADS,
    NUM_REQUESTS,
    OFFSET,
    PARKS,
    PARTIALS,
    PAUSES,
    PER_BATCH,
    PREFILL_CONTEXT,
    PREFILLS,
    RESTART_S,
    RESTARTS,
    SAME,
    SEATS,
    STRIDE,
    SUMMED,
    SUMS,
    TO_CODE,
    TOKENS,
    TTFT_LIMIT,
    TWIN,
    UNBASE,
    UNFINISHED,
    WORK,
)  # fmt: skip
from infermax_gym.compile import compiled
from infermax_gym.cost.kernel import batch_seconds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Modes of a pass over the batches.
ANY = 0
NO_RESTART = 1
NO_DECODE = 2  # with restarts and, where that is needed for a gain, another prefill

# Columns of the successors.
CLOCK = 0
COST = 1
BOUND = 2


@compiled
def decode_key(ints: Ints, key: int, work: Ints, at: int) -> None:
    """Codes of the state with this key, into work[at:at + n]."""
    bits = ints[MASK_BITS]
    mask = key & ((1 << bits) - 1)
    rest = key >> bits
    for i in range(ints[NUM_REQUESTS] - 1, -1, -1):
        stride = ints[ints[STRIDE] + i]
        base = rest // stride
        rest -= base * stride
        work[at + i] = ints[ints[UNBASE] + ints[ints[OFFSET] + i] + base] + ((mask >> i) & 1)


@compiled
def encode_sorted(ints: Ints, work: Ints, at: int) -> Any:
    """Key of a state after sorting the codes of identical requests (in place)."""
    for i in range(ints[NUM_REQUESTS]):
        j = i
        while ints[ints[SAME] + j] == 1 and work[at + j] < work[at + j - 1]:
            work[at + j], work[at + j - 1] = work[at + j - 1], work[at + j]
            j -= 1
    base = 0
    mask = 0
    for i in range(ints[NUM_REQUESTS]):
        code = ints[CODE] + (ints[ints[OFFSET] + i] + work[at + i]) * CODE_COLUMNS
        base += ints[code + BASE] * ints[ints[STRIDE] + i]
        mask |= ints[code + TWIN] << i
    return (base << ints[MASK_BITS]) | mask


@compiled
def untwin(ints: Ints, work: Ints, at: int) -> None:
    """Lift the restrictions of twins: after a wait, nothing that happened before could happen later instead."""
    for i in range(ints[NUM_REQUESTS]):
        work[at + i] -= ints[ints[CODE] + (ints[ints[OFFSET] + i] + work[at + i]) * CODE_COLUMNS + TWIN]


@compiled
def _next_arrival(ints: Ints, floats: Floats, clock: float) -> Any:
    """First arrival after `clock`, infinite if there is none."""
    for i in range(ints[NUM_REQUESTS]):
        if floats[ints[ARRIVAL] + i] > clock:
            return floats[ints[ARRIVAL] + i]
    return np.inf


@compiled
def num_unfinished(ints: Ints, work: Ints, at: int) -> Any:
    """Unfinished requests of the state at work[at:]."""
    left = 0
    for i in range(ints[NUM_REQUESTS]):
        left += ints[ints[CODE] + (ints[ints[OFFSET] + i] + work[at + i]) * CODE_COLUMNS + UNFINISHED]
    return left


@compiled
def _pays(ints: Ints, floats: Floats, work: Ints, total: int) -> Any:
    """Whether restarting some requests is cheaper than decoding them all."""
    if work[total + RESTARTS] == 0:
        return False
    extra = 0.0
    for i in range(ints[NUM_REQUESTS]):
        extra += floats[ints[RESTART_S] + work[ints[CHOSEN] + i]]
    decode, prefill = floats[ints[PER_BATCH] + 1], floats[ints[PER_BATCH] + 2]
    saved = decode if work[total + PREFILLS] > work[total + RESTARTS] else decode - prefill
    return extra < saved


@compiled
def _admissible(ints: Ints, floats: Floats, work: Ints, start: float, waited: bool, mode: int) -> Any:
    """Whether a batch within the caps is worth looking at; see `expand` for the rules."""
    n = ints[NUM_REQUESTS]
    total = ints[SUMS] + n * SUMMED
    if work[total + TOKENS] == 0:
        return False
    free = ints[NUM_BLOCKS] - work[total + BLOCKS]
    seat = work[total + SEATS] < ints[MAX_SEQS]
    newest = not waited
    for i in range(n):
        action = ints[ACTION] + work[ints[CHOSEN] + i] * NUM_COLUMNS
        if 0 < ints[action + HELD] <= free and seat:
            return False
        newest = newest or (ints[action + TOKENS] > 0 and floats[ints[ARRIVAL] + i] == start)
    if not newest:
        return False
    if mode == NO_DECODE and not _pays(ints, floats, work, total):
        return False
    idle_budget = work[total + TOKENS] < ints[MAX_TOKENS]
    return not (ints[CHUNK_RULE] == FULL_BATCHES and work[total + CONTINUES] > 0 and idle_budget)


@compiled
def _emit(
    ints: Ints, floats: Floats, work: Ints, work_s: Floats, theta: Floats, term_end: Ints, child: Ints,
    child_s: Floats, clock: float, start: float, cost: float, limit: float, left: int, count: int,
) -> Any:  # fmt: skip
    """Append the successor of the chosen actions unless its bound reaches `limit`; returns the new count."""
    n = ints[NUM_REQUESTS]
    total = ints[SUMS] + n * SUMMED
    end = start + batch_seconds(
        theta, term_end, ints[FLOOR_CONTEXT] == 1, work[total + TOKENS], work[total + WORK], work[total + PREFILLS],
        work[total + PREFILL_CONTEXT], work[total + DECODE_CONTEXT], work[total + DECODES],
    )  # fmt: skip
    after = ints[AFTER]
    free = ints[NUM_BLOCKS] - work[total + BLOCKS] if work[total + DECODES] > 0 else 0
    seat = work[total + SEATS] < ints[MAX_SEQS]
    for i in range(n):
        action = ints[ACTION] + work[ints[CHOSEN] + i] * NUM_COLUMNS
        locks = ints[action + LOCKS]
        locked = locks > 0 and work[total + DECODES] > 0 and (ints[action + TOKENS] > 0 or (seat and locks <= free))
        work[after + i] = ints[action + TO_CODE] + locked
        if ints[action + FIRST] == 1 and end - floats[ints[ARRIVAL] + i] > floats[ints[TTFT_LIMIT] + i]:
            return count
    if ints[CHUNK_RULE] == BEFORE_GAPS and work[total + PARTIALS] > 0:
        end = _next_arrival(ints, floats, end)
        if end == np.inf:
            return count
        untwin(ints, work, after)
    new_cost = cost + (end - clock) * left if ints[LATENCY] == 1 else end
    loads_at = ints[LOAD_SUMS] + n * ints[NUM_LOADS]
    bound = state_bound(ints, floats, work, work_s, after, loads_at, end, new_cost, limit)
    if bound >= limit:
        return count
    if count < child.shape[0]:
        child[count, 0] = encode_sorted(ints, work, after)
        child_s[count, CLOCK] = end
        child_s[count, COST] = new_cost
        child_s[count, BOUND] = bound
        for i in range(n):
            child[count, 1 + i] = work[ints[CHOSEN] + i]
    return count + 1


@compiled
def _pick(ints: Ints, floats: Floats, work: Ints, depth: int, a: int, start: float, mode: int) -> Any:
    """Try an action for request `depth`: whether a batch with it is still possible; updates the totals."""
    action = ints[ACTION] + a * NUM_COLUMNS
    if mode == NO_RESTART and ints[action + RESTARTS] > 0:
        return False
    if mode == NO_DECODE and ints[action + DECODES] > 0:
        return False
    if ints[action + TOKENS] > 0 and floats[ints[ARRIVAL] + depth] > start:
        return False
    before = ints[SUMS] + depth * SUMMED
    after = before + SUMMED
    for k in range(SUMMED):
        work[after + k] = work[before + k] + ints[action + k]
    free = ints[NUM_BLOCKS] - work[after + BLOCKS]
    seats = ints[MAX_SEQS] - work[after + SEATS]
    if work[after + TOKENS] > ints[MAX_TOKENS] or free < 0 or seats < 0:
        return False
    if work[after + PAUSES] > 0 < work[after + DECODES] or work[after + PARKS] > 0 < work[after + PREFILLS]:
        return False
    most = ints[MOST] + 2 * (depth + 1)
    if 0 < ints[action + HELD] <= free - work[most] and work[most + 1] < seats:
        return False
    loads = ints[NUM_LOADS]
    load = ints[LOAD_SUMS] + depth * loads
    more = ints[LOAD] + (ints[ints[OFFSET] + depth] + ints[action + TO_CODE]) * loads
    for f in range(loads):
        work[load + loads + f] = work[load + f] + ints[more + f]
    return True


@compiled
def _starting_at(
    ints: Ints, floats: Floats, work: Ints, work_s: Floats, theta: Floats, term_end: Ints, child: Ints,
    child_s: Floats, clock: float, start: float, cost: float, limit: float, left: int, mode: int, count: int,
) -> Any:  # fmt: skip
    """Append the successors of the state at CODES whose iteration begins at `start`; returns the new count."""
    n = ints[NUM_REQUESTS]
    codes, chosen = ints[CODES], ints[CHOSEN]
    work[ints[SUMS] : ints[SUMS] + SUMMED] = 0
    work[ints[LOAD_SUMS] : ints[LOAD_SUMS] + ints[NUM_LOADS]] = 0
    depth = 0
    code = ints[ints[OFFSET]] + work[codes]
    work[chosen] = ints[ints[ACTION_START] + code] - 1
    while depth >= 0:
        work[chosen + depth] += 1
        a = work[chosen + depth]
        code = ints[ints[OFFSET] + depth] + work[codes + depth]
        if a >= ints[ints[ACTION_START] + code + 1]:
            depth -= 1
            continue
        if not _pick(ints, floats, work, depth, a, start, mode):
            continue
        if depth + 1 < n:
            depth += 1
            below = ints[ints[ACTION_START] + code]
            code = ints[ints[OFFSET] + depth] + work[codes + depth]
            work[chosen + depth] = ints[ints[ACTION_START] + code] - 1
            if ints[ints[SAME] + depth] == 1 and work[codes + depth] == work[codes + depth - 1]:
                work[chosen + depth] += a - below
        elif _admissible(ints, floats, work, start, start > clock, mode):
            count = _emit(
                ints, floats, work, work_s, theta, term_end, child, child_s, clock, start, cost, limit, left, count
            )
    return count


@compiled
def _set_most(ints: Ints, work: Ints) -> None:
    """Most blocks and sequences that the requests from i on can take."""
    n = ints[NUM_REQUESTS]
    most = ints[MOST]
    work[most + 2 * n] = 0
    work[most + 2 * n + 1] = 0
    for i in range(n - 1, -1, -1):
        code = ints[ints[OFFSET] + i] + work[ints[CODES] + i]
        blocks = 0
        seats = 0
        for a in range(ints[ints[ACTION_START] + code], ints[ints[ACTION_START] + code + 1]):
            blocks = max(blocks, ints[ints[ACTION] + a * NUM_COLUMNS + BLOCKS])
            seats = max(seats, ints[ints[ACTION] + a * NUM_COLUMNS + SEATS])
        work[most + 2 * i] = work[most + 2 * i + 2] + blocks
        work[most + 2 * i + 1] = work[most + 2 * i + 3] + seats


@compiled
def expand(
    ints: Ints, floats: Floats, work: Ints, work_s: Floats, theta: Floats, term_end: Ints, child: Ints,
    child_s: Floats, key: int, clock: float, cost: float, limit: float,
) -> Any:  # fmt: skip
    """List every successor of a state whose bound is below `limit`; returns how many there are.

    Without loss some successors are skipped. An iteration starts now or, after waiting, at the arrival of a
    request it serves. KV is dropped only when keeping it would not fit (the latest moment is the best one).

    Where the cost is linear (LEAN), a decode is replaced by a restart only if that rids the batch of all decodes
    and pays. Where, besides, no token budget binds, passes happen as late as they can between two waits, which only
    lowers the memory in between: a request that has decoded since its prefill idles only in batches without
    decodes, one that has not idles only in batches without prefills (where no request has its own arrival or
    limit), and a prefill is cut only right before a wait. Where a token budget binds and all arrive together,
    later chunks of a prefill only join full batches.

    Args:
        ints, floats, work, work_s: see `layout.py`.
        theta, term_end: the cost model.
        child: (width, 1 + n) filled with keys and actions. If there are more successors than rows, the count
            says so and the rest is lost.
        child_s: (width, 3) filled with CLOCK, COST and BOUND, seconds.
        key: the state.
        clock: seconds at which it is reached.
        cost: seconds of objective so far.
        limit: successors whose bound is not below are dropped, seconds.
    """
    decode_key(ints, key, work, ints[CODES])
    _set_most(ints, work)
    left = num_unfinished(ints, work, ints[CODES])
    count = 0
    for mode in range(ANY, NO_DECODE + 1):
        if (mode == ANY) == (ints[LEAN] == 1) or (mode == NO_DECODE and ints[BACKWARD] == 1):
            continue
        count = _starting_at(
            ints, floats, work, work_s, theta, term_end, child, child_s, clock, clock, cost, limit, left, mode, count
        )
        previous = clock
        untwin(ints, work, ints[CODES])
        for i in range(ints[NUM_REQUESTS]):
            start = floats[ints[ARRIVAL] + i]
            if start > previous:
                count = _starting_at(
                    ints, floats, work, work_s, theta, term_end, child, child_s, clock, start, cost, limit, left,
                    mode, count,
                )  # fmt: skip
                previous = start
        decode_key(ints, key, work, ints[CODES])
    return count
