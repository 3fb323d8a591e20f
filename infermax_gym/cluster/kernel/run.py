"""The loop over arrivals: look, choose, place; and what is left to do when all have arrived."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.choose import choose, match_next
from infermax_gym.cluster.kernel.events import NO_SLOT, advance_until, look, run_with_log, why_stopped
from infermax_gym.cluster.kernel.memory import (
    arrival_seconds_of,
    arrivals_of,
    bound_of,
    cores_of,
    home_of,
    kind_of,
    predictions_of,
    replica_of,
    routed_of,
    session_of,
    slot_of,
    slots_of,
)
from infermax_gym.cluster.kernel.next_arrival import find_next, next_row
from infermax_gym.cluster.kernel.prefixes import remember
from infermax_gym.cluster.kernel.signals import count_routed
from infermax_gym.cluster.kernel.tournament import next_boundary, set_boundary
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.closed_loop import release_after
from infermax_gym.engine.kernel.memory import holds_of, requests
from infermax_gym.engine.kernel.run import DONE, LOG_FULL
from infermax_gym.engine.policy import NO_LIMIT


@inlined
def _note_routed(f: Any, row: int, i: int) -> None:
    """The next request, which stands in `row` of the arrivals, has gone to replica i, or nowhere (-1)."""
    q = arrivals_of(f)[row]
    if f.sticky_s > 0.0:
        last = bound_of(f)[session_of(f)[q.number]]
        last[0] = q.arrival_s
        last[1] = i
    routed_of(f)[f.next_request] = q.number
    if f.num_recent > 0:
        arrival_seconds_of(f)[f.next_request] = q.arrival_s
    f.next_request += 1
    f.next_number = -1


@inlined
def place(f: Any, i: int, row: int) -> None:
    """Send the next request, which stands in `row` of the arrivals, to replica i, which has room for it."""
    s = cores_of(f)[i]
    r = arrivals_of(f)[row].number
    slot = s.num_requests
    requests_here = slot + 1
    s.num_requests = requests_here
    req = requests(s)
    req[slot] = arrivals_of(f)[row]
    if f.has_predictions:
        req[slot].prediction = predictions_of(f)[kind_of(f)[i], r]
        req[slot].first_prediction = req[slot].prediction
    if s.prefix_caching:
        holds_of(s)[slot].leaf = r
    replica_of(f)[r] = i
    if f.migrates:
        home_of(f)[r] = i
        slot_of(f)[r] = slot
    remember(f, i, r, req[slot].tenant, req[slot].prompt)
    if math.isinf(next_boundary(f, i)):
        set_boundary(f, i, max(s.clock_s, req[slot].arrival_s))
    count_routed(f, i, req[slot].prompt + req[slot].generated)
    f.last_chosen = i
    f.chosen = -1
    _note_routed(f, row, i)


@compiled
def route(f: Any) -> Any:
    """Route the arrivals that are laid out: DONE, LOG_FULL (empty it and call again) or NO_SLOT."""
    arrivals = arrivals_of(f)
    slots = slots_of(f)
    cores = cores_of(f)
    while f.next_request < f.first_arrival + f.arrivals_size:
        if not find_next(f):
            return why_stopped(f)
        row = next_row(f)
        q = arrivals[row]
        if f.needs_signals and not look(f, q.arrival_s):
            return why_stopped(f)
        i = choose(f, q, row)
        if i < 0:
            reject(f)
            continue
        if cores[i].num_requests == slots[i]:
            f.chosen = i
            return NO_SLOT
        place(f, i, row)
    return DONE


@inlined
def reject(f: Any) -> None:
    """The next request fits no replica."""
    row = next_row(f)
    q = arrivals_of(f)[row]
    replica_of(f)[q.number] = -1
    f.num_rejected += 1
    _note_routed(f, row, -1)
    if f.has_loop:
        release_after(f, q.number, q.arrival_s)


@compiled
def show(f: Any, candidates: Any) -> Any:
    """For a router outside: what it sees at the next arrival, the first row of those laid out.

    Args:
        f: the fleet's record.
        candidates: (num_replicas,) bool, out: who can hold the request.

    Returns:
        DONE, LOG_FULL (empty it and call again) or NO_SLOT (make room at `chosen` and call again).
    """
    if not find_next(f):
        return why_stopped(f)
    q = arrivals_of(f)[next_row(f)]
    if not look(f, q.arrival_s):
        return why_stopped(f)
    match_next(f, q)
    for i in range(f.num_replicas):
        candidates[i] = is_candidate(f, i, q)
    return DONE


@compiled
def send(f: Any, i: int) -> Any:
    """For a router outside: send the next request to replica i (-1 rejects it); DONE or NO_SLOT."""
    if i < 0:
        reject(f)
    elif cores_of(f)[i].num_requests == slots_of(f)[i]:
        f.chosen = i
        return NO_SLOT
    else:
        place(f, i, next_row(f))
    return DONE


@compiled
def choose_next(fleets: Any) -> Any:
    """Where the router of fleet 0, whose signals are up to date, would send the next request; -1 for nowhere.

    Takes (1,) FLEET: Python hands an array over far faster than a record.
    """
    f = fleets[0]
    row = next_row(f)
    return choose(f, arrivals_of(f)[row], row)


@compiled
def finish(f: Any, first: int) -> Any:
    """Run the replicas from number `first` on to their ends; returns num_replicas, or where to go on.

    In between do what `why_stopped` says. With migration they end together.
    """
    if f.migrates:
        return f.num_replicas if advance_until(f, math.inf) else 0
    for i in range(first, f.num_replicas):
        code = run_with_log(f, i, NO_LIMIT, True)
        if code == LOG_FULL:
            return i
        set_boundary(f, i, math.inf)
    return f.num_replicas
