"""`train.py` from end to end, and its policies in `infermax bench` and `infermax simulate`."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import train
from infermax_gym.agents import load_agent
from infermax_gym.agents.ppo import PpoSettings
from infermax_gym.agents.recipes import Recipe, ppo_settings
from infermax_gym.agents.scenario import DEFAULT_SCENARIO
from infermax_gym.cli import main

SHORT = ["--requests", "60", "--windows", "2", "--kv-tokens", "8000"]


@pytest.fixture(scope="module", params=["es", "bc"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / request.param
    steps = {"es": "3", "bc": "800"}[request.param]
    assert train.main(["--algo", request.param, "--steps", steps, "--out", str(out), *SHORT]) == 0
    return out


def test_run_folder(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "curve.csv", "policy.safetensors", "summary.json"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    assert {*train.RIVALS, "random"} < set(summary["policies"])
    agent = load_agent(folder / "policy.safetensors")
    assert agent.card["training"]["scenario"]["num_requests"] == 60
    assert agent.card["held_out"][agent.name]["mean"] == summary["policies"][agent.name]["latency_s"]["mean"]


def test_a_run_says_whom_it_has_served() -> None:
    document = {"policies": {"es": {"num_finished": 58, "num_requests": 60, "latency_s": {"mean": 2.5}}}}
    assert train.served("es", document) == (
        "es: return -145.0 (minus request-seconds) a slice, 58 of 60 requests finished, mean latency 2.50 s"
    )


def test_bench_and_simulate_take_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = str(folder / "policy.safetensors")
    common = ["--workload", "azure-conv", "--first", "50", "--kv-tokens", "8000", "--agent", agent, "--json"]
    capsys.readouterr()
    assert main(["bench", *common, "--policies", "sarathi"]) == 0
    policies = json.loads(capsys.readouterr().out)["policies"]
    assert set(policies) == {agent, "sarathi"} and policies[agent]["num_finished"] == 50
    schedule = tmp_path / "schedule.jsonl"
    assert main(["simulate", *common, "--schedule-out", str(schedule)]) == 0
    again = json.loads(capsys.readouterr().out)["policies"][agent]
    assert again["latency_s"] == policies[agent]["latency_s"]
    assert schedule.read_text().count("\n") == policies[agent]["num_iterations"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--workload", "no-such-workload"], "no workload is called"),
        (["--algo", "ppo", "--resume", "--steps", "1"], "nothing to resume"),
        (["--algo", "bc", "--teacher", "nobody", "--steps", "1"], "unknown policy 'nobody'"),
        (["--algo", "ppo", "--teacher", "sjf-oracle", "--steps", "1"], "'sjf-oracle' needs output lengths"),
        (["--algo", "ppo", "--plain-rewards", "--ahead-s", "5", "--steps", "1"], "means nothing with plain rewards"),
        (["--algo", "ppo", "--ahead-s", "-1", "--steps", "1"], "ahead_s must be 0 or more and finite, got -1.0"),
        (
            ["--algo", "ppo", "--learning-rate", "nan", "--steps", "1"],
            "learning_rate must be positive",
        ),
    ],
)
def test_errors(arguments: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*arguments, "--out", str(tmp_path), *SHORT]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and hint in error[0]


def test_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that writes logs dies of it first, and says nothing; a thread with a bug says so."""
    full, before = OSError(28, "No space left on device"), threading.excepthook

    def fail_with(error: Exception) -> None:
        raise error

    def run(*arguments: object) -> None:
        for error in (full, ZeroDivisionError("of a bug")):
            thread = threading.Thread(target=fail_with, args=(error,))
            thread.start()
            thread.join()
        raise full

    monkeypatch.setattr(train, "run", run)
    assert train.main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("Traceback") == 1 and "ZeroDivisionError: of a bug" in said
    assert said.count("No space left") == 1 and said.endswith("train: error: No space left on device\n")
    assert threading.excepthook is before


def test_ppo_is_resumed_as_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint holds engines of its own scenario, and settings are those of the beginning, warm start or not."""
    short = ["--lanes", "4", "--rollout", "32", "--every", "1", *SHORT]
    ppo = ["--algo", "ppo", "--steps", "128", "--out", str(tmp_path), *short]
    assert train.main(ppo) == 0
    capsys.readouterr()
    changed = {
        "scenario: num_kv_tokens 8000, not 9000": ["--kv-tokens", "9000"],
        "ahead_s None, not 0.0": ["--ahead-s", "0"],
    }
    for hint, other in changed.items():
        assert train.main([*ppo, "--resume", *other]) == 2
        error = capsys.readouterr().err.splitlines()
        assert len(error) == 1 and hint in error[0] and "resume it with what it began with" in error[0]
    assert train.main([*ppo, "--resume", "--steps", "256", "--patience", "9"]) == 0
    begun = Recipe("ppo", DEFAULT_SCENARIO, warm_start=True, ahead_s=3.0)
    assert ppo_settings(begun) == ppo_settings(replace(begun, resume=True))
    assert ppo_settings(begun).learning_rate < PpoSettings().learning_rate and ppo_settings(begun).ahead_s == 3.0
    assert ppo_settings(replace(begun, learning_rate=0.5)).learning_rate == 0.5
