"""Certified bounds hold for every schedule of every policy, and are worth something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.workload import Workload, make_workload
from tests.engine.strategies import configs, examples, policies, workloads
from tests.engine.strategies import predictions as any_predictions


def check(workload: Workload, config: EngineConfig, policy: Policy, predicted: np.ndarray | None) -> None:
    run = simulate(workload, config, policy, predicted=predicted)
    bounds = certify(workload, config)
    assert bounds.num_requests == run.finished.sum()
    if bounds.num_requests:
        assert bounds.makespan_s <= run.makespan_s
        assert bounds.busy_s <= run.busy_s
        assert bounds.num_iterations <= run.num_iterations
        assert bounds.mean_latency_s <= run.latency_s[run.finished].mean()


@examples(400)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_no_random_policy_beats_the_bounds(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    own_budget = replace(policy, max_num_batched_tokens=None, chunking=True)
    check(workload, config, own_budget, data.draw(any_predictions(workload)))


@pytest.mark.parametrize("cost", ["llama2-7b-a100", "llama3-70b-a100x4"])
@pytest.mark.parametrize("seed", range(2))
def test_no_policy_beats_the_bounds(cost: str, seed: int) -> None:
    workload = make_workload("azure-conv", 40, seed=seed)
    config = EngineConfig(cost=COSTS[cost], num_kv_tokens=12_000, max_num_batched_tokens=32_768)
    for policy in POLICIES.values():
        check(workload, config, replace(policy, max_num_batched_tokens=None), predictions(policy, workload, seed))


def test_saturated_traffic_is_certified_closely() -> None:
    workload = make_workload("azure-conv", 1500, seed=0).scaled(0.5)
    config = EngineConfig(num_kv_tokens=20_000)
    best = simulate(workload, config, POLICIES["spf-headroom"])
    bounds = certify(workload, config)
    assert best.makespan_s <= 1.06 * bounds.makespan_s


def test_one_request_alone_is_exact() -> None:
    workload = Workload([1.0], [300], [40])
    config = EngineConfig(block_size=1)
    run = simulate(workload, config, Policy("alone"))
    bounds = certify(workload, config)
    assert bounds.makespan_s == pytest.approx(run.makespan_s, rel=1e-6)
    assert bounds.mean_latency_s == pytest.approx(run.makespan_s - 1.0, rel=1e-6)


def test_nothing_that_fits() -> None:
    bounds = certify(Workload([0.0], [700], [40]), EngineConfig(num_kv_tokens=64))
    assert (bounds.makespan_s, bounds.mean_latency_s, bounds.num_requests) == (0.0, 0.0, 0)
