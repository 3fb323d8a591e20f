"""The prefix cache: which blocks can be found again, who holds them, and which go next.

A node of the workload's prefix tree is a run of blocks with known contents; its first `present` blocks are in memory.
They lie in segments, runs of blocks that the same number of requests hold; a request points at the segment that
its last published block ends (its tip), and holds everything on the way up from there. What nobody holds stands in
one queue, longest unused first, blocks without contents among them; new blocks come from its front. A parent leaves
the queue after its children, so whatever is present is present from its root on.

Taking blocks only lowers `free_blocks`; `settle` carries it out at the front of the queue before anybody looks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.group import blocks_held
from infermax_gym.engine.kernel.memory import batch_of, holds_of, nodes_of, requests, segments_of
from infermax_gym.engine.layout import RUNNING


@inlined
def _enqueue_after(s: Any, i: int, older: int) -> None:
    """Put segment i into the queue behind segment `older` (-1: at the front)."""
    segments = segments_of(s)
    newer = s.oldest_segment if older < 0 else segments[older].newer
    segments[i].older = older
    segments[i].newer = newer
    if older < 0:
        s.oldest_segment = i
    else:
        segments[older].newer = i
    if newer < 0:
        s.newest_segment = i
    else:
        segments[newer].older = i
    s.queued_blocks += segments[i].size


@inlined
def _dequeue(s: Any, i: int) -> None:
    segments = segments_of(s)
    older = segments[i].older
    newer = segments[i].newer
    if older < 0:
        s.oldest_segment = newer
    else:
        segments[older].newer = newer
    if newer < 0:
        s.newest_segment = older
    else:
        segments[newer].older = older
    s.queued_blocks -= segments[i].size


@inlined
def _new_segment(s: Any, node: int, up: int, size: int, refs: int) -> Any:
    segments = segments_of(s)
    i = s.spare_segment
    s.spare_segment = segments[i].up
    segments[i].node = node
    segments[i].up = up
    segments[i].size = size
    segments[i].refs = refs
    return i


@inlined
def _give_up(s: Any, i: int) -> None:
    """Segment i, out of the queue and empty, may be used anew."""
    segments = segments_of(s)
    segments[i].up = s.spare_segment
    segments[i].node = -1
    s.spare_segment = i


@compiled
def settle(s: Any) -> None:
    """Take the blocks that were handed out from the front of the queue; what they held is forgotten."""
    segments = segments_of(s)
    nodes = nodes_of(s)
    while s.queued_blocks > s.free_blocks:
        i = s.oldest_segment
        x = segments[i]
        taken = min(x.size, s.queued_blocks - s.free_blocks)
        x.size -= taken
        s.queued_blocks -= taken
        if x.node >= 0:
            nodes[x.node].present -= taken
        if x.size == 0:
            _dequeue(s, i)
            if x.node >= 0:
                above = x.up
                nodes[x.node].last = above if above >= 0 and segments[above].node == x.node else -1
            _give_up(s, i)


@compiled
def _free(s: Any, num_blocks: int) -> None:
    """Blocks without contents join the end of the queue."""
    segments = segments_of(s)
    if num_blocks == 0:
        return
    s.free_blocks += num_blocks
    last = s.newest_segment
    if last >= 0 and segments[last].node < 0:
        segments[last].size += num_blocks
        s.queued_blocks += num_blocks
    else:
        _enqueue_after(s, _new_segment(s, -1, -1, num_blocks, 0), last)


@compiled
def _free_empty(s: Any, num_blocks: int) -> None:
    """Blocks that never got contents join the queue: in front with `empty_blocks_first`, else at the end."""
    segments = segments_of(s)
    if not s.empty_blocks_first:
        _free(s, num_blocks)
    elif num_blocks > 0:
        s.free_blocks += num_blocks
        first = s.oldest_segment
        if first >= 0 and segments[first].node < 0:
            segments[first].size += num_blocks
            s.queued_blocks += num_blocks
        else:
            _enqueue_after(s, _new_segment(s, -1, -1, num_blocks, 0), -1)


@compiled
def give_back_blocks(s: Any, num_blocks: int) -> None:
    """Blocks that were handed out and never used join the queue."""
    settle(s)
    _free_empty(s, num_blocks)


@compiled
def _ending_at(s: Any, u: int, block: int) -> Any:
    """The segment of node u that ends before `block`, which is present; cut to measure where none does."""
    segments = segments_of(s)
    nodes = nodes_of(s)
    i = nodes[u].last
    end = nodes[u].start + nodes[u].present
    while end - segments[i].size >= block:
        end -= segments[i].size
        i = segments[i].up
    if end == block:
        return i
    upper = _new_segment(s, u, segments[i].up, segments[i].size - (end - block), segments[i].refs)
    segments[i].size = end - block
    segments[i].up = upper
    if segments[i].refs == 0:
        s.queued_blocks -= segments[upper].size
        _enqueue_after(s, upper, i)
    return upper


@compiled
def _hold(s: Any, i: int, stop: int) -> None:
    """One more request holds the segments from i up to `stop`, that one left out."""
    segments = segments_of(s)
    while i != stop:
        if segments[i].refs == 0:
            _dequeue(s, i)
            s.free_blocks -= segments[i].size
        segments[i].refs += 1
        i = segments[i].up


@compiled
def find(s: Any, leaf: int, most: int) -> Any:
    """How many leading blocks are present on the way to a leaf, at most `most`, and how many of them somebody holds."""
    segments = segments_of(s)
    nodes = nodes_of(s)
    settle(s)
    u = leaf
    while u >= 0 and nodes[u].present == 0:
        u = nodes[u].parent
    if u < 0:
        return 0, 0
    end = nodes[u].start + nodes[u].present
    found = min(end, most)
    i = nodes[u].last
    while i >= 0 and segments[i].refs == 0:
        end -= segments[i].size
        i = segments[i].up
    return found, min(found, end)


@inlined
def find_for(s: Any, r: int) -> Any:
    """Blocks that waiting request r finds, and how many of them somebody holds; (0, 0) without the cache.

    At least its last known token stays to be computed, and what lies on the host is not found beyond its end.
    """
    if not s.prefix_caching:
        return 0, 0
    q = requests(s)[r]
    most = (q.prompt + q.generated - 1) // s.block_size
    if q.on_host:
        most = min(most, q.computed // s.block_size)
    return find(s, holds_of(s)[r].leaf, most)


@compiled
def attach(s: Any, r: int, found: int) -> None:
    """Waiting request r holds the first `found` blocks of its way, all of them present."""
    nodes = nodes_of(s)
    hold = holds_of(s)[r]
    hold.depth = found
    hold.tip = -1
    if found == 0:
        return
    u = hold.leaf
    while nodes[u].start >= found:
        u = nodes[u].parent
    hold.tip = _ending_at(s, u, found)
    _hold(s, hold.tip, -1)


@compiled
def publish(s: Any, r: int, target: int) -> None:
    """The first `target` blocks of running request r are full: from now on others find them.

    A block whose contents are there already is exchanged for that one, and the request's own is freed.
    """
    segments = segments_of(s)
    nodes = nodes_of(s)
    hold = holds_of(s)[r]
    settle(s)
    while hold.depth < target:
        u = hold.leaf
        while nodes[u].start > hold.depth:
            u = nodes[u].parent
        stop = min(target, nodes[u].end)
        there = nodes[u].start + nodes[u].present
        if there > hold.depth:
            stop = min(stop, there)
            i = _ending_at(s, u, stop)
            _hold(s, i, hold.tip)
            _free(s, stop - hold.depth)
            hold.tip = i
        else:
            i = hold.tip
            if i >= 0 and segments[i].node == u and segments[i].refs == 1:
                segments[i].size += stop - hold.depth
            else:
                hold.tip = _new_segment(s, u, i, stop - hold.depth, 1)
                nodes[u].last = hold.tip
            nodes[u].present += stop - hold.depth
        hold.depth = stop


@inlined
def publish_shared(s: Any, r: int, num_tokens: int) -> None:
    """`publish`, of the full blocks among `num_tokens` tokens, those that other requests have as well.

    What r shares with nobody is published when it is preempted: nobody could find it earlier.
    """
    hold = holds_of(s)[r]
    target = min(num_tokens // s.block_size, nodes_of(s)[hold.leaf].start)
    if hold.depth < target:
        publish(s, r, target)


@compiled
def publish_batch(s: Any) -> None:
    """What the batch will have computed can be found by waiting requests, who compute after it."""
    req = requests(s)
    batch = batch_of(s)
    for i in range(s.batch_size):
        publish_shared(s, batch[i, 0], req[batch[i, 0]].computed + batch[i, 1])


@compiled
def release(s: Any, r: int) -> None:
    """Request r lets go of its blocks, the last first; those that nobody else holds join the end of the queue.

    Full blocks that nobody could find are not published, but count as having contents.
    """
    segments = segments_of(s)
    q = requests(s)[r]
    hold = holds_of(s)[r]
    settle(s)
    full = max(min(q.computed // s.block_size, q.held), hold.depth)
    _free_empty(s, q.held - full)
    _free(s, full - hold.depth)
    i = hold.tip
    while i >= 0:
        segments[i].refs -= 1
        if segments[i].refs == 0:
            s.free_blocks += segments[i].size
            _enqueue_after(s, i, s.newest_segment)
        i = segments[i].up
    q.held = 0
    hold.depth = 0
    hold.tip = -1


@compiled
def exclusive_blocks(s: Any, r: int, held: int) -> Any:
    """Of the `held` blocks of running request r, those that nobody else holds."""
    segments = segments_of(s)
    hold = holds_of(s)[r]
    count = held - hold.depth
    i = hold.tip
    while i >= 0 and segments[i].refs == 1:
        count += segments[i].size
        i = segments[i].up
    return count


@inlined
def freed_by(s: Any, r: int) -> Any:
    """Blocks that preempting running request r frees, in the lock-step group or not."""
    held = blocks_held(s, requests(s)[r])
    return exclusive_blocks(s, r, held) if s.prefix_caching else held


@inlined
def take_found(s: Any, r: int) -> Any:
    """Request r, about to join, takes hold of what it finds; returns its blocks. Its tokens count as computed."""
    if not s.prefix_caching:
        return 0
    q = requests(s)[r]
    hold = holds_of(s)[r]
    found, _ = find_for(s, r)
    attach(s, r, found)
    num_tokens = found * s.block_size
    if q.on_host:
        s.swapped_tokens -= num_tokens  # need not come back
        return found
    again = min(hold.lost, num_tokens)  # it had computed them before it was preempted
    s.num_recomputed -= again
    q.recomputed -= again
    hold.lost = 0
    hold.cached += num_tokens - again
    s.num_cached += num_tokens - again
    q.computed = num_tokens
    return found


@inlined
def withhold(s: Any, r: int) -> None:
    """Finished request r keeps its blocks until nothing runs."""
    holds = holds_of(s)
    holds[r].next = -1
    if s.first_withheld < 0:
        s.first_withheld = r
    else:
        holds[s.last_withheld].next = r
    s.last_withheld = r


@compiled
def release_kept(s: Any) -> None:
    """Finished requests that kept their blocks let go of them, in the order in which they finished."""
    holds = holds_of(s)
    while s.first_withheld >= 0:
        r = s.first_withheld
        s.first_withheld = holds[r].next
        release(s, r)


@compiled
def cached_tokens(s: Any, leaf: int, num_tokens: int) -> Any:
    """Tokens that a request of `num_tokens` tokens would find on this engine if it were admitted now.

    `leaf` is the request's number in the workload whose prefix tree the engine knows. 0 without the cache.
    """
    if not s.prefix_caching:
        return 0
    found, _ = find(s, leaf, (num_tokens - 1) // s.block_size)
    return found * s.block_size


@compiled
def sharing_of(s: Any, numbers: Any) -> Any:
    """Two (k,) int64 arrays for (k,) int64 requests that wait or run, as in `RequestsView`.

    Tokens that waiting ones would find, and blocks that others hold of what they would find, or hold already.
    """
    cached = np.zeros(len(numbers), np.int64)
    shared = np.zeros(len(numbers), np.int64)
    if s.prefix_caching:
        req = requests(s)
        for i in range(len(numbers)):
            q = req[numbers[i]]
            if q.place == RUNNING:
                shared[i] = q.held - exclusive_blocks(s, numbers[i], q.held)
            else:
                found, shared[i] = find_for(s, numbers[i])
                cached[i] = found * s.block_size
    return cached, shared
