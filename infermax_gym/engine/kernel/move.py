"""Requests that leave an engine with their KV, and that come to another one: room is set aside there first.

All of it between two iterations. A fleet says who moves, and when (`infermax_gym.cluster.kernel.migrate`).
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.evict import free_blocks_of, join, leave
from infermax_gym.engine.kernel.fair import link_arrival
from infermax_gym.engine.kernel.group import leave_group
from infermax_gym.engine.kernel.levels import start_level
from infermax_gym.engine.kernel.memory import holds_of, requests, running
from infermax_gym.engine.kernel.prefix import give_back_blocks, publish
from infermax_gym.engine.layout import LANDING, MOVED
from infermax_gym.engine.policy import QueueOrder


@compiled
def set_aside(s: Any, blocks: int) -> None:
    """Keep a sequence and `blocks` free blocks for a request to come."""
    s.max_num_seqs -= 1
    s.free_blocks -= blocks


@compiled
def give_back(s: Any, blocks: int) -> None:
    """The request does not come: its sequence and its blocks are free again."""
    s.max_num_seqs += 1
    if s.prefix_caching:
        give_back_blocks(s, blocks)
    else:
        s.free_blocks += blocks


@compiled
def detach(s: Any, r: int) -> None:
    """Running request r leaves for good, between two iterations; its record says what it had. Its blocks are freed."""
    q = requests(s)[r]
    if q.grouped:
        leave_group(s, q)
    run = running(s)
    position = 0
    while run[position] != r:
        position += 1
    leave(s, position)
    free_blocks_of(s, r)
    q.place = MOVED
    s.num_moved += 1


@compiled
def attach(s: Any, t: Any, r: int, blocks: int, left_s: float) -> None:
    """Request r of engine s, which left it at `left_s`, comes to engine t, which has room for it and `blocks` blocks.

    It takes part from t's next iteration on, as an arrival that runs at once.
    """
    slot = t.num_requests
    t.num_requests = slot + 1
    req = requests(t)
    req[slot] = requests(s)[r]
    q = req[slot]
    q.place = LANDING
    q.held = blocks
    q.waiting_since_s = left_s
    q.level = 0
    q.level_run_s = 0.0
    q.level_iterations = 0
    q.level_place_s = q.arrival_s
    if t.prefix_caching:
        hold = holds_of(t)[slot]
        hold.leaf = q.number
        if s.prefix_caching:
            hold.cached = holds_of(s)[r].cached


@compiled
def seat(s: Any, r: int) -> None:
    """Request r, which has landed, joins the running list with the blocks that were set aside for it."""
    q = requests(s)[r]
    s.max_num_seqs += 1
    s.system_seconds += s.clock_s - q.waiting_since_s
    if s.skip_join:
        start_level(s, r)
    if s.queue_order == QueueOrder.FAIR:
        link_arrival(s, r)
    join(s, r, q.held, q.held)
    if s.prefix_caching:
        publish(s, r, q.computed // s.block_size)
