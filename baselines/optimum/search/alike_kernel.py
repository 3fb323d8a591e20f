"""The layered search over identical requests, compiled.

`alike.py` says what it does, `alike_lists.py` what a state is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.baselines.optimum.borrow import borrowed
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
    Lists,
    Sizes,
)
from infermax_gym.baselines.optimum.search.floor import state_bound
from infermax_gym.baselines.optimum.search.layout import (
    ANY_BATCH,
    WITH_DECODES,
    WITH_PREFILLS,
    Ints,
    Scratch,
    Tables,
)
from infermax_gym.compile import compiled, inlined

# Lines of the scratch of one expansion, by level: distinct numbers of tokens generated among those without KV.
LEVEL = 0
WAITS = 1
FALLS = 2  # dropped in this iteration
TAKES = 3  # prefilled in this iteration
USED = 4  # blocks up to this level
SEQS = 5  # sequences up to this level
NUM_LINES = 6


@inlined
def bound_of(s: Alike, t: Tables, w: Scratch, list_number: int, other: int, cost: float, enough: float) -> Any:
    """Lower bound on the objective of every completion of a state that is reached at `cost`."""
    n = t.num_requests
    held = s.lists.held_length[list_number]
    w.load_sums[n, :] = 0
    for k in range(n):
        if k < held:
            code = s.resident_code[s.lists.held[list_number, k]]
        else:
            code = s.waiting_code[s.lists.others[other, k - held]]
        w.after[k] = code
        for f in range(t.load_cap.size):  # requests are identical: the loads of the first one's codes are everybody's
            w.load_sums[n, f] += t.load[code, f]
    clock = t.arrival_s[0] if t.latency else cost
    return state_bound(t, w, w.after, clock, cost, enough)


@inlined
def _levels(s: Sizes, scratch: Any, what: Any, other: Any, length: int) -> Any:
    """Merge the others with those dropped into LEVEL, WAITS and FALLS; returns how many levels and finished ones."""
    i, j, count = 0, 0, 0
    drops = what[DROPS]
    while True:
        a = other[i] if i < length else s.num_outputs
        b = what[HEAD + s.num_requests + j] if j < drops else s.num_outputs
        g = min(a, b)
        if g == s.num_outputs:
            return count, length - i + what[FINISHED]
        waits, falls = 0, 0
        while i < length and other[i] == g:
            waits += 1
            i += 1
        while j < drops and what[HEAD + s.num_requests + j] == g:
            falls += 1
            j += 1
        scratch[LEVEL, count] = g
        scratch[WAITS, count] = waits
        scratch[FALLS, count] = falls
        count += 1


@inlined
def _batch_s(s: Sizes, scratch: Any, decodes: int, levels: int, spare: int, spare_seq: bool) -> Any:
    """Seconds of the chosen prefills and the constants of their batch, negative if it is not worth looking at."""
    total_s, extra_s = 0.0, 0.0
    prefills, restarts = 0, 0
    for k in range(levels):
        takes = scratch[TAKES, k]
        again = max(takes - scratch[WAITS, k], 0)
        g = scratch[LEVEL, k]
        if spare_seq and scratch[FALLS, k] > again and s.held_blocks[g] <= spare:
            return -1.0  # KV is dropped only where keeping it would not fit
        prefills += takes
        restarts += again
        total_s += takes * s.prefill_s[g]
        extra_s += again * (s.prefill_s[g] - s.decode_s[g])
    if prefills + decodes == 0:
        return -1.0
    with_decodes, with_prefills = s.constants_s[WITH_DECODES], s.constants_s[WITH_PREFILLS]
    if restarts > 0 and extra_s >= with_decodes - (0.0 if prefills > restarts else with_prefills):
        return -1.0  # decoding them instead is no worse
    return total_s + s.constants_s[ANY_BATCH] + (with_prefills if prefills > 0 else 0.0)


@inlined
def _after(lists: Lists, num_outputs: int, scratch: Any, what: Any, kept: int, levels: int, finished: int) -> Any:
    """Number of the state after the batch with the chosen prefills."""
    rank, count, i = 0, 0, 0
    for k in range(levels):
        takes = scratch[TAKES, k]
        if takes == 0:
            continue
        g = scratch[LEVEL, k] + 1
        if g == num_outputs:
            finished += takes
            continue
        while i < kept and what[HEAD + i] <= g:
            rank += lists.binomial[count + 1, what[HEAD + i] - 1 + count]
            count += 1
            i += 1
        for _ in range(takes):
            rank += lists.binomial[count + 1, g - 1 + count]
            count += 1
    while i < kept:
        rank += lists.binomial[count + 1, what[HEAD + i] - 1 + count]
        count += 1
        i += 1
    state = lists.start[lists.rank_at[count] + rank]
    count = 0
    for k in range(levels):
        g = scratch[LEVEL, k]
        for _ in range(scratch[WAITS, k] + scratch[FALLS, k] - scratch[TAKES, k]):
            state += lists.binomial[count + 1, g + count]
            count += 1
    for _ in range(finished):
        state += lists.binomial[count + 1, num_outputs + count]
        count += 1
    return state


@inlined
def _expand(
    s: Alike, scratch: Ints, outcome_from: int, outcome_to: int, other: Any, length: int, source: int, limit: float
) -> Any:
    """Reach every state that one iteration leads to; returns how many of them are new.

    Args:
        s: the search.
        scratch: (NUM_LINES, n + 2).
        outcome_from: first outcome of the state's residents.
        outcome_to: one past the last of them.
        other: the list of its others, and its length.
        length: see `other`.
        source: the state.
        limit: seconds; states that cost no less are not worth reaching.
    """
    sizes, outcomes = s.sizes, s.outcomes
    cost_s, parent = s.progress.cost_s, s.progress.parent
    left = sizes.num_requests
    waiting = 0  # blocks that everybody without KV would take
    for i in range(length):
        left -= other[i] == sizes.num_outputs
        if other[i] < sizes.num_outputs:
            waiting += sizes.pass_blocks[other[i]]
    weight = left if sizes.latency else 1
    cost = cost_s[source]
    reached = 0
    for o in range(outcome_from, outcome_to):
        what = outcomes.what[o]
        decodes, idles = what[DECODES], what[IDLES]
        gap = outcomes.gap[o] if decodes > 0 else 0
        if gap > waiting:
            continue
        levels, finished = _levels(sizes, scratch, what, other, length)
        # Nobody idles beside both a decode and a prefill, see `alike.py`.
        mixes = decodes == 0 or idles == 0
        scratch[USED, 0] = outcomes.blocks[o]
        scratch[SEQS, 0] = decodes + idles
        scratch[TAKES, 0] = -1
        depth = 0
        while depth >= 0:
            if depth < levels:
                takes = scratch[TAKES, depth] + 1
                scratch[TAKES, depth] = takes
                most = scratch[WAITS, depth] + (scratch[FALLS, depth] if decodes == 0 else 0)
                used = scratch[USED, depth] + takes * sizes.pass_blocks[scratch[LEVEL, depth]]
                seqs = scratch[SEQS, depth] + takes
                if takes > (most if mixes else 0) or used > sizes.num_blocks or seqs > sizes.max_num_seqs:
                    depth -= 1
                    continue
                depth += 1
                scratch[USED, depth] = used
                scratch[SEQS, depth] = seqs
                scratch[TAKES, depth] = -1
                continue
            used = scratch[USED, depth]
            spare_seq = scratch[SEQS, depth] < sizes.max_num_seqs
            depth -= 1
            if used - outcomes.blocks[o] < gap:
                continue
            batch_s = _batch_s(sizes, scratch, decodes, levels, sizes.num_blocks - used, spare_seq)
            new = cost + weight * (batch_s + outcomes.seconds[o])
            if batch_s < 0.0 or new >= limit:
                continue
            kept = decodes + idles - what[FINISHED]
            state = _after(s.lists, sizes.num_outputs, scratch, what, kept, levels, finished)
            if new < cost_s[state]:
                reached += cost_s[state] == np.inf
                cost_s[state] = new
                parent[state] = source
    return reached


@compiled
def advance(s: Alike, t: Tables, w: Scratch, scratch: Ints, num: int, tolerance: float) -> Any:
    """Expand up to `num` more states, layer after layer; whether all are done."""
    s, t, w = borrowed(s), borrowed(t), borrowed(w)
    n, num_outputs = s.sizes.num_requests, s.sizes.num_outputs
    lists, progress = s.lists, s.progress
    cursor, incumbent_s, layer_s = progress.cursor, progress.incumbent_s, progress.layer_s
    scratch = borrowed(scratch)
    limit = incumbent_s[0] * (1.0 - tolerance)
    last = progress.cost_s.size - 1  # nobody resident comes last, and all finished last of them
    stop = cursor[NUM_EXPANDED] + num
    while cursor[LAYER] < n * num_outputs:
        while cursor[LIST] < lists.held_length.size:
            list_number = cursor[LIST]
            length = n - lists.held_length[list_number]
            rest = cursor[LAYER] - lists.held_sum[list_number]
            if 0 <= rest <= length * num_outputs:
                first = lists.others_at[length]
                begin, end = lists.sum_at[length, rest], lists.sum_at[length, rest + 1]
                outcome_from, outcome_to = s.outcome_at[list_number], s.outcome_at[list_number + 1]
                for k in range(begin + cursor[PLACE], end):
                    if cursor[NUM_EXPANDED] >= stop:
                        cursor[PLACE] = k - begin
                        return False
                    rank = lists.by_sum[first + k]
                    state = lists.held_state[list_number] + rank
                    cost = progress.cost_s[state]
                    if cost >= limit:
                        continue
                    bound = bound_of(s, t, w, list_number, first + rank, cost, limit)
                    layer_s[cursor[LAYER]] = min(layer_s[cursor[LAYER]], bound)
                    if bound >= limit:
                        continue
                    cursor[NUM_REACHED] += _expand(
                        s, scratch, outcome_from, outcome_to, lists.others[first + rank], length, state, limit
                    )
                    cursor[NUM_EXPANDED] += 1
                    if progress.cost_s[last] < incumbent_s[0]:
                        incumbent_s[0] = progress.cost_s[last]
                        limit = incumbent_s[0] * (1.0 - tolerance)
            cursor[PLACE] = 0
            cursor[LIST] += 1
        cursor[LIST] = 0
        cursor[LAYER] += 1
    return True
