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

from infermax_gym.baselines.optimum.search.floor import Floats, Ints
from infermax_gym.compile import compiled

# Columns of `Alike.outcome`, followed by the lists (n columns each) of residents kept and of those dropped.
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


class Alike(NamedTuple):
    """Tables and values of the layered search for n requests of O output tokens.

    Attributes:
        sizes: (2,) n and O.
        binomial: (n + 1, O + n + 1) binomial coefficients: [b, a] is a over b.
        held: (lists, 3 + n) every list of residents that fits: length, sum, number of its first state, the list.
        start: (ranks,) number of the first state by rank of the residents, -1 where they do not fit.
        rank_at: (n + 1,) where the ranks of each length begin in `start`.
        others: (all ranks, n) lists of others by rank, one length after another.
        others_at: (n + 1,) where each length begins in `others` and `by_sum`.
        by_sum: (all ranks,) ranks of each length in order of the lists' sums.
        sum_at: (n + 1, n * O + 2) where each sum begins in `by_sum`.
        outcome: (outcomes, HEAD + 2 n) what residents can do in one iteration.
        outcome_blocks: (outcomes,) blocks they take in it.
        outcome_s: (outcomes,) seconds of their decodes, with the constant of a batch that decodes.
        outcome_gap: (outcomes,) blocks that prefills must take at least for the drops to be worth while beside decodes.
        outcome_at: (lists + 1,) first outcome of each list of residents.
        pass_blocks, held_blocks: (O,) blocks during the pass that emits token g, and between passes with g emitted.
        pass_s: (2, O) seconds of emitting token g by a prefill and by a decode, without batch constants.
        constants_s: (3,) seconds of a batch: any, with decodes, with prefills.
        code: (2, O + 1) codes in `tables.Problem` of requests without and with KV.
        cost_s: (states,) least objective so far at which a state is reached, seconds.
        parent: (states,) where from.
        layer_s: (n * O,) least bound of the states of each layer, seconds, infinite if they are no better than the incumbent.
        cursor: (NUM_CURSORS,)
        value: (1,) incumbent, seconds.
    """

    sizes: Ints
    binomial: Ints
    held: Ints
    start: Ints
    rank_at: Ints
    others: NDArray[np.int8]
    others_at: Ints
    by_sum: NDArray[np.int32]
    sum_at: Ints
    outcome: NDArray[np.int8]
    outcome_blocks: Ints
    outcome_s: Floats
    outcome_gap: Ints
    outcome_at: Ints
    pass_blocks: Ints
    held_blocks: Ints
    pass_s: Floats
    constants_s: Floats
    code: Ints
    cost_s: Floats
    parent: NDArray[np.int32]
    layer_s: Floats
    cursor: Ints
    value: Floats


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


@compiled
def _keep(row: Any, at: int, count: int, number: int) -> None:
    """Insert into the sorted row[at:at + count]."""
    j = at + count
    while j > at and row[j - 1] > number:
        row[j] = row[j - 1]
        j -= 1
    row[j] = number


@compiled
def list_outcomes(
    residents: Ints, droppable: bool, seats: bool, num_blocks: int, pass_blocks: Ints, held_blocks: Ints,
    decode_s: Floats, constants_s: Floats, n: int, out: NDArray[np.int8], blocks: Ints, seconds: Floats, gap: Ints,
    at: int,
) -> Any:  # fmt: skip
    """Append what a list of residents can do in one iteration: each decodes (0), idles (1) or is dropped (2).

    With `seats` for all, drops that nothing can make worth while are left out.

    Returns the number of rows; those beyond the end of `out` are counted and not written.
    """
    count = residents.size
    outputs = pass_blocks.size
    does = np.full(count + 1, -1, np.int64)
    used = np.zeros(count + 1, np.int64)
    depth = 0
    while depth >= 0:
        if depth < count:
            does[depth] += 1
            if depth > 0 and residents[depth] == residents[depth - 1]:
                does[depth] = max(does[depth], does[depth - 1])
            if does[depth] > (2 if droppable else 1):
                depth -= 1
                continue
            g = residents[depth]
            need = pass_blocks[g] if does[depth] == 0 else held_blocks[g] if does[depth] == 1 else 0
            used[depth + 1] = used[depth] + need
            if used[depth + 1] <= num_blocks:
                depth += 1
                does[depth] = -1
            continue
        depth -= 1
        least = num_blocks + 1  # blocks of the smallest one that is dropped
        decodes, idles = 0, 0
        for k in range(count):
            decodes += does[k] == 0
            idles += does[k] == 1
            if does[k] == 2:
                least = min(least, held_blocks[residents[k]])
        fill = num_blocks - used[count] - least + 1 if seats else 0
        if fill > 0 and decodes > 0 and idles > 0:
            continue
        if at < out.shape[0]:
            row = out[at]
            row[:] = 0
            kept = 0
            total_s = constants_s[1] if decodes > 0 else 0.0
            for k in range(count):
                g = residents[k]
                if does[k] == 2:
                    row[HEAD + n + row[DROPS]] = g
                elif does[k] == 0 and g + 1 == outputs:
                    row[FINISHED] += 1
                else:
                    _keep(row, HEAD, kept, g + 1 - does[k])
                    kept += 1
                if does[k] == 0:
                    total_s += decode_s[g]
                row[does[k]] += 1
            blocks[at], seconds[at], gap[at] = used[count], total_s, fill
        at += 1
    return at
