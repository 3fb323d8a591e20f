"""One step of the search: every iteration that can follow a state, with a lower bound on each successor.

A state is one code per request (`tables.py`). A successor picks one action per request: stay, decode, prefill,
drop. Compiled; the records are those of `layout.py`.

`expand` calls, from the outside in: `_starting_at`, which walks over all picks for one start time; `_pick`, which
adds one action to a batch or refuses it; `_admissible`, which judges a whole batch; `_emit`, which bounds what follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.baselines.optimum.search.floor import state_bound
from infermax_gym.baselines.optimum.search.layout import (
    BASE,
    BEFORE_GAPS,
    BLOCKS,
    CONTINUES,
    DECODE_CONTEXT,
    DECODES,
    FIRST,
    FULL_BATCHES,
    HELD,
    LOCKS,
    NUM_SUMMED,
    PARKS,
    PARTIALS,
    PAUSES,
    PREFILL_CONTEXT,
    PREFILLS,
    RESTARTS,
    SEQS,
    TO_CODE,
    TOKENS,
    TWIN,
    UNFINISHED,
    WITH_DECODES,
    WITH_PREFILLS,
    WORK,
    Ints,
    Scratch,
    Successors,
    Tables,
)
from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds

# Modes of a pass over the batches.
ANY = 0
NO_RESTART = 1
NO_DECODE = 2  # with restarts and, where that is needed for a gain, another prefill


@inlined
def decode_key(t: Tables, key: int, codes: Ints) -> None:
    """Fill the codes of the state with this key."""
    mask = key & ((1 << t.mask_bits) - 1)
    rest = key >> t.mask_bits
    for i in range(t.num_requests - 1, -1, -1):
        base = rest // t.stride[i]
        rest -= base * t.stride[i]
        codes[i] = t.unbase[t.offset[i] + base] + ((mask >> i) & 1)


@inlined
def encode_sorted(t: Tables, codes: Ints) -> Any:
    """Key of a state after sorting the codes of identical requests (in place)."""
    for i in range(t.num_requests):
        j = i
        while t.same[j] and codes[j] < codes[j - 1]:
            codes[j], codes[j - 1] = codes[j - 1], codes[j]
            j -= 1
    base = 0
    mask = 0
    for i in range(t.num_requests):
        c = t.offset[i] + codes[i]
        base += t.code[c, BASE] * t.stride[i]
        mask |= t.code[c, TWIN] << i
    return (base << t.mask_bits) | mask


@inlined
def _untwin(t: Tables, codes: Ints) -> None:
    """Lift the restrictions of twins: after a wait, nothing that happened before could happen later instead."""
    for i in range(t.num_requests):
        codes[i] -= t.code[t.offset[i] + codes[i], TWIN]


@inlined
def _next_arrival(t: Tables, clock: float) -> Any:
    """First arrival after `clock`, infinite if there is none."""
    for i in range(t.num_requests):
        if t.arrival_s[i] > clock:
            return t.arrival_s[i]
    return np.inf


@inlined
def num_unfinished(t: Tables, codes: Ints) -> Any:
    """Unfinished requests of a state."""
    left = 0
    for i in range(t.num_requests):
        left += t.code[t.offset[i] + codes[i], UNFINISHED]
    return left


@inlined
def _pays(t: Tables, w: Scratch) -> Any:
    """Whether restarting some requests is cheaper than decoding them all."""
    n = t.num_requests
    if w.sums[n, RESTARTS] == 0:
        return False
    extra = 0.0
    for i in range(n):
        extra += t.restart_s[w.chosen[i]]
    decode, prefill = t.per_batch_s[0, WITH_DECODES], t.per_batch_s[0, WITH_PREFILLS]
    saved = decode if w.sums[n, PREFILLS] > w.sums[n, RESTARTS] else decode - prefill
    return extra < saved


@inlined
def _admissible(t: Tables, w: Scratch, start: float, waited: bool, mode: int) -> Any:
    """Whether a batch within the caps is worth looking at; see `expand` for the rules."""
    n = t.num_requests
    if w.sums[n, TOKENS] == 0:
        return False
    free = t.num_blocks - w.sums[n, BLOCKS]
    spare_seq = w.sums[n, SEQS] < t.max_num_seqs
    newest = not waited
    for i in range(n):
        a = w.chosen[i]
        if 0 < t.action[a, HELD] <= free and spare_seq:
            return False
        newest = newest or (t.action[a, TOKENS] > 0 and t.arrival_s[i] == start)
    if not newest:
        return False
    if mode == NO_DECODE and not _pays(t, w):
        return False
    idle_budget = w.sums[n, TOKENS] < t.max_num_batched_tokens
    return not (t.chunk_rule == FULL_BATCHES and w.sums[n, CONTINUES] > 0 and idle_budget)


@inlined
def _emit(
    t: Tables, w: Scratch, out: Successors, clock: float, start: float, cost: float, limit: float, left: int, count: int
) -> Any:
    """Append the successor of the chosen actions unless its bound reaches `limit`; returns the new count."""
    n = t.num_requests
    end = start + batch_seconds(
        t.theta, t.term_end, t.floor_context, w.sums[n, TOKENS], w.sums[n, WORK], w.sums[n, PREFILLS],
        w.sums[n, PREFILL_CONTEXT], w.sums[n, DECODE_CONTEXT], w.sums[n, DECODES],
    )  # fmt: skip
    free = t.num_blocks - w.sums[n, BLOCKS] if w.sums[n, DECODES] > 0 else 0
    spare_seq = w.sums[n, SEQS] < t.max_num_seqs
    for i in range(n):
        a = w.chosen[i]
        locks = t.action[a, LOCKS]
        fits = t.action[a, TOKENS] > 0 or (spare_seq and locks <= free)
        locked = locks > 0 and w.sums[n, DECODES] > 0 and fits
        w.after[i] = t.action[a, TO_CODE] + locked
        if t.action[a, FIRST] == 1 and end - t.arrival_s[i] > t.ttft_limit_s[i]:
            return count
    if t.chunk_rule == BEFORE_GAPS and w.sums[n, PARTIALS] > 0:
        end = _next_arrival(t, end)
        if end == np.inf:
            return count
        _untwin(t, w.after)
    new_cost = cost + (end - clock) * left if t.latency else end
    bound = state_bound(t, w, w.after, end, new_cost, limit)
    if bound >= limit:
        return count
    if count < out.key.size:
        out.key[count] = encode_sorted(t, w.after)
        out.clock_s[count] = end
        out.cost_s[count] = new_cost
        out.bound_s[count] = bound
        for i in range(n):
            out.actions[count, i] = w.chosen[i]
    return count + 1


@inlined
def _pick(t: Tables, w: Scratch, i: int, a: int, start: float, mode: int) -> Any:
    """Try action `a` for request `i`: whether a batch with it is still possible; updates the totals."""
    if mode == NO_RESTART and t.action[a, RESTARTS] > 0:
        return False
    if mode == NO_DECODE and t.action[a, DECODES] > 0:
        return False
    if t.action[a, TOKENS] > 0 and t.arrival_s[i] > start:
        return False
    for k in range(NUM_SUMMED):
        w.sums[i + 1, k] = w.sums[i, k] + t.action[a, k]
    free = t.num_blocks - w.sums[i + 1, BLOCKS]
    free_seqs = t.max_num_seqs - w.sums[i + 1, SEQS]
    if w.sums[i + 1, TOKENS] > t.max_num_batched_tokens or free < 0 or free_seqs < 0:
        return False
    if w.sums[i + 1, PAUSES] > 0 < w.sums[i + 1, DECODES] or w.sums[i + 1, PARKS] > 0 < w.sums[i + 1, PREFILLS]:
        return False
    if 0 < t.action[a, HELD] <= free - w.most_blocks[i + 1] and w.most_seqs[i + 1] < free_seqs:
        return False
    after = t.offset[i] + t.action[a, TO_CODE]
    for f in range(t.load_cap.size):
        w.load_sums[i + 1, f] = w.load_sums[i, f] + t.load[after, f]
    return True


@inlined
def _starting_at(
    t: Tables, w: Scratch, out: Successors, clock: float, start: float, cost: float, limit: float, left: int, mode: int,
    count: int,
) -> Any:  # fmt: skip
    """Append the successors of `Scratch.codes` whose iteration begins at `start`; returns the new count.

    A walk in depth: request i is at `Scratch.chosen[i]` among its actions. Of identical requests in the same
    situation, the later one picks no earlier action.
    """
    w.sums[0, :] = 0
    w.load_sums[0, :] = 0
    i = 0
    w.chosen[0] = t.action_start[t.offset[0] + w.codes[0]] - 1
    while i >= 0:
        w.chosen[i] += 1
        a = w.chosen[i]
        code = t.offset[i] + w.codes[i]
        if a >= t.action_start[code + 1]:
            i -= 1
            continue
        if not _pick(t, w, i, a, start, mode):
            continue
        if i + 1 < t.num_requests:
            i += 1
            skipped = a - t.action_start[code]
            w.chosen[i] = t.action_start[t.offset[i] + w.codes[i]] - 1
            if t.same[i] and w.codes[i] == w.codes[i - 1]:
                w.chosen[i] += skipped
        elif _admissible(t, w, start, start > clock, mode):
            count = _emit(t, w, out, clock, start, cost, limit, left, count)
    return count


@inlined
def _set_most(t: Tables, w: Scratch) -> None:
    """Most blocks and sequences that the requests from i on can take."""
    n = t.num_requests
    w.most_blocks[n] = 0
    w.most_seqs[n] = 0
    for i in range(n - 1, -1, -1):
        code = t.offset[i] + w.codes[i]
        blocks = 0
        seqs = 0
        for a in range(t.action_start[code], t.action_start[code + 1]):
            blocks = max(blocks, t.action[a, BLOCKS])
            seqs = max(seqs, t.action[a, SEQS])
        w.most_blocks[i] = w.most_blocks[i + 1] + blocks
        w.most_seqs[i] = w.most_seqs[i + 1] + seqs


@compiled
def expand(t: Tables, w: Scratch, out: Successors, key: int, clock: float, cost: float, limit: float) -> Any:
    """List every successor of a state whose bound is below `limit`; returns how many there are.

    Without loss some successors are skipped. An iteration starts now or, after waiting, at the arrival of a
    request it serves. KV is dropped only when keeping it would not fit (the latest moment is the best one).

    Where the cost is linear (`Tables.lean`), a decode is replaced by a restart only if that rids the batch of all
    decodes and pays. Where, besides, no token budget binds, passes happen as late as they can between two waits, which
    only lowers the memory in between: a request that has decoded since its prefill idles only in batches without
    decodes, one that has not idles only in batches without prefills (where no request has its own arrival or
    limit), and a prefill is cut only right before a wait. Where a token budget binds and all arrive together,
    later chunks of a prefill only join full batches.

    Args:
        t: the problem.
        w: scratch.
        out: filled with the successors. If there are more than it has room for, the count says so and the rest is
            lost.
        key: the state.
        clock: seconds at which it is reached.
        cost: seconds of objective so far.
        limit: successors whose bound is not below are dropped, seconds.
    """
    t, w, out = borrowed(t), borrowed(w), borrowed(out)
    decode_key(t, key, w.codes)
    _set_most(t, w)
    left = num_unfinished(t, w.codes)
    count = 0
    for mode in range(ANY, NO_DECODE + 1):
        if (mode == ANY) == t.lean or (mode == NO_DECODE and t.backward):
            continue
        previous = clock
        for i in range(-1, t.num_requests):
            start = clock if i < 0 else t.arrival_s[i]
            if i >= 0 and start <= previous:
                continue
            count = _starting_at(t, w, out, clock, start, cost, limit, left, mode, count)
            previous = start
            if i < 0:
                _untwin(t, w.codes)
        decode_key(t, key, w.codes)
    return count


@compiled
def key_of(t: Tables, codes: Ints) -> Any:
    """`encode_sorted` for callers that are not compiled."""
    return encode_sorted(t, codes)


@compiled
def fill_codes(t: Tables, key: int, codes: Ints) -> None:
    """`decode_key` for callers that are not compiled."""
    decode_key(t, key, codes)
