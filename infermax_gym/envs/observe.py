"""Observations of `InferMax-v0`: features on a fixed physical scale, written by compiled code.

squash(x, half) = x / (x + half) maps 0 .. infinity to 0 .. 1 and is one half at `half`. No statistics of past
observations are kept, so a policy means the same thing everywhere. Names: `infermax_gym.envs.layout`.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.group import blocks_held, emitted, resident
from infermax_gym.engine.kernel.memory import requests, running, term_ends_of, theta_of
from infermax_gym.engine.kernel.queue import oldest
from infermax_gym.envs.kernel import act, admission_blocks, fill_mask, take_components
from infermax_gym.envs.lane import LOG_FULL, chunk_budgets_of, slots_of
from infermax_gym.envs.layout import ENGINE_FEATURES, RUNNING_FEATURES, WAITING_FEATURES

NUM_WAITING = len(WAITING_FEATURES)
NUM_RUNNING = len(RUNNING_FEATURES)
NUM_ENGINE = len(ENGINE_FEATURES)


@inlined
def squash(x: float, half: float) -> Any:
    """Map 0 .. infinity to 0 .. 1: x / (x + half)."""
    return x / (x + half)


@inlined
def _slack(s: Any, q: Any, generated: int) -> Any:
    if q.slo_ttft_s <= 0.0 or generated > 0:
        return 1.0
    return max(-1.0, min(1.0, 1.0 - (s.clock_s - q.arrival_s) / q.slo_ttft_s))


@inlined
def _remaining(q: Any, generated: int) -> Any:
    if q.prediction <= 0.0:
        return 0.0
    return squash(max(q.prediction - generated, 1.0), 100.0)


@compiled
def _observe_waiting(s: Any, v: Any, out: Any) -> None:
    first = NUM_ENGINE
    req = requests(s)
    slots = slots_of(v)
    per_block = 1.0 / s.num_blocks
    for i in range(v.num_waiting_shown):
        r = slots[i]
        q = req[r]
        at = first + i * NUM_WAITING
        blocks = admission_blocks(s, r)
        out[at] = 1.0
        out[at + 1] = squash(s.clock_s - q.arrival_s, 10.0)
        out[at + 2] = squash(q.prompt + q.generated, 1000.0)
        out[at + 3] = squash(q.generated, 100.0)
        out[at + 4] = blocks * per_block
        out[at + 5] = (s.free_blocks - blocks) * per_block
        out[at + 6] = _remaining(q, q.generated)
        out[at + 7] = _slack(s, q, q.generated)
        out[at + 8] = squash(q.preemptions, 1.0)
        out[at + 9] = q.on_host
        out[at + 10] = 1.0 if q.touched else 0.0
        runway = (s.free_blocks - blocks) * s.block_size / (s.num_running + 1.0)
        out[at + 11] = runway / (abs(runway) + 50.0)
    out[first + v.num_waiting_shown * NUM_WAITING : first + v.num_waiting_slots * NUM_WAITING] = 0.0


@compiled
def _observe_running(s: Any, v: Any, out: Any) -> None:
    first = NUM_ENGINE + v.num_waiting_slots * NUM_WAITING
    req = requests(s)
    run = running(s)
    slots = slots_of(v)
    per_block = 1.0 / s.num_blocks
    for i in range(v.num_running_shown):
        q = req[run[slots[v.num_waiting_slots + i]]]
        at = first + i * NUM_RUNNING
        generated = emitted(s, q)
        computed = resident(s, q)
        held = blocks_held(s, q)
        known = q.prompt + generated
        out[at] = 1.0
        out[at + 1] = squash(s.clock_s - q.arrival_s, 10.0)
        out[at + 2] = squash(known, 1000.0)
        out[at + 3] = squash(generated, 100.0)
        out[at + 4] = held * per_block
        out[at + 5] = squash(known - computed, 512.0) if q.in_prefill else 0.0
        out[at + 6] = q.in_prefill
        out[at + 7] = _remaining(q, generated)
        out[at + 8] = squash(q.preemptions, 1.0)
        out[at + 9] = 1.0 if computed + 1 > held * s.block_size else 0.0
        out[at + 10] = 1.0 if q.touched else 0.0
    out[first + v.num_running_shown * NUM_RUNNING :] = 0.0


@compiled
def observe_engine(s: Any, v: Any, out: Any) -> None:
    """(len(ENGINE_FEATURES),) float32, the engine as a whole."""
    req = requests(s)
    theta = theta_of(s)
    ends = term_ends_of(s)
    budget = s.token_budget
    capacity = float(s.num_blocks * s.block_size)
    decodes = s.num_running - s.num_running_prefills
    floored = s.floor_context != 0
    context = s.group_context
    out[0] = s.free_blocks / s.num_blocks
    out[1] = s.num_running / s.max_num_seqs
    out[2] = decodes / s.max_num_seqs
    out[3] = squash(s.num_running_prefills, 2.0)
    out[4] = squash(s.num_waiting, 16.0)
    out[5] = squash(s.waiting_tokens, capacity)
    out[6] = min(1.0, v.demand / max(s.free_blocks, 1))
    out[7] = context / capacity
    out[8] = squash(s.clock_s - req[oldest(s)].arrival_s, 10.0) if s.num_waiting > 0 else 0.0
    out[9] = squash(s.num_unstarted, 16.0)
    out[10] = 0.0
    if decodes > 0:
        out[10] = squash(batch_seconds(theta, ends, floored, decodes, 0, 0, 0, context, decodes), 0.05)
    out[11] = squash(batch_seconds(theta, ends, floored, budget, budget * budget, 1, 0, 0, 0), 0.05)
    out[12] = squash(budget, 1000.0)
    out[13] = squash(capacity, 100_000.0)
    out[14] = squash(s.max_num_seqs, 64.0)
    out[15] = squash(s.next_arrival / max(s.clock_s, 1.0), 5.0)
    out[16] = chunk_budgets_of(v)[v.level] / budget
    out[17] = squash(v.num_admitted, 2.0)
    out[18] = squash(v.num_preempted, 2.0)
    out[19] = squash(s.num_preemptions / max(s.num_finished, 1), 1.0)


@compiled
def observe(s: Any, v: Any, out: Any, mask: Any) -> None:
    """Write one observation.

    Args:
        s: the engine's record.
        v: the lane's record; its slots are up to date.
        out: (N,) float32: engine features, waiting slots, running slots, one after another.
        mask: (num_actions,) int8.
    """
    observe_engine(s, v, out)
    _observe_waiting(s, v, out)
    _observe_running(s, v, out)
    fill_mask(s, v, mask)


@compiled
def finish_step(s: Any, v: Any, reward_components: Any, out: Any, mask: Any) -> Any:
    """After an action: what happened, and the next observation; returns the lane's status.

    A paused lane (its log is full) has neither yet.
    """
    if v.status != LOG_FULL:
        take_components(s, v, reward_components)
        observe(s, v, out, mask)
    return v.status


@compiled
def step_one(engines: Any, lanes: Any, action: int, reward_components: Any, out: Any, mask: Any) -> Any:
    """`step_all` for the one lane of a scalar environment; returns the lane's status.

    Takes arrays of one element each: Python hands an array over far faster than a record.
    """
    act(engines[0], lanes[0], action)
    return finish_step(engines[0], lanes[0], reward_components[0], out[0], mask[0])


@compiled
def step_all(engines: Any, lanes: Any, actions: Any, status: Any, reward_components: Any, out: Any, mask: Any) -> None:
    """One action on every lane.

    Args:
        engines: (n,) CORE.
        lanes: (n,) LANE.
        actions: (n,) int64.
        status: (n,) int64, out.
        reward_components: (n, 6) float64, out.
        out: (n, N) float32, out.
        mask: (n, num_actions) int8, out.
    """
    for i in range(lanes.size):
        act(engines[i], lanes[i], actions[i])
        status[i] = finish_step(engines[i], lanes[i], reward_components[i], out[i], mask[i])
