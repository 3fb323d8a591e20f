"""Tables of the layered search over identical requests: lists by rank, and what the residents of a list can do.

A state is two sorted lists of output tokens generated: one of the requests that hold KV (numbers 1 to O - 1), one of
the others (0 to O; O is finished). Sorted lists of k numbers are numbered by the combinatorial number system,

    rank = sum over j of binomial(number_j + j, j + 1)

and the number of a state is `start[rank of the first list]` + rank of the second one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.baselines.optimum.search.layout import WITH_DECODES, Floats, Ints
from infermax_gym.compile import compiled, inlined

Bytes = NDArray[np.int8]

# Columns of an outcome, followed by the lists (n columns each) of residents kept and of those dropped. The first three
# count the residents that do each, and number what a resident can do.
DECODES = 0
IDLES = 1
DROPS = 2
FINISHED = 3
HEAD = 4

# Entries of `Alike.cursor`: where the search stands.
LAYER = 0
LIST = 1  # number of the list of residents
PLACE = 2  # among the lists of others that belong to the layer
NUM_EXPANDED = 3
NUM_REACHED = 4
NUM_CURSORS = 5


class Sizes(NamedTuple):
    """The identical requests and the engine.

    Attributes:
        num_requests, num_outputs: n requests of O output tokens.
        num_blocks, max_num_seqs: of the engine.
        droppable: KV may be dropped.
        latency: the objective is the sum of finish times instead of the last one.
        pass_blocks, held_blocks: (O,) blocks during the pass that emits token g, and between passes with g emitted.
        prefill_s, decode_s: (O,) seconds of emitting token g, without batch constants.
        constants_s: (3,) seconds of a batch: ANY_BATCH, WITH_DECODES and WITH_PREFILLS.
    """

    num_requests: int
    num_outputs: int
    num_blocks: int
    max_num_seqs: int
    droppable: bool
    latency: bool
    pass_blocks: Ints
    held_blocks: Ints
    prefill_s: Floats
    decode_s: Floats
    constants_s: Floats


class Lists(NamedTuple):
    """Every list that a state can be made of.

    Attributes:
        binomial: (n + 1, O + n + 1) binomial coefficients: [b, a] is a over b.
        held: (lists, n) every list of residents that fits, the empty one last.
        held_length, held_sum: (lists,) their lengths and sums.
        held_state: (lists,) number of the first state of each.
        start: (ranks,) number of the first state by rank of the residents, -1 where they do not fit.
        rank_at: (n + 1,) where the ranks of each length begin in `start`.
        others: (all ranks, n) lists of others by rank, one length after another.
        others_at: (n + 1,) where each length begins in `others` and `by_sum`.
        by_sum: (all ranks,) ranks of each length in order of the lists' sums.
        sum_at: (n + 1, n * O + 2) where each sum begins in `by_sum`.
    """

    binomial: Ints
    held: Ints
    held_length: Ints
    held_sum: Ints
    held_state: Ints
    start: Ints
    rank_at: Ints
    others: Bytes
    others_at: Ints
    by_sum: NDArray[np.int32]
    sum_at: Ints


class Outcomes(NamedTuple):
    """What the residents of a list can do in one iteration.

    Attributes:
        what: (outcomes, HEAD + 2 n) see the columns above.
        blocks: (outcomes,) blocks they take in it.
        seconds: (outcomes,) of their decodes, with the constant of a batch that decodes.
        gap: (outcomes,) blocks that prefills must take at least for the drops to be worth while beside decodes.
    """

    what: Bytes
    blocks: Ints
    seconds: Floats
    gap: Ints


class Progress(NamedTuple):
    """Where the search stands.

    Attributes:
        cost_s: (states,) least objective so far at which a state is reached, seconds.
        parent: (states,) where from.
        layer_s: (n * O,) least bound of the states of each layer, seconds, infinite if they are no better than the
            incumbent.
        cursor: (NUM_CURSORS,) see above.
        incumbent_s: (1,)
    """

    cost_s: Floats
    parent: NDArray[np.int32]
    layer_s: Floats
    cursor: Ints
    incumbent_s: Floats


class Alike(NamedTuple):
    """The layered search.

    Attributes:
        sizes, lists, outcomes, progress: see there.
        outcome_at: (lists + 1,) first outcome of each list of residents.
        waiting_code, resident_code: (O + 1,) codes in `layout.Tables` of requests without and with KV.
    """

    sizes: Sizes
    lists: Lists
    outcomes: Outcomes
    progress: Progress
    outcome_at: Ints
    waiting_code: Ints
    resident_code: Ints


@compiled
def lists_by_rank(length: int, most: int, out: NDArray[np.int8]) -> None:
    """Fill out[rank] with the sorted lists of `length` numbers from 0 to `most`, in order of rank."""
    now = np.zeros(length + 1, np.int64)
    now[length] = most + 1
    for rank in range(out.shape[0]):
        for j in range(length):
            out[rank, j] = now[j]
        j = 0
        while j < length and now[j] == now[j + 1]:
            j += 1
        if j < length:
            now[j] += 1
            now[:j] = 0


@inlined
def _keep(kept: Any, count: int, number: int) -> None:
    """Insert into the sorted kept[HEAD : HEAD + count]."""
    j = HEAD + count
    while j > HEAD and kept[j - 1] > number:
        kept[j] = kept[j - 1]
        j -= 1
    kept[j] = number


@inlined
def _write(s: Sizes, residents: Ints, does: Ints, what: Any) -> Any:
    """Fill the columns of one outcome; returns the seconds of its decodes."""
    what[:] = 0
    kept = 0
    total_s = 0.0
    for k in range(residents.size):
        if does[k] == DECODES:
            total_s = s.constants_s[WITH_DECODES]
    for k in range(residents.size):
        g = residents[k]
        if does[k] == DROPS:
            what[HEAD + s.num_requests + what[DROPS]] = g
        elif does[k] == DECODES and g + 1 == s.num_outputs:
            what[FINISHED] += 1
        else:
            _keep(what, kept, g + 1 if does[k] == DECODES else g)
            kept += 1
        if does[k] == DECODES:
            total_s += s.decode_s[g]
        what[does[k]] += 1
    return total_s


@compiled
def list_outcomes(s: Sizes, residents: Ints, out: Outcomes, at: int) -> Any:
    """Append what a list of residents can do in one iteration: each DECODES, IDLES or DROPS its KV.

    With `max_num_seqs` enough for all, drops that nothing can make worth while are left out.

    Returns the number of outcomes; those beyond the end of `out` are counted and not written.
    """
    s, residents, out = borrowed(s), borrowed(residents), borrowed(out)
    count = residents.size
    does = np.full(count + 1, -1, np.int64)
    used = np.zeros(count + 1, np.int64)
    depth = 0
    while depth >= 0:
        if depth < count:
            does[depth] += 1
            if depth > 0 and residents[depth] == residents[depth - 1]:
                does[depth] = max(does[depth], does[depth - 1])
            if does[depth] > (DROPS if s.droppable else IDLES):
                depth -= 1
                continue
            g = residents[depth]
            need = 0
            if does[depth] == DECODES:
                need = s.pass_blocks[g]
            elif does[depth] == IDLES:
                need = s.held_blocks[g]
            used[depth + 1] = used[depth] + need
            if used[depth + 1] <= s.num_blocks:
                depth += 1
                does[depth] = -1
            continue
        depth -= 1
        least = s.num_blocks + 1  # blocks of the smallest one that is dropped
        decodes, idles = 0, 0
        for k in range(count):
            decodes += does[k] == DECODES
            idles += does[k] == IDLES
            if does[k] == DROPS:
                least = min(least, s.held_blocks[residents[k]])
        fill = s.num_blocks - used[count] - least + 1 if s.max_num_seqs >= s.num_requests else 0
        if fill > 0 and decodes > 0 and idles > 0:
            continue
        if at < out.blocks.size:
            out.seconds[at] = _write(s, residents, does, out.what[at])
            out.blocks[at], out.gap[at] = used[count], fill
        at += 1
    return at
