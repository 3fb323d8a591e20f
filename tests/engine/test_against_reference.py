"""The compiled kernel and the plain-Python reference engine give the same run, to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.workload.workload import Workload
from tests.engine.strategies import configs, policies, predictions, workloads
from tests.reference import simulate_reference
from tests.reference.result import ReferenceResult

PER_REQUEST = ("first_scheduled_s", "first_token_s", "finish_s")


def same_run(actual: SimulationResult, expected: ReferenceResult) -> None:
    for name in PER_REQUEST:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(actual.num_preemptions_of, expected.num_preemptions)
    np.testing.assert_array_equal(actual.num_recomputed_tokens_of, expected.num_recomputed_tokens)
    assert actual.num_iterations == expected.num_iterations
    assert actual.busy_s == expected.busy_s
    np.testing.assert_allclose(actual.kv_utilization, expected.kv_utilization, rtol=1e-12)


def same_result(a: SimulationResult, b: SimulationResult) -> None:
    for name in (*PER_REQUEST, "num_preemptions_of", "num_recomputed_tokens_of", "status", "num_generated_tokens"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("busy_s", "num_iterations", "num_preemptions", "kv_utilization", "makespan_s"):
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_array_equal(_pooled(a), _pooled(b))


def _pooled(result: SimulationResult) -> np.ndarray:
    return np.sort(np.repeat(result.gap_s, result.gap_counts))


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_random_runs(data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy) -> None:
    predicted = data.draw(predictions(workload))
    expected = simulate_reference(workload, config, policy, predicted)
    recorded = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    same_run(recorded, expected)
    assert recorded.schedule is not None
    assert len(recorded.schedule) == len(expected.schedule)
    for ours, theirs in zip(recorded.schedule, expected.schedule, strict=True):
        assert (ours.start_s, ours.end_s, list(ours.batch)) == (theirs.start_s, theirs.end_s, list(theirs.batch))
    same_result(simulate(workload, config, policy, predicted=predicted), recorded)
    same_result(simulate(workload, config, policy, predicted=predicted, fast_forward=False), recorded)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_invariants_hold_throughout(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    predicted = data.draw(predictions(workload))
    checked = simulate(workload, config, policy, predicted=predicted, debug=True)
    same_result(simulate(workload, config, policy, predicted=predicted), checked)
    assert (checked.status != 2).all(), "every request is finished or rejected in the end"
    for limit in (config.max_model_len,):
        if limit is None:
            blocks = -(-(workload.num_prompt_tokens + workload.num_output_tokens - 1) // config.block_size)
            np.testing.assert_array_equal(checked.status == 1, blocks > config.num_blocks)
