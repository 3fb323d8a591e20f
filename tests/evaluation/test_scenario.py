"""Scenarios: every contender faces the same requests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infermax_gym.engine import Decision, EngineConfig, Information, OnlineView, Policy, Slo, simulate, summarize
from infermax_gym.evaluation import Scenario, WorkloadSpec, evaluate, information_of, iterate_runs
from infermax_gym.workload import Workload

CONFIG = EngineConfig(num_kv_tokens=600)
FCFS = Policy("fcfs")


def requests(seed: int = 0) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload(np.sort(rng.uniform(0, 0.1, 12)), rng.integers(1, 99, 12), rng.integers(1, 40, 12))


class OneAtATime:
    """A scheduler in Python: the oldest request alone."""

    name = "one-at-a-time"
    information = Information.NONE

    def decide(self, view: OnlineView) -> Decision:
        requests = view.running if len(view.running) else view.waiting
        known = requests.num_prompt_tokens[0] + requests.num_generated_tokens[0] - requests.num_computed_tokens[0]
        return Decision([(int(requests.request[0]), min(int(known), view.max_num_batched_tokens))])


def test_figures_are_those_of_summarize() -> None:
    slo = Slo(ttft_s=0.5)
    row = evaluate(Scenario(requests(), CONFIG, slo), {"fcfs": FCFS}).summary()["fcfs"]
    assert row.pop("information") == "none"
    assert row.pop("wall_s") > 0.0
    assert row == summarize(simulate(requests(), CONFIG, FCFS), CONFIG, slo)


def test_seeds_draw_new_requests_and_all_contenders_face_them() -> None:
    evaluation = evaluate(Scenario(requests, CONFIG), {"a": FCFS, "b": Policy("same")}, seeds=range(4))
    latencies = evaluation.values("a", "latency_s.mean")
    assert len(set(latencies.tolist())) == 4
    assert latencies.tolist() == evaluation.values("b", "latency_s.mean").tolist()
    row = evaluation.summary()["a"]
    assert row["latency_s"]["mean"] == pytest.approx(latencies.mean())
    assert row["ci95"]["latency_s"]["mean"] > 0.0
    assert row["ci95"]["num_requests"] == 0
    assert row["vs_best"] == {"policy": "a", "latency_ratio": 1.0, "ci95": [1.0, 1.0]}


def test_policies_are_compared_seed_by_seed() -> None:
    rows = evaluate(Scenario(requests, CONFIG), {"alone": OneAtATime(), "fcfs": FCFS}, seeds=range(4)).summary()
    versus = rows["alone"]["vs_best"]
    assert versus["policy"] == "fcfs"
    assert 1.0 < versus["ci95"][0] < versus["latency_ratio"] < versus["ci95"][1]


def test_requests_are_drawn_once_per_seed() -> None:
    drawn: list[int] = []

    def recipe(seed: int) -> Workload:
        drawn.append(seed)
        return requests(seed)

    evaluate(Scenario(recipe, CONFIG), {"a": FCFS, "b": FCFS, "c": FCFS}, seeds=(3, 5))
    assert drawn == [3, 5]


def test_the_predictor_is_asked_for_every_policy_and_seed() -> None:
    asked: list[tuple[str, int, int]] = []

    def predict(policy: Policy, workload: Workload, seed: int) -> NDArray[Any]:
        asked.append((policy.name, len(workload), seed))
        return workload.num_output_tokens.astype(np.float64)

    clairvoyant = Policy("clairvoyant", information=Information.ORACLE)
    evaluate(Scenario(requests(), CONFIG), {"x": clairvoyant}, seeds=(0, 1), predict=predict)
    assert asked == [("clairvoyant", 12, 0), ("clairvoyant", 12, 1)]


def test_schedulers_in_python_take_part() -> None:
    rows = evaluate(Scenario(requests(), CONFIG), {"fcfs": FCFS, "alone": OneAtATime()}).summary()
    assert rows["alone"]["num_finished"] == 12
    assert rows["alone"]["latency_s"]["mean"] > rows["fcfs"]["latency_s"]["mean"]
    assert information_of(OneAtATime()) == "none"


def test_policies_without_all_their_seeds_are_left_out() -> None:
    scenario = Scenario(requests, CONFIG)
    evaluation = evaluate(scenario, {}, seeds=(0, 1))
    for run in iterate_runs(scenario, {"a": FCFS, "b": FCFS}, seeds=(0, 1)):
        evaluation.runs.append(run)
        if len(evaluation.runs) == 3:
            break
    assert list(evaluation.summary()) == ["a"]


def test_missing_figures_are_nan() -> None:
    evaluation = evaluate(Scenario(requests(), CONFIG), {"fcfs": FCFS})
    assert np.isnan(evaluation.values("fcfs", "goodput_per_s")).all()


def test_recipe_of_a_preset_follows_its_seed() -> None:
    spec = WorkloadSpec("azure-conv", skip=2, first=5, rate=1.0)
    assert len(spec(0)) == 5
    assert spec(0).num_prompt_tokens.tolist() == spec(0).num_prompt_tokens.tolist()
    assert spec(0).num_prompt_tokens.tolist() != spec(1).num_prompt_tokens.tolist()
