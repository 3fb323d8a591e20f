"""Plans for instances: replayed by the engine, never below the bound, better with preemption than without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from baselines.optimum.certify import certify
from baselines.optimum.instance import Instance, Request
from baselines.optimum.plan_search import search_plan
from baselines.optimum.portfolio import solve
from baselines.policies import POLICIES
from baselines.predict import predictions
from infermax_gym.cli.app import main
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import Workload

HEADLINE = Instance.of([(2, 16)] * 5, kv_tokens=19, cost="llama3-70b-a100x4")


def test_preemption_saves_about_thirty_percent_of_the_headline_instance() -> None:
    free = solve(HEADLINE, max_evaluations=1500)
    bound = solve(HEADLINE, variant="no-preemption", max_evaluations=1500)
    assert free.run is not None and bound.run is not None
    assert free.run.num_preemptions > 0 and bound.run.num_preemptions == 0
    assert 0.27 < 1.0 - free.objective_s / bound.objective_s < 0.35
    reserving = solve(HEADLINE, variant="reserve", max_evaluations=1500)
    assert free.lower_bound_s <= free.objective_s < bound.objective_s <= reserving.objective_s


@pytest.mark.parametrize("objective", ["makespan", "latency"])
def test_a_plan_beats_the_table_and_respects_the_bound(objective: str) -> None:
    rng = np.random.default_rng(5)
    workload = Workload(np.zeros(40), rng.integers(4, 60, 40), rng.integers(4, 60, 40))
    config = EngineConfig(COSTS["llama2-7b-a100"], 800, 1, 4096, 64)
    plan = search_plan(workload, config, objective, max_evaluations=1200)  # type: ignore[arg-type]
    assert plan is not None and plan.num_evaluations == 1200
    bounds = certify(workload, config)
    bound = bounds.makespan_s if objective == "makespan" else bounds.mean_latency_s
    assert bound <= plan.objective_s
    for row in POLICIES.values():
        run = simulate(workload, config, row, predicted=predictions(row, workload))
        assert plan.objective_s <= (run.makespan_s if objective == "makespan" else run.latency_s.mean()), row.name


def test_the_same_seed_gives_the_same_plan() -> None:
    runs = [solve(HEADLINE, max_evaluations=300, seed=3) for _ in range(2)]
    assert runs[0].objective_s == runs[1].objective_s
    assert runs[0].to_dict()["schedule"] == runs[1].to_dict()["schedule"]


def test_a_lone_request_is_proven() -> None:
    found = solve(Instance.of([(20, 5)], kv_tokens=64), max_evaluations=50)
    assert found.status == "optimal" and found.gap < 1e-6


def test_impossible_ttft_limits_are_unknown() -> None:
    requests = (Request(0.0, 400, 4, ttft_limit_s=1e-6),)
    assert solve(Instance(requests, kv_tokens=1000), max_evaluations=60).status == "unknown"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(HEADLINE.to_dict()))
    assert main(["optimal", str(path), "--time-limit", "0.5", "--workers", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "feasible" and 0.0 < answer["gap"] < 1.0
    granted = sum(tokens for batch in answer["schedule"] for _, tokens in batch)
    assert granted >= 5 * 17
    path.write_text('{"requests": []}')
    assert main(["optimal", str(path)]) == 2
    assert "non-empty list" in capsys.readouterr().err
    path.write_text(json.dumps({**HEADLINE.to_dict(), "kv_tokens": 5}))
    assert main(["optimal", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_bound_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bound", "--workload", "azure-conv", "--first", "50", "--objective", "latency", "--json"]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["lower_bound_s"] > 0.0 and answer["num_requests"] == 50
