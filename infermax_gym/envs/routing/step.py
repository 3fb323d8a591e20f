"""Compiled steps of `InferMaxRouter-v0`: carry out a choice, go on to the next arrival, observe."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.events import advance_until, look
from infermax_gym.cluster.kernel.memory import arrivals_of, cores_of, seen_by, signals_of, slots_of
from infermax_gym.cluster.kernel.next_arrival import find_next, next_row
from infermax_gym.cluster.kernel.run import finish, place, reject
from infermax_gym.cluster.kernel.signals import refresh
from infermax_gym.compile import compiled, inlined
from infermax_gym.envs.rewards import NUM_COMPONENTS, Component
from infermax_gym.envs.routing.observe import observe
from infermax_gym.envs.status import HANDOVER, LOG_FULL, RUNNING_ON, TERMINATED, TRUNCATED

LANE = np.dtype(
    [
        ("status", "i8"),
        ("action", "i8"),  # a choice that is not carried out yet, else -1
        ("num_ended", "i8"),  # replicas that have run to their ends, when all requests are routed
        ("time_limit_s", "f8"),
        ("max_decisions", "i8"),
        ("clock_s", "f8"),  # of the decision; at the end, of the last iteration's end
        ("gap_s", "f8"),  # since the decision before
        # totals of the episode
        ("num_decisions", "i8"),
        ("num_illegal", "i8"),
        ("handed_over", "i8"),  # whether the fallback router has the rest
        ("num_by_agent", "i8"),  # requests that had been routed when it took over
        # as of the last step, for rewards
        ("last_clock_s", "f8"),
        ("last", "f8", (NUM_COMPONENTS,)),
    ],
    align=True,
)


@inlined
def _next_candidate(f: Any, first: int) -> Any:
    """The first candidate for the next request from replica `first` on and around, or -1."""
    q = arrivals_of(f)[next_row(f)]
    i = first
    for _ in range(f.num_replicas):
        if is_candidate(f, i, q):
            return i
        i = i + 1 if i + 1 < f.num_replicas else 0
    return -1


@inlined
def _end(f: Any, v: Any) -> None:
    """All requests are routed: run every replica to its end."""
    v.num_ended = finish(f, v.num_ended)
    if v.num_ended < f.num_replicas:
        v.status = LOG_FULL
        return
    cores = cores_of(f)
    signals = signals_of(f)
    seen = seen_by(f)
    for i in range(f.num_replicas):
        refresh(f, i)
        if cores[i].num_requests > 0:
            v.clock_s = max(v.clock_s, cores[i].clock_s)
        for k in range(signals.shape[0]):
            seen[k, i] = signals[k, i]
    v.status = TERMINATED


@compiled
def go_on(f: Any, v: Any) -> None:
    """Carry out the choice, if there is one, and go to the next arrival that has a candidate; sets `status`.

    LOG_FULL: room must be made at replica `chosen`, or, if that is -1, the log be emptied; then call again.
    """
    cores = cores_of(f)
    slots = slots_of(f)
    while True:
        if v.action >= 0:
            if cores[v.action].num_requests == slots[v.action]:
                f.chosen = v.action
                v.status = LOG_FULL
                return
            place(f, v.action, next_row(f))
            v.action = -1
        if f.next_request == f.num_requests:
            _end(f, v)
            return
        if not find_next(f):
            v.status = LOG_FULL
            return
        at_s = arrivals_of(f)[next_row(f)].arrival_s
        if not look(f, at_s) or not advance_until(f, at_s):
            v.status = LOG_FULL
            return
        v.clock_s = at_s
        if v.handed_over == 0 and (at_s >= v.time_limit_s or v.num_decisions >= v.max_decisions):
            v.status = TRUNCATED
            return
        if _next_candidate(f, 0) >= 0:
            v.status = RUNNING_ON
            return
        reject(f)


@inlined
def act(f: Any, v: Any, action: int) -> None:
    """Choose a replica; one that cannot hold the request is counted, and the next one that can takes its place."""
    v.num_decisions += 1
    if v.status != RUNNING_ON:
        return
    within = 0 <= action < f.num_replicas
    v.action = _next_candidate(f, action if within else 0)
    if not within or v.action != action:
        v.num_illegal += 1
    go_on(f, v)


@inlined
def _totals(f: Any, v: Any, out: Any) -> None:
    """(NUM_COMPONENTS,) what happened since the episode began, see `infermax_gym.envs.rewards.Component`."""
    cores = cores_of(f)
    out[:] = 0.0
    for i in range(f.num_replicas):
        s = cores[i]
        out[Component.SYSTEM_REQUEST_S] += s.system_seconds
        out[Component.UNSTARTED_REQUEST_S] += s.unstarted_seconds
        out[Component.BUSY_S] += s.busy_s
        out[Component.NUM_GOOD] += s.num_good
        out[Component.NUM_FINISHED] += s.num_finished
    out[Component.ELAPSED_S] = v.clock_s


@compiled
def totals_now(fleets: Any, lanes: Any, out: Any) -> None:
    """What happened in lane 0 since its episode began; arrays of one element each."""
    _totals(fleets[0], lanes[0], out)


@inlined
def _take_components(f: Any, v: Any, out: Any) -> None:
    """(NUM_COMPONENTS,) what happened since the last call."""
    v.gap_s = v.clock_s - v.last_clock_s
    _totals(f, v, out)
    for k in range(NUM_COMPONENTS):
        total = out[k]
        out[k] = total - v.last[k]
        v.last[k] = total
    v.last_clock_s = v.clock_s


@compiled
def finish_step(f: Any, v: Any, reward_components: Any, out: Any, mask: Any) -> Any:
    """After an action: what happened, and the next observation; returns the lane's status."""
    if v.status == LOG_FULL:
        return LOG_FULL
    if v.status == TRUNCATED and v.handed_over == 0:
        return HANDOVER
    _take_components(f, v, reward_components)
    observe(f, v, out, mask)
    return TRUNCATED if v.status == TERMINATED and v.handed_over else v.status


@compiled
def step_all(fleets: Any, lanes: Any, actions: Any, status: Any, reward_components: Any, out: Any, mask: Any) -> None:
    """One choice in every lane.

    Args:
        fleets: (n,) FLEET.
        lanes: (n,) LANE.
        actions: (n,) int64.
        status: (n,) int64, out.
        reward_components: (n, NUM_COMPONENTS) float64, out.
        out: (n, N) float32, out.
        mask: (n, num_replicas) int8, out.
    """
    for i in range(lanes.size):
        act(fleets[i], lanes[i], actions[i])
        status[i] = finish_step(fleets[i], lanes[i], reward_components[i], out[i], mask[i])


@compiled
def start_all(fleets: Any, lanes: Any) -> None:
    """Bring fresh or paused lanes to their next decision."""
    for i in range(lanes.size):
        go_on(fleets[i], lanes[i])


@compiled
def finish_all(fleets: Any, lanes: Any, status: Any, reward_components: Any, out: Any, mask: Any) -> None:
    """`finish_step` in every lane; arguments as in `step_all`."""
    for i in range(lanes.size):
        status[i] = finish_step(fleets[i], lanes[i], reward_components[i], out[i], mask[i])
