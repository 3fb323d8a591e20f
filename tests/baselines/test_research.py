"""Policies of research schedulers: what they must equal at the ends of their knobs, and what they promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, workloads

TIGHT = EngineConfig(num_kv_tokens=9_000)
NEVER = float(NO_LIMIT)


def run(policy: Policy, workload: Workload, config: EngineConfig, **options: bool) -> SimulationResult:
    return simulate(workload, config, policy, predicted=predictions(policy, workload), **options)


# -- every policy, on everything --------------------------------------------------------------------------------------


@examples(250)
@given(name=st.sampled_from(sorted(POLICIES)), workload=workloads(), config=configs())
def test_invariants_hold_on_hostile_workloads(name: str, workload: Workload, config: EngineConfig) -> None:
    policy = POLICIES[name]
    result = run(policy, workload, config, debug=True)
    assert (result.status != 2).all()
    same_result(run(policy, workload, config), result)


# -- what they promise ---------------------------------------------------------------------------------------------


def test_upper_ends_never_overflow() -> None:
    workload = make_workload("azure-conv", 200, seed=3, rate=10.0)
    config = EngineConfig(num_kv_tokens=9_000, block_size=1, max_num_batched_tokens=16_384)
    for ratio in (1.0, 0.5, 0.1):
        assert run(replace(POLICIES["a-max"], interval_ratio=ratio), workload, config).num_preemptions == 0
    assert run(replace(POLICIES["a-min"], interval_ratio=0.1), workload, config).num_preemptions > 0


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_an_overflow_clears_its_share(share: float) -> None:
    row = replace(POLICIES["alpha-protection"], watermark=0.0, evict_share=share)
    workload = make_workload("azure-conv", 80, seed=4, rate=10.0)
    result = run(row, workload, TIGHT, record_schedule=True)
    assert result.schedule is not None
    running: set[int] = set()
    overflows = 0
    for iteration in result.schedule:
        if iteration.preempted:
            overflows += 1
            assert len(iteration.preempted) >= math.ceil(share * len(running))
        running = (running - set(iteration.preempted)) | {r for r, _ in iteration.batch}
        running -= {r for r in running if result.finish_s[r] <= iteration.end_s}
    assert overflows > 3


def test_iterations_keep_their_time() -> None:
    workload = make_workload("azure-conv", 150, seed=5, rate=3.0)
    row = POLICIES["dynamic-chunk"]
    result = run(row, workload, EngineConfig(num_kv_tokens=30_000), record_schedule=True)
    assert result.schedule is not None
    durations = [i.end_s - i.start_s for i in result.schedule]
    assert max(durations) <= row.max_iteration_s + 1e-12
    assert max(sum(c for _, c in i.batch) for i in result.schedule) > 512


def test_held_decodes_meet_their_deadline_and_let_prompts_pass() -> None:
    workload = make_workload("azure-conv", 300, seed=6, rate=3.5)
    config = EngineConfig(num_kv_tokens=60_000)
    slai = POLICIES["slai"]
    held, plain = run(slai, workload, config), run(replace(slai, hold_iterations=0.0), workload, config)
    assert np.nanmean(held.ttft_s) < np.nanmean(plain.ttft_s)
    assert np.nanmean(held.tpot_s) > np.nanmean(plain.tpot_s)
    assert np.quantile(np.repeat(held.gap_s, held.gap_counts), 0.99) < 1.5 * slai.hold_tpot_s


def test_a_short_job_overtakes_in_a_feedback_queue() -> None:
    """One sequence, a long answer under way: a waiting request's first token does not wait for its end."""
    workload = Workload([0.0, 1.0], [50, 50], [2000, 3])
    config = EngineConfig(num_kv_tokens=10_000, max_num_seqs=1)
    fast, fcfs = run(POLICIES["fastserve"], workload, config), run(POLICIES["vllm-v1"], workload, config)
    assert fast.finish_s[1] < 2.0 < fast.finish_s[0]
    assert fcfs.finish_s[1] > fcfs.finish_s[0]
    assert fast.num_preemptions_of[0] >= 1
    assert fast.num_recomputed_tokens == 0


