"""Closed-loop traffic: an end of a request lets another one arrive, some time later.

Whose turn is next is known of three sorts of requests: those without a predecessor, in order of arrival; those whose
predecessor has ended, in a heap; and those that anybody may send, in order. The first to arrive, by (arrival, number),
takes the next place in the engine, so places are in order of arrival, as everywhere. `infermax_gym.engine.links` lays
the records out. Open traffic has none of it: its requests stand in their places from the beginning.
"""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import holds_of, links_of, loop_of, requests, unsent_of


@inlined
def _is_before(links: Any, a: int, b: int) -> Any:
    """Whether request a arrives before request b."""
    return links[a].due_s < links[b].due_s or (links[a].due_s == links[b].due_s and a < b)


@compiled
def _schedule(s: Any, r: int, at_s: float) -> None:
    """Request r will arrive at `at_s`."""
    loop = loop_of(s)
    links = links_of(s)
    links[r].due_s = at_s
    child = loop.num_due
    loop.num_due = child + 1
    while child > 0:
        parent = (child - 1) // 2
        if not _is_before(links, r, links[parent].due):
            break
        links[child].due = links[parent].due
        child = parent
    links[child].due = r


@compiled
def _pop_due(s: Any) -> Any:
    """Take the first request out of the heap."""
    loop = loop_of(s)
    links = links_of(s)
    first = links[0].due
    size = loop.num_due - 1
    loop.num_due = size
    last = links[size].due
    parent = 0
    while 2 * parent + 1 < size:
        child = 2 * parent + 1
        if child + 1 < size and _is_before(links, links[child + 1].due, links[child].due):
            child += 1
        if _is_before(links, last, links[child].due):
            break
        links[parent].due = links[child].due
        parent = child
    links[parent].due = last
    return first


@compiled
def release_after(s: Any, r: int, at_s: float) -> None:
    """Request number r has ended at `at_s`: those behind it will arrive, or else the next that anybody may send."""
    loop = loop_of(s)
    links = links_of(s)
    following = links[r].successor
    if following < 0 and loop.next_shared < loop.num_shared:
        k = links[loop.next_shared].shared
        loop.next_shared += 1
        _schedule(s, k, at_s + links[k].think_s)
    while following >= 0:
        _schedule(s, following, at_s + links[following].think_s)
        following = links[following].sibling


@compiled
def next_due_s(s: Any) -> Any:
    """When the next request arrives, as far as is known; inf for never."""
    loop = loop_of(s)
    links = links_of(s)
    at_s = math.inf
    if loop.next_beginning < loop.num_beginnings:
        at_s = links[links[loop.next_beginning].beginning].due_s
    if loop.num_due > 0:
        at_s = min(at_s, links[links[0].due].due_s)
    return at_s


@compiled
def take_next(s: Any) -> Any:
    """The number of the next request to arrive, which is thereby sent; -1 if none is known."""
    loop = loop_of(s)
    links = links_of(s)
    if loop.next_beginning < loop.num_beginnings:
        r = links[loop.next_beginning].beginning
        if loop.num_due == 0 or _is_before(links, r, links[0].due):
            loop.next_beginning += 1
            return r
    return _pop_due(s) if loop.num_due > 0 else -1


@compiled
def take_due(s: Any, until_s: float) -> None:
    """The next request takes its place in the engine if it has arrived by then."""
    if not next_due_s(s) <= until_s:
        return
    r = take_next(s)
    slot = s.num_requests
    s.num_requests = slot + 1
    s.num_unsent -= 1
    req = requests(s)
    req[slot] = unsent_of(s)[r]
    q = req[slot]
    link = links_of(s)[r]
    link.slot = slot
    q.arrival_s = link.due_s
    q.level_place_s = link.due_s
    if s.prefix_caching:
        holds_of(s)[slot].leaf = r


@inlined
def next_arrival_s(s: Any) -> Any:
    """When the next request arrives here, as far as is known; inf for never."""
    if s.next_arrival < s.num_requests:
        return requests(s)[s.next_arrival].arrival_s
    return next_due_s(s) if s.takes_from_loop else math.inf


@inlined
def more_may_come(s: Any) -> Any:
    """Whether a request may still arrive here before those that wait are admitted."""
    if s.next_arrival < s.num_requests:
        return True
    return s.takes_from_loop and s.num_unsent > 0 and (s.num_running > 0 or not math.isinf(next_due_s(s)))
