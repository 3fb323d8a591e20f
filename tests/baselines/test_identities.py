"""Policies that must agree under some condition, and policies that promise never to preempt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.engine.policy import NO_LIMIT, OnMisfit, PreemptMode, QueueOrder, RunOrder, VictimPool, queue_weights
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, workloads

TIGHT = EngineConfig(num_kv_tokens=9_000)
NEVER = float(NO_LIMIT)
ENDLESS = EngineConfig(num_kv_tokens=10**7, max_num_batched_tokens=10**6, max_num_seqs=10**4)


def run(policy: Policy, workload: Workload, config: EngineConfig) -> SimulationResult:
    return simulate(workload, config, policy, predicted=predictions(policy, workload), record_schedule=True)


def schedule(policy: Policy, workload: Workload, config: EngineConfig) -> list[tuple[object, ...]]:
    """Start, end, members (in no order) and victims of every iteration."""
    result = run(policy, workload, config)
    assert result.schedule is not None
    return [(i.start_s, i.end_s, sorted(i.batch), i.preempted) for i in result.schedule]


def same(first: Policy, second: Policy, workload: Workload, config: EngineConfig) -> None:
    ours = run(first, workload, config)
    theirs = run(second, workload, config)
    assert ours.schedule == theirs.schedule
    same_result(ours, theirs)


NO_EVICT = ["infermax-vllm-noevict", "vllm-noevict-oracle", "sarathi-noevict-oracle", "orca", "fastertransformer",
            "trt-no-evict"]  # fmt: skip


@examples(60)
@given(workload=workloads(), config=configs())
def test_rows_that_reserve_never_preempt(workload: Workload, config: EngineConfig) -> None:
    bound = int(workload.num_output_tokens.max())
    config = replace(config, max_model_len=None, max_output_tokens=bound)
    for name in NO_EVICT:
        assert run(POLICIES[name], workload, config).num_preemptions == 0, name


@pytest.mark.parametrize("name", NO_EVICT)
def test_rows_that_reserve_never_preempt_on_real_traffic(name: str) -> None:
    workload = make_workload("azure-conv", 100, seed=5, rate=10.0)
    assert run(POLICIES[name], workload, TIGHT).num_preemptions == 0


@examples(100)
@given(workload=workloads(), config=configs())
def test_looking_ahead_with_exact_lengths_never_preempts(workload: Workload, config: EngineConfig) -> None:
    """With blocks of one token, and no prompt cut: a later chunk delays a request, and with it the peak."""
    config = replace(config, block_size=1, max_num_batched_tokens=4096)
    for name in ("mc-sf-oracle", "mc-fcfs-oracle"):
        assert run(POLICIES[name], workload, config).num_preemptions == 0, name


def test_looking_ahead_may_fail_for_cut_prompts() -> None:
    """The peak is that of all decoding in lock-step from now; request 1 begins late and overlaps with the end of 0."""
    workload, config = Workload([0.0, 0.0], [2, 6], [20, 9]), EngineConfig(num_kv_tokens=26, block_size=1)
    for budget, preempts in ((512, False), (2, True)):
        result = run(POLICIES["mc-fcfs-oracle"], workload, replace(config, max_num_batched_tokens=budget))
        assert (result.num_preemptions > 0) == preempts


@examples(60)
@given(workload=workloads())
def test_v0_hybrid_is_sarathi_without_limits(workload: Workload) -> None:
    assert schedule(POLICIES["vllm-v0-hybrid"], workload, ENDLESS) == schedule(POLICIES["sarathi"], workload, ENDLESS)


def test_v0_hybrid_is_sarathi_without_limits_on_real_traffic() -> None:
    workload = make_workload("azure-conv", 200, seed=1, rate=10.0)
    assert schedule(POLICIES["vllm-v0-hybrid"], workload, ENDLESS) == schedule(POLICIES["sarathi"], workload, ENDLESS)


CHUNKING = [row for row in POLICIES.values() if row.chunking and row.max_iteration_s == 0.0]


@pytest.mark.parametrize("policy", CHUNKING, ids=lambda policy: policy.name)
def test_chunking_is_idle_when_the_budget_exceeds_everything(policy: Policy) -> None:
    workload = make_workload("azure-conv", 60, seed=2, rate=8.0)
    total = int((workload.num_prompt_tokens + workload.num_output_tokens).sum())
    config = replace(TIGHT, max_num_batched_tokens=total)
    policy = replace(policy, max_num_batched_tokens=None, max_chunk=NO_LIMIT)
    whole = replace(policy, chunking=False)
    assert schedule(policy, workload, config) == schedule(whole, workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_one_class_of_deadlines_is_first_come_first_served(workload: Workload, config: EngineConfig) -> None:
    for limit in (np.inf, 2.0):
        same = replace(workload, ttft_slo_s=np.full(len(workload), limit), arrival_s=np.round(workload.arrival_s, 6))
        assert schedule(POLICIES["edf"], same, config) == schedule(POLICIES["sarathi"], same, config)


@examples(60)
@given(workload=workloads(), config=configs(), priority=st.integers(0, 3))
def test_one_priority_is_first_come_first_served(workload: Workload, config: EngineConfig, priority: int) -> None:
    """Unless requests arrive together: of those with the largest arrival, vLLM evicts the first, not the last."""
    n = len(workload)
    same = replace(workload, priority=np.full(n, priority), arrival_s=workload.arrival_s + 0.001 * np.arange(n))
    assert schedule(POLICIES["vllm-v1-priority"], same, config) == schedule(POLICIES["vllm-v1"], same, config)


def test_urgent_requests_overtake() -> None:
    workload = make_workload("azure-conv", 100, seed=3, rate=10.0)
    mixed = replace(workload, priority=np.arange(100) % 2)
    result = run(POLICIES["vllm-v1-priority"], mixed, TIGHT)
    urgent, other = result.ttft_s[::2], result.ttft_s[1::2]
    assert np.nanmean(urgent) < 0.5 * np.nanmean(other)


@pytest.mark.parametrize("name", ["shortest-prompt-first", "hrrn"])
def test_equal_prompts_are_served_in_order_of_arrival(name: str) -> None:
    """As long as nobody is preempted: generated tokens count as work."""
    workload = make_workload("azure-conv", 200, seed=4, rate=30.0)
    equal = replace(workload, num_prompt_tokens=np.full(200, 800))
    config = EngineConfig(num_kv_tokens=10**6)
    assert schedule(POLICIES[name], equal, config) == schedule(POLICIES["sarathi"], equal, config)


@pytest.mark.parametrize("name", ["sjf", "srpt"])
@pytest.mark.parametrize("sigma", ["0.3", "0.6"])
def test_a_noisy_row_with_exact_predictions_is_the_oracle(name: str, sigma: str) -> None:
    workload = make_workload("azure-conv", 80, seed=5, rate=10.0)
    truth = workload.num_output_tokens.astype(float)
    noisy = simulate(workload, TIGHT, POLICIES[f"{name}-noisy-{sigma}"], predicted=truth, record_schedule=True)
    assert noisy.schedule == run(POLICIES[f"{name}-oracle"], workload, TIGHT).schedule


def test_best_fit_that_skips_nobody_is_sarathi() -> None:
    workload = make_workload("azure-conv", 80, seed=6, rate=10.0)
    best_fit = POLICIES["best-fit"]
    sarathi = schedule(POLICIES["sarathi"], workload, TIGHT)
    assert schedule(replace(best_fit, max_skips=0), workload, TIGHT) == sarathi
    assert schedule(replace(best_fit, on_misfit=OnMisfit.STOP), workload, TIGHT) == sarathi
    assert schedule(best_fit, workload, TIGHT) != sarathi


def test_without_memory_pressure_memory_rules_make_no_difference() -> None:
    workload = make_workload("azure-conv", 150, seed=7, rate=6.0)
    config = EngineConfig(num_kv_tokens=10**7, max_num_seqs=10**4)
    sarathi = schedule(POLICIES["sarathi"], workload, config)
    for name in ("infermax-sarathi", "infermax-srf", "srf", "srf-histogram", "fcfs-headroom", "best-fit",
                 "mc-fcfs-oracle", "sarathi-noevict-oracle"):  # fmt: skip
        assert [i[:2] for i in schedule(POLICIES[name], workload, config)] == [i[:2] for i in sarathi], name


def test_more_headroom_means_fewer_preemptions() -> None:
    workload = make_workload("azure-conv", 200, seed=8, rate=10.0)
    counts = [
        run(replace(POLICIES["fcfs-headroom"], headroom_tokens=h), workload, TIGHT).num_preemptions
        for h in (0.0, 50.0, 400.0)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_exact_lengths_help() -> None:
    """On the same requests, shortest job first with the truth beats first come, first served on the mean."""
    workload = make_workload("azure-conv", 300, seed=9, rate=10.0)
    means = {
        name: float(np.nanmean(run(POLICIES[name], workload, TIGHT).latency_s))
        for name in ("sarathi", "sjf-oracle", "mc-sf-oracle", "mc-fcfs-oracle")
    }
    assert means["sjf-oracle"] < means["sarathi"]
    assert means["mc-sf-oracle"] < means["mc-fcfs-oracle"] < means["sarathi"]


# -- policies of papers at the ends of their knobs


@examples(60)
@given(workload=workloads(), config=configs())
def test_trail_that_pins_everybody_never_displaces(workload: Workload, config: EngineConfig) -> None:
    trail = POLICIES["trail-oracle"]
    same(replace(trail, pin_after=0.0), replace(trail, pin_after=NEVER, preempt_for_waiting=False), workload, config)


@examples(60)
@given(workload=workloads(), max_num_seqs=st.integers(1, 4))
def test_trail_that_pins_everybody_is_shortest_job_first(workload: Workload, max_num_seqs: int) -> None:
    config = EngineConfig(num_kv_tokens=10**6, max_num_batched_tokens=10**5, max_num_seqs=max_num_seqs)
    trail = run(replace(POLICIES["trail-oracle"], pin_after=0.0), workload, config)
    sjf = run(POLICIES["sjf-oracle"], workload, config)
    np.testing.assert_array_equal(trail.finish_s, sjf.finish_s)
    assert trail.num_preemptions == 0


@examples(60)
@given(workload=workloads(), config=configs())
def test_trail_that_pins_late_is_srpt(workload: Workload, config: EngineConfig) -> None:
    same(replace(POLICIES["trail-oracle"], pin_after=1e9), POLICIES["srpt-oracle"], workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_exact_predictions_need_no_refresh(workload: Workload, config: EngineConfig) -> None:
    trail = replace(POLICIES["trail"], prediction_sigma=0.0, refresh_tokens=3)
    same(trail, replace(trail, refresh_tokens=0), workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_one_tenant_is_first_come_first_served(workload: Workload, config: EngineConfig) -> None:
    alone = replace(workload, tenant=np.zeros(len(workload)))
    for name in ("vtc", "vtc-sarathi"):
        fcfs = replace(POLICIES[name], queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(arrival_s=1.0))
        same(POLICIES[name], fcfs, alone, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_exact_intervals_are_mc_sf(workload: Workload, config: EngineConfig) -> None:
    exact = replace(POLICIES["a-max"], interval_ratio=1.0)
    same(exact, POLICIES["mc-sf-oracle"], workload, config)
    whole = replace(config, block_size=1, max_num_batched_tokens=4096)
    same(replace(POLICIES["a-min"], interval_ratio=1.0), POLICIES["mc-sf-oracle"], workload, whole)


@examples(60)
@given(workload=workloads(), config=configs(), threshold=st.sampled_from([0, 1]))
def test_waiting_for_one_is_not_waiting(workload: Workload, config: EngineConfig, threshold: int) -> None:
    same(replace(POLICIES["wait-threshold"], min_waiting=threshold), POLICIES["sarathi"], workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_endless_quanta_and_patience_are_first_come_first_served(workload: Workload, config: EngineConfig) -> None:
    fastserve = replace(POLICIES["fastserve"], quantum_s=1e9, starvation_s=0.0)
    fcfs = replace(fastserve, quantum_s=0.0, skip_join=False, queue_weights=queue_weights(arrival_s=1.0))
    same(fastserve, fcfs, workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_a_token_that_is_always_due_is_not_held(workload: Workload, config: EngineConfig) -> None:
    """The first iteration has no decodes, so the mean is known when one could be held."""
    slai = POLICIES["slai"]
    same(replace(slai, hold_iterations=1e12), replace(slai, hold_iterations=0.0), workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_a_generous_time_limit_is_none(workload: Workload, config: EngineConfig) -> None:
    chunks = POLICIES["dynamic-chunk"]
    same(replace(chunks, max_iteration_s=1e9), replace(chunks, max_iteration_s=0.0), workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_the_cheaper_of_swap_and_recompute(workload: Workload, config: EngineConfig) -> None:
    row = replace(POLICIES["cacheopt-like"], history_quantile=0.1)
    recompute, swap, cheaper = (replace(row, preempt_mode=mode) for mode in PreemptMode)
    same(cheaper, swap, workload, replace(config, swap_tokens_per_s=1e12))
    same(cheaper, recompute, workload, replace(config, swap_tokens_per_s=1e-12))


@examples(60)
@given(workload=workloads(), config=configs())
def test_margins_and_clearing_are_idle_where_nothing_overflows(workload: Workload, config: EngineConfig) -> None:
    """Exact lengths, blocks of one token, whole prompts: MC-SF looks ahead, and never clears anything."""
    whole = replace(config, block_size=1, max_num_batched_tokens=4096)
    for name in ("mc-sf-alpha", "mc-sf-beta"):
        exact = replace(POLICIES[name], peak_margin=0.0, prediction_sigma=0.0)
        same(exact, POLICIES["mc-sf-oracle"], workload, whole)
    no_share = replace(POLICIES["mc-sf-beta"], evict_share=0.0, victim_pool=VictimPool.UNVISITED)
    same(no_share, POLICIES["mc-sf-noisy-0.6"], workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_knobs_at_their_ends_leave_the_engine_they_belong_to(workload: Workload, config: EngineConfig) -> None:
    same(replace(POLICIES["vllm-v0-delay"], delay_factor=0.0), POLICIES["vllm-v0"], workload, config)
    same(replace(POLICIES["vllm-v1-long-prefill"], max_chunk=NO_LIMIT), POLICIES["vllm-v1"], workload, config)
    slai = replace(POLICIES["slai"], queue_weights=queue_weights(arrival_s=1.0))
    if run(slai, workload, config).num_preemptions == 0:  # a preempted one goes in front of all, or to its place
        same(POLICIES["slai-fcfs"], slai, workload, config)


@examples(60)
@given(workload=workloads(), config=configs())
def test_ranked_by_arrival_is_first_come_first_served(workload: Workload, config: EngineConfig) -> None:
    """Nobody who waits came before anybody who runs, unless somebody was evicted."""
    rank = POLICIES["rank-arrival"]
    fcfs = replace(rank, queue_order=QueueOrder.FIFO, queue_weights=queue_weights(), run_order=RunOrder.ARRIVAL,
                   preempt_for_waiting=False)  # fmt: skip
    if run(fcfs, workload, config).num_preemptions == 0:
        same(rank, fcfs, workload, config)


@examples(60)
@given(workload=workloads(), config=configs(), prompt=st.integers(1, 30))
def test_equal_prompts_make_totals_outputs(workload: Workload, config: EngineConfig, prompt: int) -> None:
    """As long as nobody is preempted: known tokens count what has been generated, too."""
    equal = replace(workload, num_prompt_tokens=np.full(len(workload), prompt))
    if run(POLICIES["sjf-oracle"], equal, config).num_preemptions == 0:
        same(POLICIES["sjf-total-oracle"], POLICIES["sjf-oracle"], equal, config)