def test_swaps_beside_the_computation_take_no_longer() -> None:
    workload = make_workload("azure-conv", 100, seed=7, rate=8.0)
    swap = POLICIES["vllm-v0-swap"]
    serial, beside = run(swap, workload, TIGHT), run(replace(swap, overlap_swaps=True), workload, TIGHT)
    assert serial.num_preemptions > 0
    assert beside.busy_s < serial.busy_s


def test_transfers_that_may_lag_for_ever_cost_nothing() -> None:
    workload = make_workload("azure-conv", 150, seed=7, rate=6.0)
    lag, fast = replace(POLICIES["fastserve"], swap_lag_tokens=10**12), replace(TIGHT, swap_tokens_per_s=1e18)
    free = run(lag, workload, TIGHT)
    assert free.num_preemptions > 50
    same_result(free, run(lag, workload, fast))
    bounded = run(POLICIES["fastserve"], workload, TIGHT)
    waited_for = run(replace(POLICIES["fastserve"], swap_lag_tokens=0), workload, TIGHT)
    assert free.busy_s < bounded.busy_s < waited_for.busy_s


def test_who_starves_is_seen_when_looked_for() -> None:
    """A long answer under a stream of short ones is lifted by every look, so with fewer looks it ends later."""
    n = 400
    workload = Workload(np.arange(n) * 0.02, [200] * n, [200, *[20] * (n - 1)])
    config = EngineConfig(num_kv_tokens=2_000, max_num_seqs=4)
    ltr = replace(POLICIES["ltr"], prediction_sigma=0.0, quantum_iterations=10**6)
    always, seldom, never = (
        run(replace(ltr, **knobs), workload, config).finish_s[0]
        for knobs in ({}, {"starvation_every": 1_000}, {"starvation_iterations": 0})
    )
    assert always < seldom <= never


def test_the_guard_ends_starvation() -> None:
    """A long answer under a stream of short ones; only the guard lets it run before they end."""
    n = 400
    workload = Workload(np.arange(n) * 0.02, [200] * n, [200, *[20] * (n - 1)])
    config = EngineConfig(num_kv_tokens=2_000, max_num_seqs=4)
    ltr = replace(POLICIES["ltr"], prediction_sigma=0.0, quantum_iterations=10**6)
    guarded, plain = run(ltr, workload, config), run(replace(ltr, starvation_iterations=0), workload, config)
    assert guarded.finish_s[0] < 0.8 * plain.finish_s[0]


def test_history_learns_how_long_answers_get() -> None:
    """Outputs of 40 tokens under a bound of 2,000: after the first ones, memory fills without preemption."""
    workload = Workload(np.arange(300) * 0.04, [400] * 300, [40] * 300)
    config = EngineConfig(num_kv_tokens=9_000, max_output_tokens=2_000, max_num_batched_tokens=2_048)
    history, bound = run(POLICIES["past-future"], workload, config), run(POLICIES["lightllm-safe"], workload, config)
    assert history.num_preemptions == 0
    assert np.nanmean(history.latency_s) < 0.5 * np.nanmean(bound.latency_s)


def test_online_work_goes_first() -> None:
    workload = make_workload("azure-conv", 200, seed=8, rate=5.0)
    mixed = replace(workload, priority=np.arange(200) % 2)
    result = run(POLICIES["echo-like"], mixed, TIGHT)
    assert np.nanmean(result.ttft_s[::2]) < 0.2 * np.nanmean(result.ttft_s[1::2])
    assert result.num_preemptions_of[::2].sum() < result.num_preemptions_of[1::2].sum()


def test_thresholds_gather_newcomers_and_drop_nobody() -> None:
    workload = make_workload("azure-conv", 101, seed=9, rate=2.0)
    row = replace(POLICIES["wait-threshold"], min_waiting=10)
    result = run(row, workload, EngineConfig(num_kv_tokens=60_000, max_num_batched_tokens=65_536))
    assert result.finished.all()
    starts, counts = np.unique(result.first_scheduled_s, return_counts=True)
    assert (counts[starts < workload.arrival_s[-1]] >= 10).all()
