"""Plans for instances: replayed by the engine, never below the bound, better with preemption than without."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.instance import Instance, InstanceError, Request, instance_from_dict
from infermax_gym.baselines.optimum.plan import score
from infermax_gym.baselines.optimum.plan_search import search_plan
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.cli.app import main
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import Workload
from tests.engine.strategies import CONCAVE
from tests.optimum.brute import optimum
from tests.optimum.draw import small

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


@pytest.mark.parametrize("objective", ["makespan", "latency"])
def test_a_cost_that_is_not_convex_is_proven_too(objective: str) -> None:
    instance = Instance.of([(2, 2), (1, 2)], kv_tokens=4, cost=CONCAVE)
    found = solve(instance, objective, time_limit_s=60.0)  # type: ignore[arg-type]
    assert found.status == "optimal"
    assert found.objective_s == pytest.approx(optimum(instance, objective), rel=1e-9)
    annealed = solve(instance, objective, max_evaluations=300)  # type: ignore[arg-type]
    assert annealed.lower_bound_s <= found.objective_s <= annealed.objective_s < 1.5 * found.objective_s


def test_the_same_seed_gives_the_same_plan() -> None:
    runs = [solve(HEADLINE, max_evaluations=300, seed=3) for _ in range(2)]
    assert runs[0].objective_s == runs[1].objective_s
    assert runs[0].to_dict()["schedule"] == runs[1].to_dict()["schedule"]


def test_a_lone_request_is_proven() -> None:
    found = solve(Instance.of([(20, 5)], kv_tokens=64), max_evaluations=50)
    assert found.status == "optimal" and found.gap < 1e-6


def test_limits_that_no_schedule_was_found_for_are_unknown() -> None:
    requests = (Request(0.0, 400, 4, ttft_limit_s=1e-6),)
    assert solve(Instance(requests, kv_tokens=1000), max_evaluations=60).status == "unknown"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "instance.json"
    hard = Instance.of([(3 + i, 60 - i) for i in range(9)], kv_tokens=150)
    path.write_text(json.dumps(hard.to_dict()))
    assert main(["optimal", str(path), "--time-limit", "0.5", "--workers", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "feasible" and 0.0 < answer["gap"] < 1.0
    granted = sum(tokens for batch in answer["schedule"] for _, tokens in batch)
    assert granted >= sum(3 + i + 60 - i - 1 for i in range(9))
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


def test_an_impossible_limit_is_proven_impossible() -> None:
    requests = (Request(0.0, 4, 2, ttft_limit_s=1e-6), Request(0.0, 2, 2))
    found = solve(Instance(requests, kv_tokens=8), time_limit_s=20.0)
    assert found.status == "infeasible" and found.run is None and found.plan is None


def test_plans_repeat_their_runs() -> None:
    """Whatever search a schedule comes from, its plan is the same schedule."""
    for seed in range(12):
        instance, objective, variant = small(seed)
        workers = 1 + seed % 2
        found = solve(instance, objective, variant=variant, max_evaluations=120, workers=workers)  # type: ignore[arg-type]
        assert found.plan is not None and found.run is not None
        again = score(instance, found.plan)
        assert again.objective(objective) == found.objective_s
        assert again.num_preemptions == found.run.num_preemptions
        assert variant == "preemptive" or again.num_preemptions == 0


def test_ctrl_c_leaves_the_incumbent(tmp_path: Path) -> None:
    path = tmp_path / "instance.json"
    path.write_text(json.dumps(Instance.of([(9, 40)] * 9, kv_tokens=160).to_dict()))
    command = [
        sys.executable,
        "-m",
        "infermax_gym",
        "optimal",
        str(path),
        "--time-limit",
        "60",
        "--workers",
        "2",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # an incumbent is known
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60.0)
    assert "incumbent" in first
    assert process.returncode == 130 and err.splitlines()[-1].startswith("infermax: interrupted")
    answer = json.loads(out)
    assert answer["status"] == "feasible" and answer["schedule"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kv_tokens": 0}, "kv_tokens must be between"),
        ({"kv_tokens": 10**13}, "kv_tokens must be between"),
        ({"max_num_seqs": 0}, "max_num_seqs must be between"),
        ({"requests": [{"num_prompt_tokens": 10**7, "num_output_tokens": 1}]}, "num_prompt_tokens must be between"),
        (
            {"requests": [{"num_prompt_tokens": 1, "num_output_tokens": 400_000}] * 2, "kv_tokens": 10**6},
            "output tokens",
        ),
        ({"requests": [{"num_prompt_tokens": 1, "num_output_tokens": 1}] * 100_001}, "at most 100000"),
    ],
)
def test_sizes_out_of_range_get_one_line(change: dict[str, object], says: str) -> None:
    with pytest.raises(InstanceError, match=says) as caught:
        instance_from_dict({**HEADLINE.to_dict(), **change})
    assert "\n" not in str(caught.value)


def test_a_size_that_cannot_be_proven_is_feasible() -> None:
    """Long outputs and whole prompts in chunks: tables of the exact search would be endless."""
    found = solve(Instance.of([(60_000, 900)] * 3, kv_tokens=140_000), time_limit_s=1.0)
    assert found.status == "feasible" and 0.0 < found.gap < 0.5
