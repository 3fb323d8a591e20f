"""How a controller moves requests between its settings of the knobs: new keys, shedding, preempting."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.admit import bring_in, has_room_for, preempt_for
from infermax_gym.engine.kernel.evict import guarded, preempt
from infermax_gym.engine.kernel.fit import reserved_blocks
from infermax_gym.engine.kernel.keys import set_queue_key
from infermax_gym.engine.kernel.memory import requests, running, term_ends_of, theta_of
from infermax_gym.engine.kernel.prefix import freed_by
from infermax_gym.engine.kernel.queue import head, push, remove, reset
from infermax_gym.engine.layout import WAITING

BEHIND = 1e6
"""Added to the queue key of requests that are shed: behind all others, in the same order among themselves."""


@compiled
def rekey_from(s: Any, first: int) -> None:
    """Give every waiting request, none of them before `first`, its key anew."""
    req = requests(s)
    reset(s)
    s.num_waiting = 0
    s.waiting_tokens = 0
    for r in range(first, s.next_arrival):
        if req[r].place == WAITING:
            set_queue_key(s, r)
            push(s, r)


@inlined
def _misses_deadline(s: Any, q: Any, pace: float) -> Any:
    """Whether a request that waits or is in prefill has missed its TTFT deadline, or will miss it at this pace."""
    if q.slo_ttft_s <= 0.0:
        return False
    deadline_s = q.arrival_s + q.slo_ttft_s
    if q.generated > 0:
        return q.first_token_s > deadline_s
    rest = q.prompt - q.computed
    work = rest * rest + 2 * rest * q.computed
    alone_s = batch_seconds(theta_of(s), term_ends_of(s), s.floor_context != 0, rest, work, 1, q.computed, 0, 0)
    return s.clock_s + pace * alone_s > deadline_s


@inlined
def _head_can_meet_deadline(s: Any, pace: float, shed: Any) -> Any:
    """Whether a waiting request can still meet its deadline; from the head on, those that cannot are shed."""
    req = requests(s)
    while s.num_waiting > 0:
        r = head(s)
        if shed[r]:
            return False
        if not _misses_deadline(s, req[r], pace):
            return True
        remove(s, r)
        shed[r] = 1
        req[r].priority += BEHIND
        set_queue_key(s, r)
        push(s, r)
    return False


@inlined
def _head_fits(s: Any, freed: int, left: int) -> Any:
    """Whether the head of the queue has room, if so many blocks and sequences are given back."""
    r = head(s)
    return requests(s)[r].on_host or has_room_for(s, r, freed, left)


@compiled
def _make_way(s: Any, shed: Any) -> None:
    """Preempt just as many prefills of shed requests, the last first, as make room for the head; none if all do not."""
    req = requests(s)
    run_list = running(s)
    freed = left = 0
    first = s.num_running
    while not _head_fits(s, freed, left):
        first -= 1
        while first >= 0 and not (shed[run_list[first]] and req[run_list[first]].in_prefill):
            first -= 1
        if first < 0:
            return
        freed += freed_by(s, run_list[first])
        left += 1
    for i in range(s.num_running - 1, first - 1, -1):
        if shed[run_list[i]] and req[run_list[i]].in_prefill:
            preempt(s, i)


@compiled
def shed_late(s: Any, pace: float, preempts: bool, shed: Any) -> None:
    """Shed requests that will miss their deadline: they go behind all others.

    Their prefills pause while a request that can still meet its deadline can use the tokens.

    Args:
        s: the engine.
        pace: prefills are expected to take so many times as long as alone.
        preempts: whether a prefill of theirs may also be preempted, where it holds the memory that the head needs.
        shed: (n,) int8, which requests are shed.
    """
    waiting_in_time = _head_can_meet_deadline(s, pace, shed)
    running_in_time = False
    req = requests(s)
    run_list = running(s)
    for i in range(s.num_running):
        q = req[run_list[i]]
        if q.in_prefill:
            if not shed[run_list[i]] and _misses_deadline(s, q, pace):
                shed[run_list[i]] = 1
                q.priority += BEHIND
            running_in_time = running_in_time or not shed[run_list[i]]
    if waiting_in_time and preempts and not guarded(s):
        _make_way(s, shed)
    pauses = not guarded(s) and (running_in_time or (waiting_in_time and _head_fits(s, 0, 0)))
    for i in range(s.num_running):
        q = req[run_list[i]]
        q.paused = pauses and q.in_prefill and shed[run_list[i]]


@compiled
def preempt_behind_head(s: Any, margin: float) -> None:
    """While the head of the queue does not fit: preempt running requests that rank `margin` behind it; it joins."""
    req = requests(s)
    while s.num_waiting > 0 and s.num_running > 0 and not guarded(s) and not _head_fits(s, 0, 0):
        r = head(s)
        if not preempt_for(s, r, req[r].key + margin):
            return
        bring_in(s, r, reserved_blocks(s, r, req[r].prompt + req[r].generated))
