"""The waiting queue: a tournament tree whose leaf i is request i, so any request joins or leaves in O(log n).

A request's key is `key + slope * x` with x the clock (or the present aging); the smallest wins, ties go to the earlier
arrival (the left child). With fixed keys (slope 0) a node stores its winner. With moving keys it also
stores the interval of x in which that winner stands, and a query recomputes only nodes whose interval is left:
a kinetic tournament. Where two keys are so near that rounding may decide, the interval is the present x alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.fair import fair_head, note_push, note_remove
from infermax_gym.engine.kernel.keys import set_queue_key
from infermax_gym.engine.kernel.memory import queue_tree, requests, tenants_of, validity
from infermax_gym.engine.layout import WAITING
from infermax_gym.engine.policy import QueueOrder

_NEAR = 1e-12
"""Keys nearer than this share of their terms may be put in either order by rounding."""


@inlined
def key_position(s: Any) -> Any:
    """The x at which moving keys stand now: when the decision is made, or the aging that the load calls for."""
    if s.queue_order == QueueOrder.LOAD_ADAPTIVE:
        return s.load_aging * s.num_waiting
    return s.seen_until_s if s.asynchronous else s.clock_s  # decided ahead, when the iteration under way began


@inlined
def _better(s: Any, a: int, b: int, x: float) -> Any:
    """The winner of two requests at x; -1 stands for nobody; a is the earlier one."""
    req = requests(s)
    if a < 0:
        return b
    if b < 0:
        return a
    key_a = req[a].key + req[a].slope * x
    key_b = req[b].key + req[b].slope * x
    return a if key_a <= key_b else b


@compiled
def _set_node(s: Any, node: int, x: float) -> None:
    """Recompute an inner node, with its validity, from its children."""
    req = requests(s)
    tree = queue_tree(s)
    valid = validity(s)
    a = tree[2 * node]
    b = tree[2 * node + 1]
    winner = _better(s, a, b, x)
    tree[node] = winner
    low = max(valid[0, 2 * node], valid[0, 2 * node + 1])
    high = min(valid[1, 2 * node], valid[1, 2 * node + 1])
    if a >= 0 and b >= 0:
        ahead = req[b].key - req[a].key
        steeper = req[a].slope - req[b].slope
        keys = abs(req[a].key) + abs(req[b].key)
        slopes = abs(req[a].slope) + abs(req[b].slope)
        if abs(ahead - steeper * x) <= _NEAR * (keys + slopes * abs(x)):
            if ahead != 0.0 or steeper != 0.0:
                low = max(low, x)
                high = min(high, x)
        elif steeper != 0.0:
            crossing = ahead / steeper
            doubt = _NEAR * (keys + slopes * abs(crossing)) / abs(steeper)
            if crossing > x:
                high = min(high, max(crossing - doubt, x))
            else:
                low = max(low, min(crossing + doubt, x))
    valid[0, node] = low
    valid[1, node] = high


@compiled
def _climb_kinetic(s: Any, leaf: int, x: float) -> None:
    valid = validity(s)
    valid[0, leaf] = -np.inf
    valid[1, leaf] = np.inf
    node = leaf >> 1
    while node >= 1:
        _set_node(s, node, x)
        node >>= 1


@compiled
def push(s: Any, r: int) -> None:
    """Put request r, whose key is set, into the queue."""
    req = requests(s)
    tree = queue_tree(s)
    s.num_waiting += 1
    s.waiting_tokens += req[r].prompt + req[r].generated
    if s.queue_order == QueueOrder.FAIR:
        note_push(s, r)
    leaf = tree.size // 2 + r
    tree[leaf] = r
    if s.kinetic:
        _climb_kinetic(s, leaf, key_position(s))
        return
    node = leaf >> 1
    while node >= 1:
        current = tree[node]
        if current >= 0:
            key = req[r].key
            other = req[current].key
            if other < key or (other == key and current < r):
                return
        tree[node] = r
        node >>= 1


@compiled
def remove(s: Any, r: int) -> None:
    """Take request r out of the queue."""
    req = requests(s)
    tree = queue_tree(s)
    s.num_waiting -= 1
    s.waiting_tokens -= req[r].prompt + req[r].generated
    if s.queue_order == QueueOrder.FAIR:
        note_remove(s, r)
    leaf = tree.size // 2 + r
    tree[leaf] = -1
    if s.kinetic:
        _climb_kinetic(s, leaf, key_position(s))
        return
    node = leaf >> 1
    while node >= 1 and tree[node] == r:
        tree[node] = _better(s, tree[2 * node], tree[2 * node + 1], 0.0)
        node >>= 1


@compiled
def _refresh(s: Any, x: float) -> None:
    """Recompute the nodes whose interval does not hold x, children before parents."""
    tree = queue_tree(s)
    valid = validity(s)
    stack = np.empty(64, np.int64)
    stack[0] = 1
    depth = 1
    inner = tree.size // 2
    while depth > 0:
        node = stack[depth - 1]
        child = 0
        for candidate in (2 * node, 2 * node + 1):
            stale = valid[0, candidate] > x or valid[1, candidate] < x
            if candidate < inner and stale and child == 0:
                child = candidate
        if child:
            stack[depth] = child
            depth += 1
        else:
            _set_node(s, node, x)
            depth -= 1


@inlined
def head(s: Any) -> Any:
    """The request with the smallest key now, or -1."""
    if s.queue_order == QueueOrder.FAIR:
        return fair_head(s)
    tree = queue_tree(s)
    valid = validity(s)
    x = key_position(s)
    if s.kinetic and (valid[0, 1] > x or valid[1, 1] < x):
        _refresh(s, x)
    return tree[1]


@compiled
def oldest(s: Any) -> Any:
    """The earliest arrival in the queue, or -1."""
    tree = queue_tree(s)
    if tree[1] < 0:
        return -1
    node = 1
    inner = tree.size // 2
    while node < inner:
        node = 2 * node if tree[2 * node] >= 0 else 2 * node + 1
    return tree[node]


@compiled
def reset(s: Any) -> None:
    """Empty the queue and make every node valid everywhere."""
    tree = queue_tree(s)
    valid = validity(s)
    tree[:] = -1
    tenants = tenants_of(s)
    for u in range(tenants.size):
        tenants[u].first = -1
        tenants[u].num_waiting = 0
    if s.kinetic:
        valid[0, :] = -np.inf
        valid[1, :] = np.inf


@compiled
def rekey(s: Any) -> None:
    """Give every waiting request its key anew, after the weights or what they weigh have changed."""
    req = requests(s)
    reset(s)
    s.num_waiting = 0
    s.waiting_tokens = 0
    for r in range(s.next_arrival):
        if req[r].place == WAITING:
            set_queue_key(s, r)
            push(s, r)
