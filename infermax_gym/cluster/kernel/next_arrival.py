"""Which request arrives next: the next of the workload, or, with closed-loop traffic, whom the replicas let come."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.events import advance_once, snapshot_at, take_snapshot
from infermax_gym.cluster.kernel.memory import arrivals_of, events_of
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.closed_loop import next_due_s, take_next
from infermax_gym.engine.kernel.memory import links_of


@inlined
def next_row(f: Any) -> Any:
    """Row of the arrivals in which the next request stands."""
    return (f.next_number if f.has_loop else f.next_request) - f.first_arrival


@inlined
def find_next(f: Any) -> Any:
    """Make sure that the next request is known; False if the replicas had to stop first (see `why_stopped`)."""
    return f.next_number >= 0 or _find_released(f) if f.has_loop else True


@inlined
def _due_snapshot(f: Any, before_s: float) -> Any:
    """The last snapshot due before the signals change the next time, if nobody has taken it; else -1.

    What changes them is a boundary or a landing; a request that comes at `before_s` or later takes its own.
    """
    change_s = min(events_of(f)[1], f.next_landing_s)
    if f.staleness_s == 0.0 or not f.needs_signals or not change_s < before_s:
        return -1.0
    number = snapshot_at(change_s, f.staleness_s)
    if number * f.staleness_s > change_s:
        number -= 1.0
    return number if number > f.last_snapshot else -1.0


@compiled
def _find_released(f: Any) -> Any:
    """Run the replicas, the earliest boundary first, until nobody can send a request before the next one."""
    events = events_of(f)
    while True:
        at_s = next_due_s(f)
        if math.isinf(at_s) and math.isinf(events[1]) and math.isinf(f.next_landing_s):
            return False  # nobody runs and nobody comes: a policy waits for ever
        number = _due_snapshot(f, at_s)
        until_s = number * f.staleness_s if number >= 0.0 else at_s
        goes_on, has_memory = advance_once(f, until_s)
        if not has_memory:
            return False
        if goes_on:
            continue
        if number < 0.0:
            break
        take_snapshot(f, number)
    r = take_next(f)
    q = arrivals_of(f)[r - f.first_arrival]
    q.arrival_s = q.level_place_s = links_of(f)[r].due_s
    f.next_number = r
    return True
