"""Asynchronous scheduling by hand; `test_against_reference` has the random runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cluster import Fleet, Router, simulate_fleet
from infermax_gym.cost import CostModel
from infermax_gym.engine import EngineConfig, Session, simulate
from infermax_gym.workload import Workload, make_workload
from tests.engine.test_batch_builder import SAME

SECOND = CostModel("second", (((1.0, *[0.0] * 8),),))
NOW = EngineConfig(cost=SECOND)
AHEAD = replace(NOW, async_scheduling=True)


def batches(workload: Workload, config: EngineConfig) -> list[list[int]]:
    run = simulate(workload, config, POLICIES["vllm"], record_schedule=True, debug=True)
    assert run.schedule is not None
    return [[request for request, _ in entry.batch] for entry in run.schedule]


def test_who_comes_during_an_iteration_joins_one_later() -> None:
    workload = Workload([0.0, 0.5], [10, 10], [4, 2])
    assert batches(workload, NOW) == [[0], [0, 1], [0, 1], [0]]
    assert batches(workload, AHEAD) == [[0], [0], [0, 1], [0, 1]]


def test_who_finishes_keeps_its_place_for_a_decision() -> None:
    workload = Workload([0.0] * 3, [10] * 3, [1, 3, 1])
    two = {"max_num_seqs": 2}
    assert batches(workload, replace(NOW, **two)) == [[0, 1], [1, 2], [1]]
    assert batches(workload, replace(AHEAD, **two)) == [[0, 1], [1], [1, 2]]


def test_an_engine_with_nothing_else_to_do_waits_and_looks_again() -> None:
    one = {"max_num_seqs": 1}
    workload = Workload([0.0, 0.5, 9.0], [10] * 3, [1, 1, 1])
    for config in (NOW, AHEAD):
        run = simulate(workload, replace(config, **one), POLICIES["vllm"])
        assert run.finish_s.tolist() == [1.0, 2.0, 10.0]


def test_it_costs_about_an_iteration() -> None:
    workload = make_workload("azure-conv", 300, seed=0, rate=3.0)
    now, ahead = (simulate(workload, EngineConfig(async_scheduling=ahead), POLICIES["vllm"]) for ahead in (False, True))
    iteration_s = now.busy_s / now.num_iterations
    assert 0.5 * iteration_s < ahead.ttft_s.mean() - now.ttft_s.mean() < 3.0 * iteration_s
    assert ahead.latency_s.mean() < 1.05 * now.latency_s.mean()


def test_others_refuse_such_an_engine() -> None:
    workload = Workload([0.0], [10], [2])
    for run in (
        lambda: Session(workload, AHEAD, SAME),
        lambda: simulate_fleet(workload, Fleet.uniform(2, AHEAD, SAME), Router("any")),
    ):
        with pytest.raises(ValueError, match="async_scheduling is modelled for policies of the table on one engine"):
            run()
