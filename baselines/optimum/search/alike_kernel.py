"""The layered search over identical requests, compiled; `alike.py` says what it does, `alike_lists.py` what a state is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.search.alike_lists import (
    DECODES,
    DROPS,
    FINISHED,
    HEAD,
    IDLES,
    LAYER,
    LIST,
    NUM_EXPANDED,
    NUM_REACHED,
    PLACE,
    Alike,
)
from infermax_gym.baselines.optimum.search.floor import Floats, Ints, state_bound
from infermax_gym.baselines.optimum.search.layout import (
    AFTER,
    ARRIVAL,
    LATENCY,
    LOAD,
    LOAD_SUMS,
    MAX_SEQS,
    NUM_BLOCKS,
    NUM_LOADS,
)
from infermax_gym.compile import compiled, inlined

# Rows of the scratch of one expansion, by level: distinct numbers of tokens generated among those without KV.
LEVEL = 0
WAITS = 1
FALLS = 2  # dropped in this iteration
TAKES = 3  # prefilled in this iteration
USED = 4  # blocks up to this level
SEATS = 5
NUM_ROWS = 6


@compiled
def bound_of(s: Alike, ints: Ints, floats: Floats, work: Ints, work_s: Floats, list_number: int, other: int, cost: float, enough: float) -> Any:  # fmt: skip
    """Lower bound on the objective of every completion of a state that is reached at `cost`."""
    n = s.sizes[0]
    held = s.held[list_number, 0]
    at, sums, loads = ints[AFTER], ints[LOAD_SUMS], ints[NUM_LOADS]
    work[sums : sums + loads] = 0
    for k in range(n):
        code = s.code[1, s.held[list_number, 3 + k]] if k < held else s.code[0, s.others[other, k - held]]
        work[at + k] = code
        for f in range(loads):  # requests are identical: the loads of the first one's codes are everybody's
            work[sums + f] += ints[ints[LOAD] + code * loads + f]
    clock = floats[ints[ARRIVAL]] if ints[LATENCY] == 1 else cost
    return state_bound(ints, floats, work, work_s, at, sums, clock, cost, enough)


@inlined
def _levels(scratch: Any, row: Any, other: Any, n: int, length: int, outputs: int) -> Any:
    """Merge the others with those dropped into LEVEL, WAITS and FALLS; returns how many levels and finished ones."""
    i, j, count = 0, 0, 0
    drops = row[DROPS]
    while True:
        a = other[i] if i < length else outputs
        b = row[HEAD + n + j] if j < drops else outputs
        g = min(a, b)
        if g == outputs:
            return count, length - i + row[FINISHED]
        waits, falls = 0, 0
        while i < length and other[i] == g:
            waits += 1
            i += 1
        while j < drops and row[HEAD + n + j] == g:
            falls += 1
            j += 1
        scratch[LEVEL, count] = g
        scratch[WAITS, count] = waits
        scratch[FALLS, count] = falls
        count += 1


@inlined
def _batch_s(
    scratch: Any, pass_s: Any, held_blocks: Any, constants_s: Any, decodes: int, levels: int, spare: int, seat: bool
) -> Any:
    """Seconds of the chosen prefills and the constants of their batch, negative if it is not worth looking at."""
    total_s, extra_s = 0.0, 0.0
    prefills, restarts = 0, 0
    for k in range(levels):
        takes = scratch[TAKES, k]
        again = max(takes - scratch[WAITS, k], 0)
        g = scratch[LEVEL, k]
        if seat and scratch[FALLS, k] > again and held_blocks[g] <= spare:
            return -1.0  # KV is dropped only where keeping it would not fit
        prefills += takes
        restarts += again
        total_s += takes * pass_s[0, g]
        extra_s += again * (pass_s[0, g] - pass_s[1, g])
    if prefills + decodes == 0:
        return -1.0
    if restarts > 0 and extra_s >= constants_s[1] - (0.0 if prefills > restarts else constants_s[2]):
        return -1.0  # decoding them instead is no worse
    return total_s + constants_s[0] + (constants_s[2] if prefills > 0 else 0.0)


@inlined
def _after(
    scratch: Any, row: Any, binomial: Any, start: Any, rank_at: Any, kept: int, levels: int, finished: int, outputs: int
) -> Any:
    """Number of the state after the batch with the chosen prefills."""
    rank, count, i = 0, 0, 0
    for k in range(levels):
        takes = scratch[TAKES, k]
        if takes == 0:
            continue
        g = scratch[LEVEL, k] + 1
        if g == outputs:
            finished += takes
            continue
        while i < kept and row[HEAD + i] <= g:
            rank += binomial[count + 1, row[HEAD + i] - 1 + count]
            count += 1
            i += 1
        for _ in range(takes):
            rank += binomial[count + 1, g - 1 + count]
            count += 1
    while i < kept:
        rank += binomial[count + 1, row[HEAD + i] - 1 + count]
        count += 1
        i += 1
    state = start[rank_at[count] + rank]
    count = 0
    for k in range(levels):
        g = scratch[LEVEL, k]
        for _ in range(scratch[WAITS, k] + scratch[FALLS, k] - scratch[TAKES, k]):
            state += binomial[count + 1, g + count]
            count += 1
    for _ in range(finished):
        state += binomial[count + 1, outputs + count]
        count += 1
    return state


@compiled
def _expand(
    sizes: Ints, binomial: Ints, start: Ints, rank_at: Ints, outcome: NDArray[np.int8], outcome_blocks: Ints,
    outcome_s: Floats, outcome_gap: Ints, pass_blocks: Ints, held_blocks: Ints, pass_s: Floats, constants_s: Floats,
    cost_s: Floats, parent: NDArray[np.int32], other: NDArray[np.int8], length: int, num_blocks: int, max_seqs: int,
    latency: bool, scratch: Ints, source: int, limit: float,
) -> Any:  # fmt: skip
    """Reach every state that one iteration leads to; returns how many of them are new.

    The arrays are fields of `Alike`: the outcomes those of the state's residents, `other` the list of its others.
    """
    n, outputs = sizes[0], sizes[1]
    left = n
    waiting = 0  # blocks that everybody without KV would take
    for i in range(length):
        left -= other[i] == outputs
        if other[i] < outputs:
            waiting += pass_blocks[other[i]]
    weight = left if latency else 1
    cost = cost_s[source]
    reached = 0
    for o in range(outcome.shape[0]):
        row = outcome[o]
        decodes, idles = row[DECODES], row[IDLES]
        gap = outcome_gap[o] if decodes > 0 else 0
        if gap > waiting:
            continue
        levels, finished = _levels(scratch, row, other, n, length, outputs)
        # Nobody idles beside both a decode and a prefill, see `alike.py`.
        mixes = decodes == 0 or idles == 0
        scratch[USED, 0] = outcome_blocks[o]
        scratch[SEATS, 0] = decodes + idles
        scratch[TAKES, 0] = -1
        depth = 0
        while depth >= 0:
            if depth < levels:
                takes = scratch[TAKES, depth] + 1
                scratch[TAKES, depth] = takes
                most = scratch[WAITS, depth] + (scratch[FALLS, depth] if decodes == 0 else 0)
                used = scratch[USED, depth] + takes * pass_blocks[scratch[LEVEL, depth]]
                seats = scratch[SEATS, depth] + takes
                if takes > (most if mixes else 0) or used > num_blocks or seats > max_seqs:
                    depth -= 1
                    continue
                depth += 1
                scratch[USED, depth] = used
                scratch[SEATS, depth] = seats
                scratch[TAKES, depth] = -1
                continue
            used = scratch[USED, depth]
            seat = scratch[SEATS, depth] < max_seqs
            depth -= 1
            if used - outcome_blocks[o] < gap:
                continue
            batch_s = _batch_s(scratch, pass_s, held_blocks, constants_s, decodes, levels, num_blocks - used, seat)
            new = cost + weight * (batch_s + outcome_s[o])
            if batch_s < 0.0 or new >= limit:
                continue
            kept = decodes + idles - row[FINISHED]
            state = _after(scratch, row, binomial, start, rank_at, kept, levels, finished, outputs)
            if new < cost_s[state]:
                reached += cost_s[state] == np.inf
                cost_s[state] = new
                parent[state] = source
    return reached


@compiled
def advance(
    s: Alike, ints: Ints, floats: Floats, work: Ints, work_s: Floats, scratch: Ints, num: int, tolerance: float
) -> Any:
    """Expand up to `num` more states, layer after layer; whether all are done."""
    n, outputs = s.sizes[0], s.sizes[1]
    limit = s.value[0] * (1.0 - tolerance)
    last = s.cost_s.size - 1  # nobody resident comes last, and all finished last of them
    stop = s.cursor[NUM_EXPANDED] + num
    while s.cursor[LAYER] < n * outputs:
        while s.cursor[LIST] < s.held.shape[0]:
            list_number = s.cursor[LIST]
            length = n - s.held[list_number, 0]
            rest = s.cursor[LAYER] - s.held[list_number, 1]
            if 0 <= rest <= length * outputs:
                first = s.others_at[length]
                begin, end = s.sum_at[length, rest], s.sum_at[length, rest + 1]
                at, to = s.outcome_at[list_number], s.outcome_at[list_number + 1]
                for k in range(begin + s.cursor[PLACE], end):
                    if s.cursor[NUM_EXPANDED] >= stop:
                        s.cursor[PLACE] = k - begin
                        return False
                    rank = s.by_sum[first + k]
                    state = s.held[list_number, 2] + rank
                    cost = s.cost_s[state]
                    if cost >= limit:
                        continue
                    bound = bound_of(s, ints, floats, work, work_s, list_number, first + rank, cost, limit)
                    s.layer_s[s.cursor[LAYER]] = min(s.layer_s[s.cursor[LAYER]], bound)
                    if bound >= limit:
                        continue
                    s.cursor[NUM_REACHED] += _expand(
                        s.sizes, s.binomial, s.start, s.rank_at, s.outcome[at:to], s.outcome_blocks[at:to],
                        s.outcome_s[at:to], s.outcome_gap[at:to], s.pass_blocks, s.held_blocks, s.pass_s,
                        s.constants_s, s.cost_s, s.parent, s.others[first + rank], length, ints[NUM_BLOCKS],
                        ints[MAX_SEQS], ints[LATENCY] == 1, scratch, state, limit,
                    )  # fmt: skip
                    s.cursor[NUM_EXPANDED] += 1
                    if s.cost_s[last] < s.value[0]:
                        s.value[0] = s.cost_s[last]
                        limit = s.value[0] * (1.0 - tolerance)
            s.cursor[PLACE] = 0
            s.cursor[LIST] += 1
        s.cursor[LIST] = 0
        s.cursor[LAYER] += 1
    return True
