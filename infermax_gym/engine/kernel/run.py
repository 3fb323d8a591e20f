"""The main loop: arrivals, decisions, iterations."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.advance import advance, arrive, drain_swaps, has_room
from infermax_gym.engine.kernel.closed_loop import next_arrival_s
from infermax_gym.engine.kernel.fast_forward import fast_forward, is_steady
from infermax_gym.engine.kernel.lag import catch_up, decide_ahead
from infermax_gym.engine.kernel.serve import resume_paused

# Why `run` returned.
DONE = 0
LOG_FULL = 1
LIMIT = 2
STUCK = 3  # cannot happen with a policy of the table; the engine refuses to spin


@inlined
def wait_until(s: Any, at_s: float) -> None:
    """Move an idle clock forward, if it is behind."""
    wait_s = max(at_s - s.clock_s, 0.0)
    s.system_seconds += (s.num_waiting + s.num_running) * wait_s
    s.unstarted_seconds += s.num_unstarted * wait_s
    s.clock_s = max(s.clock_s, at_s)
    drain_swaps(s, wait_s)


@compiled
def jump_to_next_arrival(s: Any) -> Any:
    """Move an idle clock to the next arrival; False if there is none."""
    at_s = next_arrival_s(s)
    if math.isinf(at_s):
        return False
    wait_until(s, at_s)
    s.seen_until_s = s.clock_s
    return True


@compiled
def run(s: Any, max_iterations: int, until_s: float, use_fast_forward: bool) -> Any:
    """Simulate until every request is finished or rejected, the log is full or the limit is reached.

    The limit is `max_iterations` more iterations, or the first iteration end at or after `until_s`.
    Returns DONE, LOG_FULL, LIMIT or STUCK. Calling again goes on where it stopped.
    """
    last = s.num_iterations + max_iterations
    while True:
        arrive(s)
        if s.num_finished + s.num_rejected + s.num_moved == s.num_requests + s.num_unsent:
            return DONE
        if s.num_iterations >= last or s.clock_s >= until_s:
            return LIMIT
        if not has_room(s):
            return LOG_FULL
        if s.num_running == 0 and s.num_waiting == 0:
            catch_up(s)
            jump_to_next_arrival(s)
            continue
        decide_ahead(s)
        if s.num_tokens > 0:
            advance(s)
            if use_fast_forward and is_steady(s):
                fast_forward(s, last - s.num_iterations, until_s)
        elif s.changed:
            s.stalled_iterations += 1
            catch_up(s)
            # Where memory is set aside for a request that moves here, one may be swapped out and in at one moment.
            if s.stalled_iterations > 1024 + 8 * s.num_blocks * s.block_size:  # twice what invariant 9 allows, and more
                return STUCK
        elif catch_up(s) or resume_paused(s):
            continue
        elif not jump_to_next_arrival(s):
            return STUCK
