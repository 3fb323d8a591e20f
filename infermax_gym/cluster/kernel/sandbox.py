"""A copy of what is alive in a replica, in a small engine of its own, to be run ahead with estimated lengths.

The copy takes along waiting and running requests and those that were sent there since, but nobody who is done: it costs
what is there now, not what ever was. It goes on exactly as the replica would if outputs were as long as estimated, and
without a prefix cache: nothing is found, and shared blocks come back with each of their holders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from infermax_gym.cluster.kernel.memory import beyond_of, cores_of, kind_of, predictions_of, sandboxes_of
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.fair import link_arrival
from infermax_gym.engine.kernel.group import FAR, blocks_held, emitted, resident
from infermax_gym.engine.kernel.memory import (
    histogram_of,
    holds_of,
    outputs_of,
    phases_of,
    pointer,
    preempted_of,
    queue_tree,
    requests,
    running,
    sort_ids,
    tenants_of,
)
from infermax_gym.engine.kernel.queue import push, reset
from infermax_gym.engine.layout import CORE, FUTURE, NUM_OUTPUT_BINS, NUM_SCALARS, WAITING
from infermax_gym.engine.policy import QueueOrder

_CORE_BYTES = CORE.itemsize


@inlined
def _copy_scalars(f: Any, i: int, kind: int) -> None:
    source = carray(pointer(f.cores_address + i * _CORE_BYTES), (NUM_SCALARS,), np.int64)
    target = carray(pointer(f.sandboxes_address + kind * _CORE_BYTES), (NUM_SCALARS,), np.int64)
    for k in range(NUM_SCALARS):
        target[k] = source[k]


@compiled
def _sum_beyond(f: Any, s: Any) -> None:
    """From each bin on, how many outputs have finished at s, and twice the sum of their lengths."""
    beyond = beyond_of(f)
    outputs = outputs_of(s)
    beyond[0, NUM_OUTPUT_BINS] = 0
    beyond[1, NUM_OUTPUT_BINS] = 0
    for k in range(NUM_OUTPUT_BINS - 1, -1, -1):
        beyond[0, k] = beyond[0, k + 1] + outputs[k]
        beyond[1, k] = beyond[1, k + 1] + outputs[k] * ((2 * k + 1) * s.output_bin + 1)


@inlined
def _estimate(f: Any, s: Any, q: Any, generated: int) -> Any:
    """Output tokens that q is taken to have: predicted, or the mean of the finished ones that are longer than it is."""
    beyond = beyond_of(f)
    tokens = f.first_guess_tokens
    if f.uses_predictions and q.prediction > 0.0:
        tokens = int(np.ceil(q.prediction))
    else:
        k = min(generated // s.output_bin, NUM_OUTPUT_BINS - 1)
        if beyond[0, k] > 0:
            tokens = -(-beyond[1, k] // (2 * beyond[0, k]))
    most = min(s.num_blocks * s.block_size + 1, s.longest_allowed) - q.prompt
    return max(min(tokens, most), generated + 1)


@inlined
def _take(f: Any, s: Any, t: Any, r: int) -> None:
    """Request r of s becomes the next one of t, its record absolute; its number there is its place in s."""
    k = t.num_requests
    t.num_requests = k + 1
    copies = requests(t)
    copies[k] = requests(s)[r]
    q = copies[k]
    if q.grouped:
        q.computed = resident(s, copies[k])
        generated = emitted(s, copies[k])
        q.held = blocks_held(s, requests(s)[r])
        q.generated = generated
        if not q.fresh:
            q.last_token_s = s.group_last_s
    q.grouped = 0
    q.phased = 0
    q.fresh = 0
    q.batch_slot = -1
    q.number = r
    if s.queue_order == QueueOrder.FIFO and q.key >= 0.0:  # its place; who was put in front has a negative one
        q.key = float(k)
    q.output = _estimate(f, s, q, q.generated)


@compiled
def _take_joined(f: Any, s: Any, t: Any) -> None:
    """Waiting and running requests of s, in the order in which they came."""
    tree = queue_tree(s)
    ids = sort_ids(t)
    run = running(s)
    for position in range(s.num_running):
        r = run[position]
        at = position
        while at > 0 and ids[at - 1] > r:
            ids[at] = ids[at - 1]
            at -= 1
        ids[at] = r
    taken = 0
    inner = tree.size // 2
    stack = np.empty(64, np.int64)
    stack[0] = 1
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        if tree[node] < 0:
            continue
        if node < inner:
            stack[depth] = 2 * node + 1
            stack[depth + 1] = 2 * node
            depth += 2
            continue
        r = node - inner
        while taken < s.num_running and ids[taken] < r:
            _take(f, s, t, ids[taken])
            taken += 1
        _take(f, s, t, r)
    while taken < s.num_running:
        _take(f, s, t, ids[taken])
        taken += 1


@inlined
def _find(t: Any, r: int) -> Any:
    """Where request r of the replica stands in its copy."""
    req = requests(t)
    low = 0
    high = t.next_arrival - 1
    while low < high:
        middle = (low + high) // 2
        if req[middle].number < r:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _line_up(s: Any, t: Any) -> None:
    """The running list, the queue and the tenants of the copy."""
    req = requests(t)
    source, target = running(s), running(t)
    for position in range(s.num_running):
        target[position] = _find(t, source[position])
    leaves = 1
    while leaves < t.num_requests + (s.num_requests - s.next_arrival) + 1:  # those to join, and the next request
        leaves *= 2
    t.num_leaves = leaves
    if t.queue_order == QueueOrder.FAIR:
        theirs, mine = tenants_of(s), tenants_of(t)
        for u in range(theirs.size):
            mine[u] = theirs[u]
            mine[u].last = -1
    reset(t)
    t.num_waiting = 0
    t.waiting_tokens = 0
    for k in range(t.next_arrival):
        if t.queue_order == QueueOrder.FAIR:
            link_arrival(t, k)
        if req[k].place == WAITING:
            push(t, k)


@inlined
def _withheld_blocks(s: Any) -> Any:
    """Blocks of finished requests that a replica with a prefix cache keeps until nothing runs."""
    holds = holds_of(s)
    req = requests(s)
    blocks = 0
    r = s.first_withheld
    while r >= 0:
        blocks += req[r].held
        r = holds[r].next
    return blocks


@compiled
def copy_alive(f: Any, i: int, arrival: Any) -> Any:
    """Copy replica i, with the next request sent there; returns its place in the copy, the record of i's kind."""
    kind = kind_of(f)[i]
    s = cores_of(f)[i]
    t = sandboxes_of(f)[kind]
    _copy_scalars(f, i, kind)
    if s.prefix_caching:
        t.withheld_blocks = _withheld_blocks(s)
    t.prefix_caching = 0
    t.num_requests = 0
    t.next_arrival = 0
    t.num_finished = 0
    t.num_rejected = 0
    t.num_moved = 0
    t.group_size = 0
    t.group_context = 0
    t.num_fresh = 0
    t.group_ends = FAR
    t.group_roomy_until = FAR
    t.num_gaps = 0
    phases_of(t)[:] = 0
    preempted_of(t)[0] = 0
    histogram_of(t)[:] = histogram_of(s)
    outputs_of(t)[:] = outputs_of(s)
    t.quantiles_stale = 1
    _sum_beyond(f, s)
    _take_joined(f, s, t)
    t.next_arrival = t.num_requests
    _line_up(s, t)
    for r in range(s.next_arrival, s.num_requests):
        _take(f, s, t, r)
    k = t.num_requests
    t.num_requests = k + 1
    req = requests(t)
    req[k] = arrival
    q = req[k]
    q.place = FUTURE
    if f.has_predictions:
        q.prediction = predictions_of(f)[kind, arrival.number]
        q.first_prediction = q.prediction
    q.output = _estimate(f, s, q, q.generated)
    return k
