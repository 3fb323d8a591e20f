"""Metrics: every aggregate is what the per-request records, and the schedule itself, say."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import (
    EngineConfig,
    Policy,
    SimulationResult,
    Slo,
    distribution,
    meets_slo,
    simulate,
    summarize,
)
from infermax_gym.engine.policy import PreemptMode
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import pooled_gaps
from tests.engine.strategies import configs, examples, policies, predictions, workloads

NONE = {"mean": None, "p50": None, "p90": None, "p99": None, "max": None}


def plain(samples: np.ndarray) -> dict[str, float]:
    figures = {f"p{q}": float(np.percentile(samples, q)) for q in (50, 90, 99)}
    return {"mean": float(samples.mean()), **figures, "max": float(samples.max())}


def assert_same_figures(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == (None if value is None else pytest.approx(value, rel=1e-12, abs=1e-300)), name


COUNTED = st.lists(st.tuples(st.floats(0.0, 1e6), st.integers(1, 50)), min_size=1, max_size=30)


@examples(300)
@given(COUNTED)
def test_weighted_percentiles_are_those_of_the_expanded_sample(pairs: list[tuple[float, int]]) -> None:
    samples, counts = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], np.int32)
    assert_same_figures(distribution(samples, counts), plain(np.repeat(samples, counts)))
    assert_same_figures(distribution(samples), plain(samples))
    assert_same_figures(distribution(samples, np.ones_like(counts)), plain(samples))


def test_no_sample() -> None:
    assert distribution(np.zeros(0)) == NONE
    assert distribution(np.zeros(0), np.zeros(0, np.int64)) == NONE


def test_counts_beyond_32_bits() -> None:
    counts = np.full(3, 2**31 - 1, np.int32)
    assert distribution(np.array([1.0, 2.0, 3.0]), counts)["p50"] == 2.0


def test_the_mean_depends_on_no_number_of_threads() -> None:
    code = (
        "import numpy as np; from infermax_gym.engine.metrics import distribution; "
        "print(distribution(np.random.default_rng(0).random(20_001), np.arange(20_001) % 7 + 1)['mean'])"
    )
    means = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads)})
        for threads in (1, 2)
    }
    assert len(means) == 1


def token_times(result: SimulationResult) -> list[list[float]]:
    """When each request's tokens appeared, from nothing but the schedule."""
    assert result.schedule is not None
    workload = result.workload
    resident = [0] * len(workload)
    times: list[list[float]] = [[] for _ in range(len(workload))]
    for iteration in result.schedule:
        for r in iteration.preempted:
            resident[r] = 0
        for r, tokens in iteration.batch:
            resident[r] += tokens
            if resident[r] == workload.num_prompt_tokens[r] + len(times[r]):
                times[r].append(iteration.end_s)
    return times


