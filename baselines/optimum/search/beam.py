"""Beam search over states, compiled: a good schedule for a small instance in a moment.

It expands iteration by iteration and keeps the states with the smallest bounds. It proves nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.baselines.optimum.search.expand import expand
from infermax_gym.baselines.optimum.search.layout import Floats, Ints, Scratch, Successors, Tables
from infermax_gym.compile import compiled, inlined

# Entries of `Layers.counter`.
NUM_KEPT = 0
BEFORE_END = 1  # the state before the end of the best schedule, -1: none found


class Layers(NamedTuple):
    """States kept, iteration after iteration.

    Attributes:
        key, clock, cost: (capacity,) state, seconds, seconds of objective so far.
        parent: (capacity,) where it came from, -1 at the root.
        counter: (2,) see above.
        best_s: (1,) objective of the best schedule, seconds.
    """

    key: Ints
    clock: Floats
    cost: Floats
    parent: NDArray[np.int32]
    counter: Ints
    best_s: Floats


class _Found(NamedTuple):
    """States found in one iteration, before the best of them are kept: as in `Layers`, with their bounds."""

    key: Ints
    clock: Floats
    cost: Floats
    bound: Floats
    parent: Ints


@inlined
def _keep_best(layers: Layers, width: int, num_found: int, found: _Found) -> None:
    """Append the `width` best of the found states to the layers, each state once."""
    order = np.argsort(found.bound[:num_found])
    first = layers.counter[NUM_KEPT]
    seen = set()
    for j in range(num_found):
        k = order[j]
        at = layers.counter[NUM_KEPT]
        if at - first >= width or at >= layers.key.size:
            return
        if found.key[k] in seen:
            continue
        seen.add(found.key[k])
        layers.key[at] = found.key[k]
        layers.clock[at] = found.clock[k]
        layers.cost[at] = found.cost[k]
        layers.parent[at] = found.parent[k]
        layers.counter[NUM_KEPT] = at + 1


@inlined
def _drop_worst(found: _Found, num_found: int, num_kept: int) -> int:
    """Keep the best of the found states only, in order; returns how many are left."""
    best = np.argsort(found.bound[:num_found])[:num_kept]
    found.key[: best.size] = found.key[best]
    found.clock[: best.size] = found.clock[best]
    found.cost[: best.size] = found.cost[best]
    found.bound[: best.size] = found.bound[best]
    found.parent[: best.size] = found.parent[best]
    return best.size


@compiled
def beam(t: Tables, w: Scratch, out: Successors, layers: Layers, final_key: int, width: int, tolerance: float) -> None:
    """Run to the end of every kept schedule; `layers` holds the root already.

    Args:
        t: the problem.
        w: scratch.
        out: room for successors.
        layers: where kept states go.
        final_key: the state in which everything is finished.
        width: states kept per iteration.
        tolerance: relative gain below which a better schedule does not count.
    """
    t, w, out, layers = borrowed(t), borrowed(w), borrowed(out), borrowed(layers)
    room = 4 * width + out.key.size
    found = _Found(np.empty(room, np.int64), np.empty(room), np.empty(room), np.empty(room), np.empty(room, np.int64))
    begin = 0
    while begin < layers.counter[NUM_KEPT]:
        end = layers.counter[NUM_KEPT]
        num_found = 0
        for label in range(begin, end):
            limit = layers.best_s[0] * (1.0 - tolerance)
            some = expand(t, w, out, layers.key[label], layers.clock[label], layers.cost[label], limit)
            some = min(some, out.key.size)
            if num_found + some > room:
                num_found = _drop_worst(found, num_found, 3 * width)
            for c in range(some):
                if out.key[c] != final_key:
                    found.key[num_found] = out.key[c]
                    found.clock[num_found] = out.clock_s[c]
                    found.cost[num_found] = out.cost_s[c]
                    found.bound[num_found] = out.bound_s[c]
                    found.parent[num_found] = label
                    num_found += 1
                elif out.cost_s[c] < layers.best_s[0]:
                    layers.best_s[0] = out.cost_s[c]
                    layers.counter[BEFORE_END] = label
        begin = end
        _keep_best(layers, width, num_found, found)


def new_layers(capacity: int, incumbent: float) -> Layers:
    """Layers that hold the root only.

    Args:
        capacity: most states.
        incumbent: objective of a known schedule, seconds.
    """
    return Layers(
        key=np.zeros(capacity, np.int64),
        clock=np.zeros(capacity),
        cost=np.zeros(capacity),
        parent=np.full(capacity, -1, np.int32),
        counter=np.array([1, -1], np.int64),
        best_s=np.array([incumbent]),
    )
