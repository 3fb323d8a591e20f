"""Observations of `InferMax-v0`: features on a fixed physical scale, written by compiled code.

No statistics of past observations are kept, so a policy means the same thing everywhere. Names:
`infermax_gym.envs.scheduling.layout`.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.group import blocks_held, emitted, resident
from infermax_gym.engine.kernel.memory import requests, running, term_ends_of, theta_of
from infermax_gym.engine.kernel.queue import oldest
from infermax_gym.envs.scales import squash
from infermax_gym.envs.scheduling.lane import chunk_budgets_of, needs_of, slots_of
from infermax_gym.envs.scheduling.layout import (
    ENGINE_FEATURES,
    RUNNING_FEATURES,
    WAITING_FEATURES,
    EngineFeature,
    RunningFeature,
    WaitingFeature,
)
from infermax_gym.envs.scheduling.legal import fill_mask

NUM_WAITING = len(WAITING_FEATURES)
NUM_RUNNING = len(RUNNING_FEATURES)
NUM_ENGINE = len(ENGINE_FEATURES)


@inlined
def _slack(q: Any, waited_s: float, generated: int) -> Any:
    if q.slo_ttft_s <= 0.0 or generated > 0:
        return 1.0
    return max(-1.0, min(1.0, 1.0 - waited_s / q.slo_ttft_s))


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
    needs = needs_of(v)
    shown = v.num_waiting_shown
    # Read once: for all the compiler knows, writing a feature may change the engine's record.
    per_block = 1.0 / s.num_blocks
    clock_s, free, block_size, joined = s.clock_s, s.free_blocks, s.block_size, s.num_running + 1.0
    for i in range(shown):
        q = req[slots[i]]
        at = first + i * NUM_WAITING
        blocks, generated, waited_s = needs[i], q.generated, clock_s - q.arrival_s
        runway = (free - blocks) * block_size / joined
        remaining, slack = _remaining(q, generated), _slack(q, waited_s, generated)
        known, preemptions, on_host, touched = q.prompt + generated, q.preemptions, q.on_host, q.touched
        out[at + WaitingFeature.PRESENT] = 1.0
        out[at + WaitingFeature.WAIT] = squash(waited_s, 10.0)
        out[at + WaitingFeature.KNOWN_TOKENS] = squash(known, 1000.0)
        out[at + WaitingFeature.GENERATED_TOKENS] = squash(generated, 100.0)
        out[at + WaitingFeature.ADMISSION_BLOCKS] = blocks * per_block
        out[at + WaitingFeature.SPARE_BLOCKS] = (free - blocks) * per_block
        out[at + WaitingFeature.PREDICTED_REMAINING] = remaining
        out[at + WaitingFeature.SLO_SLACK] = slack
        out[at + WaitingFeature.PREEMPTIONS] = squash(preemptions, 1.0)
        out[at + WaitingFeature.ON_HOST] = on_host
        out[at + WaitingFeature.TOUCHED] = 1.0 if touched else 0.0
        out[at + WaitingFeature.RUNWAY] = runway / (abs(runway) + 50.0)
    out[first + shown * NUM_WAITING : first + v.num_waiting_slots * NUM_WAITING] = 0.0


@compiled
def _observe_running(s: Any, v: Any, out: Any) -> None:
    first = NUM_ENGINE + v.num_waiting_slots * NUM_WAITING
    req = requests(s)
    run = running(s)
    slots = slots_of(v)
    shown, waits = v.num_running_shown, v.num_waiting_slots
    per_block = 1.0 / s.num_blocks
    clock_s, block_size = s.clock_s, s.block_size
    for i in range(shown):
        q = req[run[slots[waits + i]]]
        at = first + i * NUM_RUNNING
        generated = emitted(s, q)
        computed = resident(s, q)
        held = blocks_held(s, q)
        known, aged_s, preemptions = q.prompt + generated, clock_s - q.arrival_s, q.preemptions
        in_prefill, touched, remaining = q.in_prefill, q.touched, _remaining(q, generated)
        out[at + RunningFeature.PRESENT] = 1.0
        out[at + RunningFeature.AGE] = squash(aged_s, 10.0)
        out[at + RunningFeature.KNOWN_TOKENS] = squash(known, 1000.0)
        out[at + RunningFeature.GENERATED_TOKENS] = squash(generated, 100.0)
        out[at + RunningFeature.HELD_BLOCKS] = held * per_block
        out[at + RunningFeature.LACKING_TOKENS] = squash(known - computed, 512.0) if in_prefill else 0.0
        out[at + RunningFeature.IS_PREFILL] = in_prefill
        out[at + RunningFeature.PREDICTED_REMAINING] = remaining
        out[at + RunningFeature.PREEMPTIONS] = squash(preemptions, 1.0)
        out[at + RunningFeature.NEEDS_BLOCK] = 1.0 if computed + 1 > held * block_size else 0.0
        out[at + RunningFeature.TOUCHED] = 1.0 if touched else 0.0
    out[first + shown * NUM_RUNNING :] = 0.0


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
    out[EngineFeature.FREE_BLOCKS] = s.free_blocks / s.num_blocks
    out[EngineFeature.RUNNING] = s.num_running / s.max_num_seqs
    out[EngineFeature.DECODES] = decodes / s.max_num_seqs
    out[EngineFeature.PREFILLS] = squash(s.num_running_prefills, 2.0)
    out[EngineFeature.WAITING] = squash(s.num_waiting, 16.0)
    out[EngineFeature.WAITING_TOKENS] = squash(s.waiting_tokens, capacity)
    out[EngineFeature.DECODE_DEMAND] = min(1.0, v.demand / max(s.free_blocks, 1))
    out[EngineFeature.DECODE_CONTEXT] = context / capacity
    out[EngineFeature.OLDEST_WAIT] = squash(s.clock_s - req[oldest(s)].arrival_s, 10.0) if s.num_waiting > 0 else 0.0
    out[EngineFeature.UNSTARTED] = squash(s.num_unstarted, 16.0)
    decode_s = 0.0
    if decodes > 0:
        decode_s = batch_seconds(theta, ends, floored, decodes, 0, 0, 0, context, decodes)
    full_s = batch_seconds(theta, ends, floored, budget, budget * budget, 1, 0, 0, 0)
    out[EngineFeature.DECODE_SECONDS] = squash(decode_s, 0.05) if decodes > 0 else 0.0
    out[EngineFeature.FULL_SECONDS] = squash(full_s, 0.05)
    out[EngineFeature.TOKEN_BUDGET] = squash(budget, 1000.0)
    out[EngineFeature.CAPACITY] = squash(capacity, 100_000.0)
    out[EngineFeature.MAX_NUM_SEQS] = squash(s.max_num_seqs, 64.0)
    out[EngineFeature.ARRIVAL_RATE] = squash(s.next_arrival / max(s.clock_s, 1.0), 5.0)
    out[EngineFeature.LEVEL] = chunk_budgets_of(v)[v.level] / budget
    out[EngineFeature.ADMITTED] = squash(v.num_admitted, 2.0)
    out[EngineFeature.PREEMPTED] = squash(v.num_preempted, 2.0)
    out[EngineFeature.PREEMPTION_RATE] = squash(s.num_preemptions / max(s.num_finished, 1), 1.0)


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
