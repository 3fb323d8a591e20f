"""The compiled kernel and the plain-Python reference engine give the same run, to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.engine.policy import PreemptMode, QueueOrder, Reserve, RunOrder
from infermax_gym.workload.workload import Workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, policies, predictions, workloads
from tests.reference import simulate_reference
from tests.reference.result import ReferenceResult

PER_REQUEST = ("first_scheduled_s", "first_token_s", "finish_s")


def same_run(actual: SimulationResult, expected: ReferenceResult) -> None:
    for name in PER_REQUEST:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(actual.num_preemptions_of, expected.num_preemptions)
    np.testing.assert_array_equal(actual.num_recomputed_tokens_of, expected.num_recomputed_tokens)
    assert actual.num_iterations == expected.num_iterations
    assert actual.num_guarded_iterations == expected.num_guarded_iterations
    assert actual.busy_s == expected.busy_s
    np.testing.assert_allclose(actual.kv_utilization, expected.kv_utilization, rtol=1e-12)


def with_victims(run: SimulationResult | ReferenceResult) -> list[tuple[Any, ...]]:
    """(start, end, batch, preempted since the last iteration) of every iteration."""
    assert run.schedule is not None
    before: dict[int, list[int]] = {}  # preempted by decisions without a batch, by the iteration that follows
    for index, preempted in getattr(run, "empty_decisions", []):
        before.setdefault(index, []).extend(preempted)
    return [
        (entry.start_s, entry.end_s, list(entry.batch), [*before.get(index, []), *entry.preempted])
        for index, entry in enumerate(run.schedule)
    ]


@examples(1000)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_random_runs(data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy) -> None:
    predicted = data.draw(predictions(workload))
    expected = simulate_reference(workload, config, policy, predicted)
    recorded = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    same_run(recorded, expected)
    assert recorded.schedule is not None
    assert len(recorded.schedule) == len(expected.schedule)
    for ours, theirs in zip(with_victims(recorded), with_victims(expected), strict=True):
        assert ours == theirs
    same_result(simulate(workload, config, policy, predicted=predicted), recorded)
    same_result(simulate(workload, config, policy, predicted=predicted, fast_forward=False), recorded)


@examples(150)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_random_runs_decided_ahead(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    """Asynchronous scheduling, with and without the prefix cache."""
    predicted = data.draw(predictions(workload))
    config = replace(config, async_scheduling=True, prefix_caching=data.draw(st.booleans()))
    expected = simulate_reference(workload, config, policy, predicted)
    recorded = simulate(workload, config, policy, predicted=predicted, record_schedule=True, debug=True)
    same_run(recorded, expected)
    for ours, theirs in zip(with_victims(recorded), with_victims(expected), strict=True):
        assert ours == theirs
    same_result(simulate(workload, config, policy, predicted=predicted), recorded)
    same_result(simulate(workload, config, policy, predicted=predicted, fast_forward=False), recorded)


@examples(200)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_invariants_hold_throughout(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    predicted = data.draw(predictions(workload))
    checked = simulate(workload, config, policy, predicted=predicted, debug=True)
    same_result(simulate(workload, config, policy, predicted=predicted), checked)
    assert (checked.status != 2).all(), "every request is finished or rejected in the end"
    if config.max_model_len is None:
        blocks = -(-(workload.num_prompt_tokens + workload.num_output_tokens - 1) // config.block_size)
        np.testing.assert_array_equal(checked.status == 1, blocks > config.num_blocks)


def test_a_list_follows_a_batch_that_left_nobody_out() -> None:
    """Request 1 is due first while the mean iteration is long, so it leads the list when nobody is due any more."""
    workload = Workload([0.0] * 2, [200, 200], [9, 9], tpot_slo_s=[10.0, 0.02])
    policy = Policy("held", run_order=RunOrder.BATCH, hold_iterations=1.0)
    expected = simulate_reference(workload, EngineConfig(), policy)
    recorded = simulate(workload, EngineConfig(), policy, record_schedule=True)
    assert with_victims(recorded) == with_victims(expected)
    assert [[r for r, _ in entry.batch] for entry in expected.schedule] == [[0, 1], *[[1, 0]] * 8]
    mean_s = expected.busy_s / expected.num_iterations
    assert mean_s < 0.02 < expected.schedule[0].end_s, "due at first, and not at the end"


def test_a_schedule_tells_all_who_went_to_and_fro() -> None:
    """Swapped out and back in, decision after decision without an iteration, until the progress guard steps in."""
    workload = Workload(
        [0.0] * 10, [1, 1, 1, 1, 1, 1, 17, 1, 3, 33], [1, 1, 1, 2, 3, 3, 2, 1, 1, 1], tpot_slo_s=[0.01] * 10
    )
    config = EngineConfig(
        num_kv_tokens=96, max_num_batched_tokens=1, max_num_seqs=8, num_host_kv_tokens=40, swap_tokens_per_s=1000.0
    )
    policy = Policy(
        "to and fro",
        queue_order=QueueOrder.RESPONSE_RATIO,
        queue_weights=(0.0, 0.0, 0.0, 1.0, *[0.0] * 12),
        max_num_batched_tokens=20,
        reserve=Reserve.CHUNK,
        self_preemption_ends=True,
        admit_after_preemption=False,
        preempt_mode=PreemptMode.SWAP,
        hold_iterations=1.0,
        hold_tpot_s=0.02,
    )
    expected = simulate_reference(workload, config, policy)
    predicted_lengths = with_victims(simulate(workload, config, policy, record_schedule=True))
    assert predicted_lengths == with_victims(expected)
    assert max(len(victims) for *_, victims in predicted_lengths) > 4 * 6 + 8
