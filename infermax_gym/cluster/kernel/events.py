"""Every replica advances up to a moment, and its signals with it."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.memory import cores_of, events_of, moves_of, seen_by, signals_of
from infermax_gym.cluster.kernel.migrate import COPYING, migrate_before, send_off
from infermax_gym.cluster.kernel.signals import refresh
from infermax_gym.cluster.kernel.tournament import earliest, set_boundary
from infermax_gym.cluster.router import Score
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.advance import has_room
from infermax_gym.engine.kernel.run import LOG_FULL, STUCK, run, wait_until

ON_TIME = 1.0 - 2.0**-50
"""A snapshot is there at a moment if it is due no later than that, up to rounding (a few units in the last place)."""

# Why the loop over arrivals stopped, besides DONE and LOG_FULL.
NO_SLOT = 4  # replica `chosen` has no room for a request; make some and call again


@inlined
def run_with_log(f: Any, i: int, num_iterations: int, use_fast_forward: bool) -> Any:
    """`run` for replica i, writing into the log that all replicas share."""
    s = cores_of(f)[i]
    s.num_gaps = f.num_gaps
    code = run(s, num_iterations, math.inf, use_fast_forward)
    f.num_gaps = s.num_gaps
    return code


@inlined
def advance_once(f: Any, until_s: float) -> Any:
    """Run the earliest iteration that starts before `until_s`.

    Returns whether there was one, and whether there was memory for it; without, it had to stop (see `why_stopped`).
    """
    events = events_of(f)
    moves = moves_of(f)
    if f.migrates and not migrate_before(f, until_s):
        return False, False
    if not events[1] < until_s:
        return False, True
    i = earliest(f)
    s = cores_of(f)[i]
    s.num_gaps = f.num_gaps
    if not has_room(s):
        return False, False
    if f.migrates:
        wait_until(s, events[1])
        if moves[i].state == COPYING:
            send_off(f, i, events[1])
    refresh(f, i)
    if s.num_finished + s.num_rejected + s.num_moved == s.num_requests:
        set_boundary(f, i, math.inf)
        return True, True
    code = run_with_log(f, i, 1, False)
    # A policy of the table always finds something to run; another one waits for the next request sent here. So does
    # one whose memory is set aside for a request that moves here.
    set_boundary(f, i, math.inf if code == STUCK else s.clock_s)
    return True, True


@compiled
def advance_until(f: Any, until_s: float) -> Any:
    """Run every iteration that starts before `until_s`; False if it had to stop for memory (see `why_stopped`).

    Afterwards the signals are those of each replica's last boundary before `until_s`.
    """
    while True:
        goes_on, has_memory = advance_once(f, until_s)
        if not goes_on:
            return has_memory


@inlined
def take_snapshot(f: Any, number: float) -> None:
    """What the replicas say now is snapshot `number`, which routers see."""
    signals = signals_of(f)
    seen = seen_by(f)
    for k in range(signals.shape[0]):
        for i in range(signals.shape[1]):
            seen[k, i] = signals[k, i]
    f.last_snapshot = number


@inlined
def why_stopped(f: Any) -> Any:
    """What to do before calling again: NO_SLOT, make room at replica `chosen`, or LOG_FULL, empty it."""
    return NO_SLOT if f.chosen >= 0 else LOG_FULL


@inlined
def snapshot_at(at_s: float, staleness_s: float) -> Any:
    """Number k (a float) of the last snapshot at or before `at_s`, where k is due at k x `staleness_s`.

    Products decide: of 0.3 s and 0.1 s the quotient is below 3. It is only where the search begins, one off at most.
    """
    number = float(math.floor(at_s / staleness_s))
    if (number + 1.0) * staleness_s * ON_TIME <= at_s:
        return number + 1.0
    return number if number * staleness_s * ON_TIME <= at_s else number - 1.0


@compiled
def look(f: Any, at_s: float) -> Any:
    """Bring what the router sees at `at_s` up to date; False if it had to stop for memory (see `why_stopped`)."""
    if f.staleness_s == 0.0:
        return advance_until(f, at_s)
    number = snapshot_at(at_s, f.staleness_s)
    if number > f.last_snapshot:
        if not advance_until(f, min(number * f.staleness_s, at_s)):
            return False
        take_snapshot(f, number)
    # Whoever has landed by now stands before the request that arrives; and who looks ahead does so from now.
    return advance_until(f, at_s) if f.migrates or f.score == Score.AHEAD else True
