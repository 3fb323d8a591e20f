"""Nothing, one request, what can never fit, logs that fill up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import Decision, EngineConfig, Information, OnlineView, simulate, summarize
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.engine.state import _LOG_ITERATIONS
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import pooled_gaps, same_result

NAMES = sorted(POLICIES)


@pytest.mark.parametrize("name", NAMES)
def test_no_request(name: str) -> None:
    workload, config = Workload([], [], []), EngineConfig()
    result = simulate(workload, config, POLICIES[name], predicted=np.zeros(0), record_schedule=True, debug=True)
    assert (result.makespan_s, result.busy_s, result.num_iterations, result.kv_utilization) == (0.0, 0.0, 0, 0.0)
    assert result.schedule == ()
    assert summarize(result, config)["throughput_tokens_per_s"] is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_output_tokens", [1, 2, 40])
def test_one_request(name: str, num_output_tokens: int) -> None:
    """Alone, every policy serves it at once: the prefill, then one token after another."""
    workload = Workload([3.0], [700], [num_output_tokens])
    config, policy = EngineConfig(num_kv_tokens=752), replace(POLICIES[name], max_iteration_s=0.0)
    result = simulate(workload, config, policy, predicted=predictions(policy, workload), debug=True)
    most = NO_LIMIT if policy.uncapped_when_alone else policy.max_chunk
    budget = min(policy.max_num_batched_tokens or config.max_num_batched_tokens, most)
    num_chunks = -(-700 // budget) if policy.chunking else 1
    assert result.num_iterations == num_chunks + num_output_tokens - 1
    assert result.first_scheduled_s[0] == 3.0
    assert result.makespan_s == result.finish_s[0] == pytest.approx(3.0 + result.busy_s)
    assert result.num_preemptions == 0
    assert result.gap_counts.sum() == num_output_tokens - 1


def test_no_request_in_python() -> None:
    class Never:
        name = "never"
        information = Information.NONE

        def decide(self, view: OnlineView) -> Decision:
            raise AssertionError("there is nothing to decide")

    simulate(Workload([], [], []), EngineConfig(), Never())
    rejected = simulate(Workload([0.0], [1000], [1]), EngineConfig(num_kv_tokens=160), Never())
    assert rejected.status.tolist() == [1]


@pytest.mark.parametrize(
    ("prompt", "output", "fits"),
    [(64, 1, True), (65, 1, False), (64, 2, False), (1, 64, True), (1, 65, False), (60, 5, True), (60, 6, False)],
)
@pytest.mark.parametrize("name", ["sarathi", "orca", "infermax-vllm-noevict", "vllm-v1-priority"])
def test_what_can_never_fit_is_rejected(name: str, prompt: int, output: int, fits: bool) -> None:
    """A request needs I + O - 1 tokens; 4 blocks of 16 hold 64."""
    workload = Workload([0.0, 0.0], [prompt, 3], [output, 3])
    config, policy = EngineConfig(num_kv_tokens=79), POLICIES[name]
    result = simulate(workload, config, policy, predicted=predictions(policy, workload), debug=True)
    assert result.status.tolist() == [0 if fits else 1, 0]
    figures = summarize(result, config)
    assert (figures["num_finished"], figures["num_rejected"]) == (2 if fits else 1, 0 if fits else 1)
    assert np.isfinite(result.finish_s).tolist() == [fits, True]
    assert result.num_generated_tokens[0] == (output if fits else 0)


def test_longer_than_the_model_is_rejected() -> None:
    workload = Workload([0.0] * 3, [10, 10, 10], [10, 11, 30])
    result = simulate(workload, EngineConfig(max_model_len=20), POLICIES["sarathi"])
    assert result.status.tolist() == [0, 1, 1]
    assert simulate(workload, EngineConfig(), POLICIES["sarathi"]).status.tolist() == [0, 0, 0]


def test_everything_rejected() -> None:
    result = simulate(Workload([0.0, 5.0], [100, 200], [1, 1]), EngineConfig(num_kv_tokens=32), POLICIES["sarathi"])
    assert result.status.tolist() == [1, 1]
    assert (result.makespan_s, result.num_iterations) == (0.0, 0)


def test_gap_log_is_emptied_when_full() -> None:
    """Many more gaps than the log holds, and none is lost."""
    workload = make_workload("azure-conv", 5000, seed=0, rate=4.0)
    result = simulate(workload, EngineConfig(), POLICIES["sarathi"])
    assert len(result.gap_s) > 2 * _LOG_ITERATIONS
    assert result.gap_counts.sum() == (workload.num_output_tokens - 1).sum()
    spans = (result.finish_s - result.first_token_s).sum()
    assert np.dot(result.gap_s, result.gap_counts) == pytest.approx(spans, rel=1e-9)
    same_result(simulate(workload, EngineConfig(), POLICIES["sarathi"], fast_forward=False), result)


def test_schedule_log_is_emptied_when_full() -> None:
    outputs = [_LOG_ITERATIONS + 5000, 300]
    workload = Workload([0.0, 5.0], [10, 20], outputs)
    config = EngineConfig(num_kv_tokens=50_000)
    result = simulate(workload, config, POLICIES["sarathi"], record_schedule=True)
    assert result.schedule is not None
    assert len(result.schedule) == result.num_iterations == outputs[0]
    assert all(a.end_s <= b.start_s for a, b in zip(result.schedule, result.schedule[1:], strict=False))
    assert sum(tokens for i in result.schedule for _, tokens in i.batch) == sum(outputs) + 30 - 2
    same_result(simulate(workload, config, POLICIES["sarathi"]), result)


def test_recorded_preemptions_appear_once() -> None:
    """A decision without a batch preempts request 0; the next iteration, and no other, says so."""
    workload = Workload([0.0, 0.001], [3, 3], [10, 10], priority=[2, 0])
    config = EngineConfig(num_kv_tokens=13, block_size=1)
    result = simulate(workload, config, POLICIES["vllm-v1-priority"], record_schedule=True)
    assert result.schedule is not None
    assert [i.preempted for i in result.schedule if i.preempted] == [(0,)]
    assert result.num_preemptions == 1


def test_simultaneous_arrivals_by_the_hundred() -> None:
    workload = Workload(np.zeros(500), np.full(500, 7), np.full(500, 5))
    result = simulate(workload, EngineConfig(num_kv_tokens=3000), POLICIES["sarathi"], debug=True)
    assert result.finished.all()
    assert (np.diff(result.first_token_s) >= 0).all()


def test_pooled_gaps_of_a_steady_decode() -> None:
    result = simulate(Workload([0.0], [10], [50]), EngineConfig(), POLICIES["sarathi"])
    assert len(pooled_gaps(result)) == 49


def test_predictions_are_checked() -> None:
    workload, policy = Workload([0.0, 0.0], [5, 5], [5, 5]), POLICIES["sjf-oracle"]
    with pytest.raises(ValueError, match="policy 'sjf-oracle' needs `predicted` output lengths"):
        simulate(workload, EngineConfig(), policy)
    with pytest.raises(ValueError, match=r"predicted has shape \(3,\), expected \(2,\)"):
        simulate(workload, EngineConfig(), policy, predicted=np.ones(3))
    for bad in (0.5, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="predicted output tokens must be finite and at least 1"):
            simulate(workload, EngineConfig(), policy, predicted=np.array([1.0, bad]))


def test_times_far_from_zero() -> None:
    """A day into a trace, nothing but the rounding of the clock changes."""
    workload = make_workload("azure-conv", 100, seed=2, rate=6.0)
    late = replace(workload, arrival_s=workload.arrival_s + 86_400.0)
    results = [simulate(w, EngineConfig(num_kv_tokens=20_000), POLICIES["sarathi"]) for w in (workload, late)]
    np.testing.assert_allclose(results[1].finish_s - 86_400.0, results[0].finish_s, rtol=0, atol=1e-6)
    assert results[0].num_iterations == results[1].num_iterations
