"""Who iterates next: every replica advances up to a moment, and its signals with it.

A replica's next boundary is when its next iteration starts. Those of all replicas stand in a tournament tree.
"""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.memory import cores_of, events_of, seen_by, signals_of
from infermax_gym.cluster.kernel.signals import refresh
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.advance import has_room
from infermax_gym.engine.kernel.run import STUCK, run


@inlined
def next_boundary(f: Any, i: int) -> Any:
    """When replica i starts its next iteration; inf if it has nothing to do and its signals say so."""
    return events_of(f)[f.num_leaves + i]


@inlined
def set_boundary(f: Any, i: int, at_s: float) -> None:
    """Set when replica i starts its next iteration."""
    events = events_of(f)
    node = f.num_leaves + i
    events[node] = at_s
    node >>= 1
    while node >= 1:
        earliest = min(events[2 * node], events[2 * node + 1])
        if events[node] == earliest:
            return
        events[node] = earliest
        node >>= 1


@inlined
def _earliest(f: Any) -> Any:
    """The replica with the earliest boundary."""
    events = events_of(f)
    node = 1
    while node < f.num_leaves:
        node = 2 * node if events[2 * node] <= events[2 * node + 1] else 2 * node + 1
    return node - f.num_leaves


@inlined
def run_with_log(f: Any, i: int, num_iterations: int, use_fast_forward: bool) -> Any:
    """`run` for replica i, writing into the log that all replicas share."""
    s = cores_of(f)[i]
    s.num_gaps = f.num_gaps
    code = run(s, num_iterations, math.inf, use_fast_forward)
    f.num_gaps = s.num_gaps
    return code


@compiled
def advance_until(f: Any, until_s: float) -> Any:
    """Run every iteration that starts before `until_s`; False if the log is full (empty it and call again).

    Afterwards the signals are those of each replica's last boundary before `until_s`.
    """
    cores = cores_of(f)
    events = events_of(f)
    while events[1] < until_s:
        i = _earliest(f)
        s = cores[i]
        s.num_gaps = f.num_gaps
        if not has_room(s):
            return False
        refresh(f, i)
        if s.num_finished + s.num_rejected == s.num_requests:
            set_boundary(f, i, math.inf)
            continue
        code = run_with_log(f, i, 1, False)
        # A policy of the table always finds something to run; another one waits for the next request sent here.
        set_boundary(f, i, math.inf if code == STUCK else s.clock_s)
    return True


@compiled
def look(f: Any, at_s: float) -> Any:
    """Bring what the router sees at `at_s` up to date; False if the log is full (empty it and call again)."""
    if f.staleness_s == 0.0:
        return advance_until(f, at_s)
    number = math.floor(at_s / f.staleness_s)
    if number > f.last_snapshot:
        if not advance_until(f, min(number * f.staleness_s, at_s)):
            return False
        signals = signals_of(f)
        seen = seen_by(f)
        for k in range(signals.shape[0]):
            for i in range(signals.shape[1]):
                seen[k, i] = signals[k, i]
        f.last_snapshot = float(number)
    return True
