"""Closed-loop traffic: the kernel against the reference engine, and the cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from infermax_gym.engine import Decision, EngineConfig, Information, Policy, SchedulerError, simulate
from infermax_gym.engine.scheduler import OnlineView
from infermax_gym.workload import Workload, closed_loop
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, policies, predictions, with_prefixes, workloads
from tests.engine.strategies_closed import closed_loops
from tests.engine.test_against_reference import same_run, with_victims
from tests.reference import simulate_reference


@examples(250)
@given(
    data=st.data(),
    workload=closed_loops(st.one_of(workloads(max_requests=16), with_prefixes(16))),
    config=configs(),
    policy=policies(),
    prefix_caching=st.booleans(),
    ahead=st.booleans(),
)
def test_random_runs(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy, prefix_caching: bool, ahead: bool
) -> None:
    config = replace(config, prefix_caching=prefix_caching, async_scheduling=ahead)
    predicted = data.draw(predictions(workload))
    expected = simulate_reference(workload, config, policy, predicted)
    recorded = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    event(f"rejected: {bool((recorded.status == 1).any())}")
    event(f"preempted: {recorded.num_preemptions > 0}")
    event(f"overtaken: {bool((np.diff(recorded.arrival_s) < 0.0).any())}")
    same_run(recorded, expected)
    np.testing.assert_array_equal(recorded.arrival_s, expected.arrival_s)
    np.testing.assert_array_equal(recorded.status == 1, [status == "rejected" for status in expected.status])
    assert with_victims(recorded) == with_victims(expected)
    if prefix_caching:
        assert recorded.num_cached_tokens_of.tolist() == expected.num_cached_tokens.tolist()
    same_closed(simulate(workload, config, policy, predicted=predicted), recorded)
    same_closed(simulate(workload, config, policy, predicted=predicted, fast_forward=False), recorded)
    same_closed(simulate(workload, config, policy, predicted=predicted, debug=True), recorded)


def same_closed(a: object, b: object) -> None:
    same_result(a, b)  # type: ignore[arg-type]
    np.testing.assert_array_equal(a.arrival_s, b.arrival_s)  # type: ignore[attr-defined]


@examples(100)
@given(workload=closed_loops(workloads(max_requests=16)), config=configs(), policy=policies(), data=st.data())
def test_who_is_sent_when(workload: Workload, config: EngineConfig, policy: Policy, data: st.DataObject) -> None:
    """Everybody ends, and arrives when the definition says, from the ends alone (where nobody is rejected)."""
    longest = int((workload.num_prompt_tokens + workload.num_output_tokens).max())
    config = replace(config, num_kv_tokens=max(config.num_kv_tokens, longest + config.block_size), max_model_len=None)
    result = simulate(workload, config, policy, predicted=data.draw(predictions(workload)))
    assert (result.status == 0).all()
    ends_s = result.finish_s
    begins, fixed = workload.after == -1, workload.after >= 0
    np.testing.assert_array_equal(result.arrival_s[begins], workload.arrival_s[begins])
    np.testing.assert_array_equal(result.arrival_s[fixed], (ends_s[workload.after] + workload.think_s)[fixed])
    free = np.setdiff1d(np.arange(len(workload)), workload.after)  # requests with nobody behind them
    shared = workload.after == -2
    released_s = np.sort(ends_s[free])[: shared.sum()]
    np.testing.assert_array_equal(result.arrival_s[shared], released_s + workload.think_s[shared])


@examples(100)
@given(workload=workloads(max_requests=16), config=configs(), num_clients=st.integers(1, 5))
def test_one_batch_of_so_many_sequences(workload: Workload, config: EngineConfig, num_clients: int) -> None:
    """First come first served, all there at 0, max_num_seqs = C: the same run as C clients who do not think."""
    longest = int((workload.num_prompt_tokens + workload.num_output_tokens).max())
    config = replace(
        config, num_kv_tokens=num_clients * (longest + config.block_size), max_num_seqs=num_clients, max_model_len=None
    )
    n = len(workload)
    at_once = replace(workload, arrival_s=np.zeros(n))
    batch = simulate(at_once, config, Policy("fcfs"), record_schedule=True)
    clients = simulate(closed_loop(workload, num_clients), config, Policy("fcfs"), record_schedule=True)
    np.testing.assert_array_equal(clients.finish_s, batch.finish_s)
    assert clients.schedule == batch.schedule
    freed_s = np.sort(batch.finish_s)
    later = np.arange(n) >= num_clients
    sent_s = np.where(later, freed_s[np.maximum(np.arange(n) - num_clients, 0)], 0.0)
    np.testing.assert_array_equal(clients.ttft_s, batch.first_token_s - sent_s)


def test_by_hand() -> None:
    """Two clients: the second request is sent half a second after the first end, whoever ends."""
    workload = closed_loop(Workload([0.0] * 4, [10, 10, 10, 10], [9, 2, 2, 2]), 2, think_s=0.5)
    result = simulate(workload, EngineConfig(), Policy("fcfs"))
    assert result.arrival_s[:2].tolist() == [0.0, 0.0]
    ends_s = np.sort(result.finish_s)
    assert result.arrival_s[2:].tolist() == [ends_s[0] + 0.5, ends_s[1] + 0.5]
    assert result.finish_s.argmin() == 1


def test_ramp_up() -> None:
    workload = closed_loop(Workload([0.0] * 6, [10] * 6, [2] * 6), 4, ramp_up_s=2.0)
    assert workload.arrival_s[:4].tolist() == [0.0, 0.5, 1.0, 1.5]


def test_a_refused_request_frees_its_client_at_once() -> None:
    workload = closed_loop(Workload([0.0] * 3, [10, 5000, 10], [2, 2, 2]), 1, think_s=1.0)
    result = simulate(workload, EngineConfig(num_kv_tokens=64), Policy("fcfs"))
    assert result.status.tolist() == [0, 1, 0]
    assert result.arrival_s.tolist() == [0.0, result.finish_s[0] + 1.0, result.finish_s[0] + 2.0]


class _FirstComeFirstServed:
    """Written in Python; it knows requests by their numbers in the workload."""

    name = "python-fcfs"
    information = Information.NONE

    def __init__(self) -> None:
        self.seen: list[int] = []

    def decide(self, view: OnlineView) -> Decision:
        self.seen += view.waiting.request.tolist()
        batch = [(int(r), 1) for r in view.running.request]
        if not batch:
            batch = [
                (int(r), int(i)) for r, i in zip(view.waiting.request, view.waiting.num_prompt_tokens, strict=True)
            ]
        return Decision(batch)


def test_a_python_scheduler_speaks_of_numbers() -> None:
    """Request 2 thinks longer than request 3, so it takes a later place in the engine."""
    workload = Workload(
        [0.0, 0.0, 0.0, 0.0], [3, 4, 5, 6], [2, 2, 2, 2], after=[-1, -1, 0, 1], think_s=[0.0, 0.0, 5.0, 1.0]
    )
    scheduler = _FirstComeFirstServed()
    result = simulate(workload, EngineConfig(), scheduler, record_schedule=True)
    assert scheduler.seen == [0, 1, 3, 2]
    assert result.schedule is not None
    assert [batch.batch[0] for batch in result.schedule] == [(0, 3), (0, 1), (3, 6), (3, 1), (2, 5), (2, 1)]
    assert result.arrival_s.tolist() == [0.0, 0.0, result.finish_s[0] + 5.0, result.finish_s[1] + 1.0]


def test_a_python_scheduler_cannot_name_a_request_to_come() -> None:
    class Eager(_FirstComeFirstServed):
        def decide(self, view: OnlineView) -> Decision:
            return Decision([(1, 1)])

    workload = closed_loop(Workload([0.0, 0.0], [3, 4], [2, 2]), 1)
    with pytest.raises(SchedulerError, match="request 1 does not exist or has not arrived"):
        simulate(workload, EngineConfig(), Eager())
