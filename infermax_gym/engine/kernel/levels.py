"""Levels of a multi-level feedback queue: where a request starts, when it sinks, who is lifted out of starvation."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.keys import set_queue_key
from infermax_gym.engine.kernel.memory import batch_of, requests
from infermax_gym.engine.kernel.queue import oldest, push, remove
from infermax_gym.engine.kernel.seconds import prefill_seconds
from infermax_gym.engine.layout import WAITING
from infermax_gym.engine.policy import NO_LIMIT


@compiled
def _quantum(s: Any, level: int) -> Any:
    """Run time in seconds that a request may use in a level."""
    quantum_s = s.quantum_s
    for _ in range(level):
        quantum_s *= s.quantum_growth
    return quantum_s


@compiled
def start_level(s: Any, r: int) -> None:
    """Give a request that has just arrived the first level whose quantum holds its prefill."""
    q = requests(s)[r]
    prefill_s = prefill_seconds(s, q.prompt)
    while q.level < s.mlfq_levels - 1 and _quantum(s, q.level) < prefill_s:
        q.level += 1


@inlined
def _move(s: Any, q: Any, level: int) -> None:
    """To the front of a level, with no run time there."""
    q.level = level
    q.level_run_s = 0.0
    q.level_iterations = 0
    q.level_place_s = -s.clock_s


@inlined
def _used_up(s: Any, q: Any) -> Any:
    """Whether a request has run in its level for as long as it may."""
    if s.quantum_iterations > 0 and q.level_iterations >= s.quantum_iterations:
        return True
    return s.quantum_s > 0.0 and q.level_run_s > _quantum(s, q.level)


@compiled
def sink(s: Any, duration_s: float) -> None:
    """Charge the members of the batch for an iteration; those whose quantum is used up go down a level."""
    req = requests(s)
    batch = batch_of(s)
    for slot in range(s.batch_size):
        q = req[batch[slot, 0]]
        q.level_run_s += duration_s
        q.level_iterations += 1
        if q.level < s.mlfq_levels - 1 and _used_up(s, q):
            _move(s, q, q.level + 1)


@inlined
def begin_wait(s: Any, r: int, since_s: float) -> None:
    """Note since when request r waits."""
    q = requests(s)[r]
    q.waiting_since_s = since_s
    q.waiting_since_iteration = s.num_iterations
    if s.starvation_s > 0.0:
        s.next_starving_s = min(s.next_starving_s, since_s + s.starvation_s)
    if s.starvation_iterations > 0:
        s.next_starving_iteration = min(s.next_starving_iteration, s.num_iterations + s.starvation_iterations)


@compiled
def lift_starving(s: Any) -> None:
    """Requests that have waited for `starvation_s`, or through `starvation_iterations`, move to level -1."""
    req = requests(s)
    nobody = s.clock_s < s.next_starving_s and s.num_iterations < s.next_starving_iteration
    if nobody or s.num_waiting == 0 or s.num_iterations % s.starvation_every != 0:
        return
    s.next_starving_s = np.inf
    s.next_starving_iteration = NO_LIMIT
    for r in range(oldest(s), s.next_arrival):
        q = req[r]
        if q.place != WAITING or q.level < 0:
            continue
        starves_s = q.waiting_since_s + s.starvation_s if s.starvation_s > 0.0 else np.inf
        iteration = q.waiting_since_iteration + s.starvation_iterations if s.starvation_iterations > 0 else NO_LIMIT
        if starves_s > s.clock_s and iteration > s.num_iterations:
            s.next_starving_s = min(s.next_starving_s, starves_s)
            s.next_starving_iteration = min(s.next_starving_iteration, iteration)
            continue
        remove(s, r)
        _move(s, q, -1)
        set_queue_key(s, r)
        push(s, r)
