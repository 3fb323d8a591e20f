"""Beam search over states, compiled: a good schedule for a small instance in a moment.

It expands iteration by iteration and keeps the states with the smallest bounds. It proves nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.search.expand import BOUND, CLOCK, COST, Floats, Ints, expand
from infermax_gym.compile import compiled


class Layers(NamedTuple):
    """States kept, iteration after iteration.

    Attributes:
        key, clock, cost: (capacity,) state, seconds, seconds of objective so far.
        parent: (capacity,) where it came from, -1 at the root.
        count: (2,) states kept so far, and the one before the end of the best schedule (-1: none found).
        value: (1,) objective of the best schedule, seconds.
    """

    key: Ints
    clock: Floats
    cost: Floats
    parent: NDArray[np.int32]
    count: Ints  # type: ignore[assignment]
    value: Floats


@compiled
def _keep_best(layers: Any, width: int, found: int, key: Ints, seconds: Floats, parent: Ints) -> None:
    """Append the `width` best of the found states to the layers, each state once."""
    order = np.argsort(seconds[:found, BOUND])
    first = layers.count[0]
    seen = set()
    for j in range(found):
        k = order[j]
        at = layers.count[0]
        if at - first >= width or at >= layers.key.size:
            return
        if key[k] in seen:
            continue
        seen.add(key[k])
        layers.key[at] = key[k]
        layers.clock[at] = seconds[k, CLOCK]
        layers.cost[at] = seconds[k, COST]
        layers.parent[at] = parent[k]
        layers.count[0] = at + 1


@compiled
def beam(
    ints: Ints, floats: Floats, work: Ints, work_s: Floats, theta: Floats, term_end: Ints, child: Ints,
    child_s: Floats, layers: Any, final_key: int, width: int, tolerance: float,
) -> None:  # fmt: skip
    """Run to the end of every kept schedule; `layers` holds the root already.

    Args:
        ints, floats, work, work_s, theta, term_end, child, child_s: the problem, see `expand`.
        layers: where kept states go (`Layers`).
        final_key: the state in which everything is finished.
        width: states kept per iteration.
        tolerance: relative gain below which a better schedule does not count.
    """
    room = 4 * width + child.shape[0]
    key = np.empty(room, np.int64)
    seconds = np.empty((room, 3))
    parent = np.empty(room, np.int64)
    begin = 0
    while begin < layers.count[0]:
        end = layers.count[0]
        found = 0
        for label in range(begin, end):
            some = expand(
                ints, floats, work, work_s, theta, term_end, child, child_s, layers.key[label], layers.clock[label],
                layers.cost[label], layers.value[0] * (1.0 - tolerance),
            )  # fmt: skip
            some = min(some, child.shape[0])
            if found + some > room:
                best = np.argsort(seconds[:found, BOUND])[: 3 * width]
                found = best.size
                key[:found] = key[best]
                seconds[:found] = seconds[best]
                parent[:found] = parent[best]
            for c in range(some):
                if child[c, 0] != final_key:
                    key[found] = child[c, 0]
                    seconds[found] = child_s[c]
                    parent[found] = label
                    found += 1
                elif child_s[c, COST] < layers.value[0]:
                    layers.value[0] = child_s[c, COST]
                    layers.count[1] = label
        begin = end
        _keep_best(layers, width, found, key, seconds, parent)


def new_layers(capacity: int, incumbent: float) -> Layers:
    """Layers that hold the root only."""
    layers = Layers(
        np.zeros(capacity, np.int64),
        np.zeros(capacity),
        np.zeros(capacity),
        np.full(capacity, -1, np.int32),
        np.array([1, -1], np.int64),
        np.array([incumbent]),
    )
    return layers
