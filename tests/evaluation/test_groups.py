"""Tenants and SLO classes side by side: the figures, against plain sums over a recorded schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, SimulationResult, Slo, simulate
from infermax_gym.evaluation import Scenario, evaluate, group_figures, jain_index
from infermax_gym.evaluation.groups import _history, _max_service_gap, _union
from infermax_gym.workload import Workload, make_workload

CONFIG = EngineConfig(num_kv_tokens=15_000)


def result_of(name: str = "sarathi", num_requests: int = 300) -> SimulationResult:
    return simulate(make_workload("tenants", num_requests, seed=0, rate=4.0), CONFIG, POLICIES[name])


def test_jain_index() -> None:
    assert jain_index(np.array([3.0, 3.0, 3.0])) == pytest.approx(1.0)
    assert jain_index(np.array([5.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert jain_index(np.array([1.0, 3.0])) == pytest.approx(16 / 20)
    assert jain_index(np.zeros(0)) is None


def test_union_of_intervals() -> None:
    union = _union(np.array([0.0, 1.0, 2.0, 6.0, 7.0]), np.array([1.5, 1.2, 3.0, 8.0, 7.5]))
    assert union.tolist() == [[0.0, 1.5], [2.0, 3.0], [6.0, 8.0]]
    assert _union(np.zeros(0), np.zeros(0)).shape == (0, 2)


def test_service_is_that_of_the_records() -> None:
    result = result_of()
    workload = result.workload
    for number, figures in enumerate(group_figures(result, "tenant")["groups"].values()):
        mine = workload.tenant == number
        prompts, outputs = workload.num_prompt_tokens[mine].sum(), workload.num_output_tokens[mine].sum()
        assert figures["service_tokens"] == pytest.approx(prompts + 2 * outputs)
        assert figures["num_requests"] == mine.sum()
        assert figures["latency_s"]["mean"] == pytest.approx(result.latency_s[mine].mean())
        waits = (result.first_scheduled_s - workload.arrival_s)[mine]
        assert figures["longest_wait_s"] == pytest.approx(waits.max())


def test_the_gap_against_a_plain_sum() -> None:
    """On a fine grid of moments, the difference of two services changes as much as the gap says, but for the grid."""
    result = result_of(num_requests=120)
    workload = result.workload
    one, other = (_history(result, workload.tenant == number) for number in (0, 1))

    def received(number: int, at_s: float) -> float:
        total = 0.0
        for r in np.flatnonzero(workload.tenant == number):
            first_s, last_s, outputs = result.first_token_s[r], result.finish_s[r], workload.num_output_tokens[r]
            if first_s <= at_s:
                total += workload.num_prompt_tokens[r] + 2.0
                share = 1.0 if last_s <= first_s else min((at_s - first_s) / (last_s - first_s), 1.0)
                total += 2.0 * (outputs - 1) * share
        return total

    def waits(number: int, at_s: float) -> bool:
        mine = workload.tenant == number
        return bool(np.any(mine & (workload.arrival_s <= at_s) & (result.first_scheduled_s > at_s)))

    largest, differences = 0.0, []
    for at_s in np.linspace(0.0, result.makespan_s, 1500):
        if waits(0, at_s) and waits(1, at_s):
            differences.append(received(0, at_s) - received(1, at_s))
            largest = max(largest, max(differences) - min(differences))
        else:
            differences = []
    gap = _max_service_gap([one, other])
    assert gap is not None and largest > 1000
    assert largest <= gap <= largest + 6000
    moments = np.array([0.3, 7.7, 20.0])
    np.testing.assert_allclose(one.received(moments, after=True), [received(0, t) for t in moments])


def test_one_group_has_nobody_to_be_compared_with() -> None:
    workload = make_workload("azure-conv", 50, seed=0, rate=8.0)
    figures = group_figures(simulate(workload, CONFIG, POLICIES["sarathi"]), "tenant")
    assert figures["fairness"]["max_service_gap_tokens"] is None
    assert figures["fairness"]["jain_index"] == pytest.approx(1.0)
    assert list(figures["groups"]) == ["default"]
    empty = group_figures(simulate(Workload([], [], []), CONFIG, POLICIES["sarathi"]), "slo-class")
    assert empty["fairness"] == {"jain_index": None, "max_service_gap_tokens": None, "longest_wait_s": None}


def test_fair_queues_are_fair() -> None:
    fair, fcfs = (group_figures(result_of(name), "tenant") for name in ("vtc-sarathi", "sarathi"))
    assert fair["fairness"]["max_service_gap_tokens"] < 0.25 * fcfs["fairness"]["max_service_gap_tokens"]
    mean = [figures["groups"]["steady"]["latency_s"]["mean"] for figures in (fair, fcfs)]
    assert mean[0] < 0.6 * mean[1]


def test_weights_buy_service() -> None:
    workload = make_workload("tenants", 300, seed=0, rate=4.0)
    alike = replace(workload, tenant=np.arange(300) % 2, tenant_names=("paying", "free"))
    weighted = replace(POLICIES["vtc-sarathi"], tenant_weights=(4.0, 1.0))
    groups = group_figures(simulate(alike, CONFIG, weighted), "tenant")["groups"]
    assert groups["paying"]["ttft_s"]["mean"] < 0.5 * groups["free"]["ttft_s"]["mean"]


def test_classes_in_an_evaluation_over_seeds() -> None:
    scenario = Scenario(lambda seed: make_workload("mixed", 40, seed=seed), CONFIG, Slo(ttft_s=1.0), "slo-class")
    row = evaluate(scenario, {"sarathi": POLICIES["sarathi"]}, seeds=(0, 1)).summary()["sarathi"]
    assert set(row["groups"]) == {"chat", "code", "reasoning"}
    assert 0.0 <= row["groups"]["chat"]["slo_attainment"] <= 1.0
    assert row["ci95"]["fairness"]["jain_index"] is not None
