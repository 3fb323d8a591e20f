"""Compiled steps of `InferMaxRouter-v0`: carry out a choice, go on to the next arrival, observe."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.choose import KV_TOKENS, PREFILL_RATE, match_next, start_delay
from infermax_gym.cluster.kernel.events import advance_until, look
from infermax_gym.cluster.kernel.memory import (
    arrivals_of,
    constants_of,
    cores_of,
    matched_of,
    seen_by,
    signals_of,
    slots_of,
)
from infermax_gym.cluster.kernel.run import finish, place, reject
from infermax_gym.cluster.kernel.signals import FREE_KV, RELEASE_RATE, RUNNING, WAITING, WAITING_TOKENS, refresh
from infermax_gym.compile import compiled, inlined
from infermax_gym.envs.lane import LOG_FULL, RUNNING_ON, TERMINATED, TRUNCATED
from infermax_gym.envs.observe import squash
from infermax_gym.envs.rewards import COMPONENTS
from infermax_gym.envs.routing.layout import REPLICA_FEATURES, REQUEST_FEATURES

NUM_REPLICA = len(REPLICA_FEATURES)
NUM_REQUEST = len(REQUEST_FEATURES)
NUM_COMPONENTS = len(COMPONENTS)

LANE = np.dtype(
    [
        ("status", "i8"),
        ("action", "i8"),  # a choice that is not carried out yet, else -1
        ("num_ended", "i8"),  # replicas that have run to their ends, when all requests are routed
        ("time_limit_s", "f8"),
        ("clock_s", "f8"),  # of the decision; at the end, of the last iteration's end
        ("gap_s", "f8"),  # since the decision before
        # totals of the episode
        ("num_decisions", "i8"),
        ("num_illegal", "i8"),
        # as of the last step, for rewards
        ("last_clock_s", "f8"),
        ("last", "f8", (NUM_COMPONENTS,)),
    ],
    align=True,
)


@inlined
def _next_candidate(f: Any, first: int) -> Any:
    """The first candidate for the next request from replica `first` on and around, or -1."""
    q = arrivals_of(f)[f.next_request - f.first_arrival]
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
            place(f, v.action, f.next_request - f.first_arrival)
            v.action = -1
        if f.next_request == f.num_requests:
            _end(f, v)
            return
        at_s = arrivals_of(f)[f.next_request - f.first_arrival].arrival_s
        if not look(f, at_s) or not advance_until(f, at_s):
            v.status = LOG_FULL
            return
        v.clock_s = at_s
        if at_s >= v.time_limit_s:
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
def _take_components(f: Any, v: Any, out: Any) -> None:
    """(6,) what happened since the last call, see `infermax_gym.envs.rewards.COMPONENTS`."""
    cores = cores_of(f)
    v.gap_s = v.clock_s - v.last_clock_s
    out[:] = 0.0
    for i in range(f.num_replicas):
        s = cores[i]
        out[1] += s.system_seconds
        out[2] += s.unstarted_seconds
        out[3] += s.busy_s
        out[4] += s.num_good
        out[5] += s.num_finished
    out[0] = v.clock_s
    for k in range(NUM_COMPONENTS):
        total = out[k]
        out[k] = total - v.last[k]
        v.last[k] = total
    v.last_clock_s = v.clock_s


@compiled
def _observe_replicas(f: Any, prompt: int, mask: Any, out: Any) -> None:
    cores = cores_of(f)
    seen = seen_by(f)
    constants = constants_of(f)
    matched = matched_of(f)
    for i in range(f.num_replicas):
        at = NUM_REQUEST + i * NUM_REPLICA
        max_num_seqs = float(cores[i].max_num_seqs)
        capacity = constants[KV_TOKENS, i]
        free = seen[FREE_KV, i]
        out[at] = squash(seen[WAITING, i], 8.0)
        out[at + 1] = seen[RUNNING, i] / max_num_seqs
        out[at + 2] = squash(seen[WAITING_TOKENS, i], capacity)
        out[at + 3] = squash(start_delay(seen, constants, i, 0), 1.0)
        out[at + 4] = free / capacity
        out[at + 5] = max(-1.0, (free - seen[WAITING_TOKENS, i] - prompt) / capacity)
        out[at + 6] = squash(start_delay(seen, constants, i, prompt), 1.0)
        out[at + 7] = squash(seen[RELEASE_RATE, i], 1000.0)
        out[at + 8] = squash(capacity, 100_000.0)
        out[at + 9] = squash(constants[PREFILL_RATE, i], 10_000.0)
        out[at + 10] = squash(max_num_seqs, 64.0)
        out[at + 11] = f.next_request > 0 and f.last_chosen == i
        out[at + 12] = mask[i]
        out[at + 13] = matched[i] / prompt if prompt > 0 else 0.0


@compiled
def observe(f: Any, v: Any, out: Any, mask: Any) -> None:
    """Write one observation.

    Args:
        f: the fleet's record.
        v: the lane's record.
        out: (NUM_REQUEST + num_replicas * NUM_REPLICA,) float32: request, then replica after replica.
        mask: (num_replicas,) int8, 1 where the replica can hold the request.
    """
    out[:NUM_REQUEST] = 0.0
    prompt = 0
    mask[:] = 1  # nothing is left to decide: every action does nothing
    if v.status == RUNNING_ON:
        q = arrivals_of(f)[f.next_request - f.first_arrival]
        prompt = q.prompt
        match_next(f, q)
        for i in range(f.num_replicas):
            mask[i] = is_candidate(f, i, q)
        mean_gap_s = v.clock_s / max(f.next_request, 1)
        age_s = max(v.clock_s - f.last_snapshot * f.staleness_s, 0.0)  # a snapshot on the grid may round up
        out[0] = squash(prompt, 1000.0)
        out[1] = squash(q.prediction, 100.0) if q.prediction > 0.0 else 0.0
        out[2] = squash(q.slo_ttft_s, 1.0) if q.slo_ttft_s > 0.0 else 1.0
        out[3] = squash(v.gap_s, mean_gap_s) if mean_gap_s > 0.0 else 0.0
        out[4] = squash(f.next_request / max(v.clock_s, 1.0) / f.num_replicas, 4.0)
        out[5] = squash(age_s, 1.0) if f.staleness_s > 0.0 else 0.0
    out[6] = squash(f.num_replicas, 16.0)
    _observe_replicas(f, prompt, mask, out)


@compiled
def finish_step(f: Any, v: Any, reward_components: Any, out: Any, mask: Any) -> Any:
    """After an action: what happened, and the next observation; returns the lane's status."""
    if v.status != LOG_FULL:
        _take_components(f, v, reward_components)
        observe(f, v, out, mask)
    return v.status


@compiled
def step_all(fleets: Any, lanes: Any, actions: Any, status: Any, reward_components: Any, out: Any, mask: Any) -> None:
    """One choice in every lane.

    Args:
        fleets: (n,) FLEET.
        lanes: (n,) LANE.
        actions: (n,) int64.
        status: (n,) int64, out.
        reward_components: (n, 6) float64, out.
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