@examples(200)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_records_and_summary_follow_from_the_schedule(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    policy = replace(policy, preempt_mode=PreemptMode.RECOMPUTE)
    predicted = data.draw(predictions(workload))
    result = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    schedule = result.schedule
    assert schedule is not None
    times = token_times(result)

    # Per request.
    served = [r for r in range(len(workload)) if result.status[r] == 0]
    for r in range(len(workload)):
        assert len(times[r]) == result.num_generated_tokens[r]
        if r in served:
            assert len(times[r]) == workload.num_output_tokens[r]
            assert (result.first_token_s[r], result.finish_s[r]) == (times[r][0], times[r][-1])
            assert result.first_scheduled_s[r] == min(i.start_s for i in schedule if r in dict(i.batch))
        else:
            assert result.status[r] == 1
            assert np.isnan([result.first_scheduled_s[r], result.first_token_s[r], result.finish_s[r]]).all()
        assert sum(i.preempted.count(r) for i in schedule) == result.num_preemptions_of[r]
    gaps = np.sort(np.concatenate([np.diff(t) for t in times])) if served else np.zeros(0)
    np.testing.assert_allclose(pooled_gaps(result), gaps, rtol=0, atol=1e-12 * max(1.0, result.makespan_s))

    # Totals.
    assert result.num_iterations == len(schedule)
    assert result.num_preemptions == result.num_preemptions_of.sum()
    assert result.num_recomputed_tokens == result.num_recomputed_tokens_of.sum()
    assert result.busy_s == pytest.approx(sum(i.end_s - i.start_s for i in schedule), rel=1e-9, abs=1e-12)
    granted = sum(tokens for i in schedule for _, tokens in i.batch)
    needed = (workload.num_prompt_tokens + workload.num_output_tokens - 1)[served].sum()
    assert granted == needed + result.num_recomputed_tokens

    # Summary.
    figures = summarize(result, config)
    assert figures["num_requests"] == len(workload)
    assert figures["num_finished"] == len(served)
    assert figures["num_rejected"] == len(workload) - len(served)
    if not served:
        assert figures["ttft_s"] == figures["latency_s"] == NONE
        assert figures["makespan_s"] is figures["throughput_tokens_per_s"] is figures["kv_utilization"] is None
        return
    makespan_s = max(times[r][-1] for r in served)
    assert figures["makespan_s"] == makespan_s
    arrival_s = workload.arrival_s
    assert_same_figures(figures["ttft_s"], plain(np.array([times[r][0] - arrival_s[r] for r in served])))
    assert_same_figures(figures["latency_s"], plain(np.array([times[r][-1] - arrival_s[r] for r in served])))
    tpot_s = [(times[r][-1] - times[r][0]) / (len(times[r]) - 1) for r in served if len(times[r]) > 1]
    assert_same_figures(figures["tpot_s"], plain(np.array(tpot_s)) if tpot_s else NONE)
    tokens = workload.num_output_tokens[served].sum()
    assert figures["throughput_tokens_per_s"] == pytest.approx(tokens / makespan_s)
    assert figures["throughput_requests_per_s"] == pytest.approx(len(served) / makespan_s)
    assert 0.0 <= figures["kv_utilization"] <= 1.0 + 1e-12
    if not np.isfinite([workload.ttft_slo_s, workload.tpot_slo_s]).any():
        assert figures["goodput_per_s"] is figures["slo_attainment"] is None


def test_kv_utilization_by_hand() -> None:
    """One request of 4 prompt and 3 output tokens in blocks of 4: 1 block for the prefill, then 2 for each decode."""
    config = EngineConfig(num_kv_tokens=16, block_size=4)
    result = simulate(Workload([1.0], [4], [3]), config, POLICIES["sarathi"], record_schedule=True)
    assert result.schedule is not None
    prefill_s, first_s, second_s = (i.end_s - i.start_s for i in result.schedule)
    used = (1 * prefill_s + 2 * first_s + 2 * second_s) / (4 * result.makespan_s)
    assert result.kv_utilization == pytest.approx(used, rel=1e-12)
    assert result.makespan_s == pytest.approx(1.0 + prefill_s + first_s + second_s)


def made_up(workload: Workload, first_token_s: list[float], finish_s: list[float]) -> SimulationResult:
    """A result with these times; nan for a finish means unfinished, nan for both rejected."""
    n = len(workload)
    first, finish = np.array(first_token_s), np.array(finish_s)
    status = np.where(np.isfinite(finish), 0, np.where(np.isnan(first), 1, 2)).astype(np.int8)
    zeros = np.zeros(n, np.int64)
    return SimulationResult(
        workload=workload, first_scheduled_s=first, first_token_s=first, finish_s=finish, num_preemptions_of=zeros,
        num_recomputed_tokens_of=zeros, num_generated_tokens=workload.num_output_tokens * (status == 0), status=status,
        gap_s=np.zeros(0), gap_counts=np.zeros(0, np.int32), makespan_s=float(np.nanmax(finish)), busy_s=1800.0,
        num_iterations=1, num_decisions=1, num_preemptions=0, num_recomputed_tokens=0, kv_utilization=0.5,
    )  # fmt: skip


# Finished: 11 tokens, TTFT 1, TPOT 0.1, latency 2; 1 token, TTFT 3; 11 tokens, TTFT 2, TPOT 0.4, latency 6.
# Then one that is rejected and one that never finishes.
MADE_UP = made_up(
    Workload([0.0, 1.0, 2.0, 3.0, 4.0], [10] * 5, [11, 1, 11, 5, 5]),
    [1.0, 4.0, 4.0, math.nan, 4.5],
    [2.0, 4.0, 8.0, math.nan, math.nan],
)


def test_times_of_requests() -> None:
    np.testing.assert_array_equal(MADE_UP.ttft_s, [1.0, 3.0, 2.0, math.nan, 0.5])
    np.testing.assert_allclose(MADE_UP.tpot_s, [0.1, math.nan, 0.4, math.nan, math.nan])
    np.testing.assert_array_equal(MADE_UP.latency_s, [2.0, 3.0, 6.0, math.nan, math.nan])


@pytest.mark.parametrize(
    ("slo", "met"),
    [
        (Slo(ttft_s=2.0), [1, 0, 1, 0, 0]),
        (Slo(ttft_s=0.9), [0, 0, 0, 0, 0]),
        (Slo(tpot_s=0.2), [1, 1, 0, 0, 0]),
        (Slo(latency_s=3.0), [1, 1, 0, 0, 0]),
        (Slo(ttft_s=2.0, tpot_s=0.5, latency_s=5.0), [1, 0, 0, 0, 0]),
        (Slo(ttft_s=100.0), [1, 1, 1, 0, 0]),
    ],
)
def test_who_meets_the_objectives(slo: Slo, met: list[int]) -> None:
    """A single token has no TPOT to miss; rejected and unfinished requests miss everything."""
    np.testing.assert_array_equal(meets_slo(MADE_UP, slo), np.array(met, bool))
    figures = summarize(MADE_UP, EngineConfig(), slo)
    assert figures["goodput_per_s"] == pytest.approx(sum(met) / 8.0)
    assert figures["slo_attainment"] == pytest.approx(sum(met) / 5)


def test_nobody_has_objectives() -> None:
    assert meets_slo(MADE_UP, None) is None
    assert meets_slo(MADE_UP, Slo()) is None


def test_own_limits_come_before_the_common_ones() -> None:
    own = replace(MADE_UP.workload, ttft_slo_s=[0.5, 5.0, np.inf, 9.0, 9.0], tpot_slo_s=[np.inf, 1e-9, 0.5, 9.0, 9.0])
    result = replace(MADE_UP, workload=own)
    np.testing.assert_array_equal(meets_slo(result, None), [False, True, True, False, False])
    np.testing.assert_array_equal(meets_slo(result, Slo(ttft_s=2.0, tpot_s=0.01)), [False, True, True, False, False])
    np.testing.assert_array_equal(meets_slo(result, Slo(ttft_s=1.9)), [False, True, False, False, False])
    np.testing.assert_array_equal(meets_slo(result, Slo(latency_s=2.5)), [False, False, False, False, False])


def test_slo_classes_of_a_mixture() -> None:
    workload = make_workload("mixed", 300, seed=3, rate=4.0)
    result = simulate(workload, EngineConfig(num_kv_tokens=60_000), POLICIES["sarathi"])
    met = meets_slo(result, None)
    assert met is not None
    expected = [
        result.ttft_s[r] <= workload.ttft_slo_s[r]
        and (workload.num_output_tokens[r] == 1 or result.tpot_s[r] <= workload.tpot_slo_s[r])
        for r in range(len(workload))
    ]
    np.testing.assert_array_equal(met, expected)
    assert 0 < met.sum() < len(workload), "the example should tell requests apart"


def test_rejected_requests_count_as_misses() -> None:
    config = EngineConfig(num_kv_tokens=160)
    result = simulate(Workload([0.0, 0.0], [20, 1000], [2, 2]), config, POLICIES["sarathi"])
    figures = summarize(result, config, Slo(ttft_s=60.0))
    assert (figures["num_finished"], figures["num_rejected"], figures["slo_attainment"]) == (1, 1, 0.5)
    assert figures["throughput_tokens_per_s"] == pytest.approx(2 / result.makespan_s)


def test_gpu_cost() -> None:
    """Half an hour busy on four devices at 2.5 dollars an hour."""
    priced = replace(EngineConfig().cost, num_devices=4, price_usd_per_device_hour=2.5)
    assert summarize(MADE_UP, EngineConfig(cost=priced))["gpu_cost_usd"] == pytest.approx(5.0)
    assert summarize(MADE_UP, EngineConfig())["gpu_cost_usd"] is None


def test_the_cost_is_of_busy_seconds_not_of_the_makespan() -> None:
    """Two requests an hour apart cost twice what one costs."""
    priced = EngineConfig(cost=replace(EngineConfig().cost, price_usd_per_device_hour=3.0))
    one = simulate(Workload([0.0], [40], [3]), priced, POLICIES["sarathi"])
    two = simulate(Workload([0.0, 3600.0], [40, 40], [3, 3]), priced, POLICIES["sarathi"])
    assert two.makespan_s > 3600.0
    cost = summarize(one, priced)["gpu_cost_usd"]
    assert cost == pytest.approx(one.busy_s / 3600.0 * 3.0, rel=1e-12)
    assert summarize(two, priced)["gpu_cost_usd"] == pytest.approx(2.0 * cost, rel=1e-9)


def test_figures_that_do_not_exist_are_none() -> None:
    """Where nothing finished there is no makespan, and nothing per second of it; attainment counts misses."""
    config = EngineConfig(num_kv_tokens=160)
    rejected = simulate(Workload([0.0, 1.0], [1000, 2000], [2, 2]), config, POLICIES["sarathi"])
    figures = summarize(rejected, config, Slo(ttft_s=60.0))
    assert (figures["num_requests"], figures["num_rejected"], figures["num_finished"]) == (2, 2, 0)
    assert figures["slo_attainment"] == 0.0
    assert figures["busy_s"] == figures["num_iterations"] == 0
    per_makespan = ("makespan_s", "throughput_tokens_per_s", "throughput_requests_per_s", "goodput_per_s")
    assert [figures[name] for name in (*per_makespan, "kv_utilization")] == [None] * 5
    assert all(figures[name] == NONE for name in ("ttft_s", "tpot_s", "itl_s", "latency_s"))


def test_nobody_has_no_attainment() -> None:
    nobody = simulate(Workload([], [], []), EngineConfig(), POLICIES["sarathi"])
    assert summarize(nobody, EngineConfig(), Slo(ttft_s=1.0))["slo_attainment"] is None
