"""Calibration: factors that made a log are found again, and whoever cannot trust them is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import COSTS, CostModel
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.evaluation.calibrate import Factors, calibrate, scaled
from infermax_gym.evaluation.replay import compare
from infermax_gym.workload import Workload, make_workload
from infermax_gym.workload.request_log import RequestLog

COST = COSTS["llama2-7b-a100"]
ENGINE = EngineConfig(num_kv_tokens=40_000, max_num_batched_tokens=2048, max_num_seqs=64)


def replayer(workload: Workload, policy: str) -> Callable[[CostModel, float], SimulationResult]:
    def replay(cost: CostModel, delay_s: float) -> SimulationResult:
        delayed = replace(workload, arrival_s=workload.arrival_s + delay_s)
        run = simulate(delayed, replace(ENGINE, cost=cost), POLICIES[policy])
        return replace(run, workload=workload, arrival_s=workload.arrival_s)

    return replay


def made_with(factors: Factors, workload: Workload, policy: str = "vllm") -> RequestLog:
    """The log of our engine with these factors on its cost."""
    run = replayer(workload, policy)(scaled(COST, factors), factors.request_s)
    return RequestLog(workload, run.first_scheduled_s, run.first_token_s, run.finish_s)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return make_workload("azure-conv", 160, seed=1).with_rate(5.0)


@pytest.mark.parametrize("policy", ["vllm", "shortest-prompt-first"])
def test_factors_are_recovered(workload: Workload, policy: str) -> None:
    true = Factors(1.3, 0.8, 1.5, 0.05)
    log = made_with(true, workload, policy)
    found = calibrate(log, COST, replayer(workload, policy))
    assert found.factors.overhead == pytest.approx(true.overhead, rel=0.05)
    assert found.factors.compute == pytest.approx(true.compute, rel=0.05)
    assert found.factors.attention == pytest.approx(true.attention, rel=0.1)
    assert found.factors.request_s == pytest.approx(true.request_s, abs=0.02)
    second = np.arange(160) >= 80
    before = compare(log, found.before, second)["error"]["latency_s"]["mean"]
    after = compare(log, found.after, second)["error"]["latency_s"]["mean"]
    assert abs(after) < 0.02 < abs(before)
    assert found.warnings == ()


def test_it_is_deterministic(workload: Workload) -> None:
    few = workload.trace_slice(0, 15)
    log = made_with(Factors(0.9, 1.2, 1.1), few)
    first, second = (calibrate(log, COST, replayer(few, "vllm")) for _ in range(2))
    assert first.factors == second.factors and first.cost == second.cost


def test_few_requests_and_no_queue_are_warned_of() -> None:
    idle = Workload(np.arange(20) * 10.0, [100] * 20, [20] * 20)
    found = calibrate(made_with(Factors(), idle), COST, replayer(idle, "vllm"))
    assert "20 requests are too few" in found.warnings[0]
    assert "hardly any request waited" in found.warnings[1]


def test_a_bound_is_warned_of(workload: Workload) -> None:
    log = made_with(Factors(9.0, 9.0, 9.0), workload)
    found = calibrate(log, COST, replayer(workload, "vllm"))
    assert any("stopped at its bound" in warning for warning in found.warnings)


def test_scaling_keeps_where_terms_bend() -> None:
    nothing = (0.0,) * 9
    hinge = (-2e-3, 1e-5, 0, 0, 0, 0, 0, 0, 0)  # max(0, T - 200) x 10 us
    saturating = ((0.0, 0, 0, 0, 0, 0, 0, 1e-7, 0), (0.0, 0, 0, 0, 0, 0, 0, 0, 5e-5))
    linear = (1e-2, 0, 0, 0, 0, 0, 0, 0, 0)
    cost = CostModel("bent", ((linear,), (nothing, hinge)), min_terms=(saturating,))
    factored = scaled(cost, Factors(overhead=3.0, compute=2.0, attention=0.5))
    # 10 ms whatever runs, 1 ms for 300 tokens; of 100 decodes, contexts beyond 500 each add nothing.
    assert factored.seconds(prefills=[(300, 0)]) == pytest.approx(3 * 1e-2 + 2 * 1e-3)
    assert factored.seconds(decodes=[1000] * 100) == pytest.approx(3 * 1e-2 + 0.5 * 5e-3)


def test_a_roofline_is_scaled_side_by_side() -> None:
    compute, memory = (0.0, 1e-4, 0, 0, 0, 0, 0, 0, 0), (5e-3, 0, 0, 0, 0, 0, 0, 1e-7, 0)
    cost = CostModel("roofline", ((compute, memory),))
    factored = scaled(cost, Factors(overhead=2.0, compute=4.0, attention=3.0))
    assert factored.terms[0][0][1] == pytest.approx(4e-4)
    assert factored.terms[0][1][0] == pytest.approx(1e-2) and factored.terms[0][1][7] == pytest.approx(3e-7)
