"""`infermax evaluate` and `infermax verify`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command

ACTS = """
def first_legal(observation, mask):
    return int(mask.argmax())

class Greedy:
    name = "greedy"
"""


def test_a_result_is_written_and_certified(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    ended = command("evaluate", "shortest-prompt-first", "--suite", "v1", "--tasks", "toy", "--out", path)
    assert ended.code == 0
    assert ended.out.startswith("InferMaxSuite-Toy-v1")
    assert "all tasks, interquartile mean" in ended.out
    document = json.loads(path.read_text())
    assert (document["schema"], document["suite"], document["agent"]) == (1, "v1", "shortest-prompt-first")
    record = document["tasks"]["InferMaxSuite-Toy-v1"]
    assert len(record["seeds"]) == len(record["score"]) == len(record["decisions"]) == 12
    assert record["ci95"][0] <= record["interquartile_mean"] <= record["ci95"][1]
    assert path.stat().st_size < 10_000
    ended = command("verify", path)
    assert (ended.code, ended.out[:21]) == (0, "certified (replayed):")
    ended = command("verify", path, "--agent", "shortest-prompt-first")
    assert ended.out.startswith("certified (replayed, and played again by the agent): shortest-prompt-first ")
    record["score"][0] = 1.0
    path.write_text(json.dumps(document))
    ended = command("verify", path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"infermax: error: {path}: InferMaxSuite-Toy-v1: score is 1 in the file; the decisions give" in ended.err


def test_a_function_of_ones_own_plays(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suite_acts.py").write_text(ACTS)
    monkeypatch.chdir(tmp_path)
    ended = command(
        "evaluate", "suite_acts:first_legal", "--tasks", "toy,router", "--out", "mine.json", "--name", "mine"
    )
    assert ended.code == 0
    assert "InferMaxSuite-Router-v1" in ended.out
    assert command("verify", "mine.json", "--agent", "suite_acts:first_legal").code == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["evaluate", "shortest-prompt-fist"], "did you mean 'shortest-prompt-first'?"),
        (["evaluate", "sjf-oracle"], "tells nothing of output lengths"),
        (["evaluate", "vllm", "--suite", "v0"], "there is no suite 'v0'; expected one of v1"),
        (["evaluate", "vllm", "--tasks", "toys"], "has no task 'toys'; expected one of toy, long-context"),
        (["evaluate", "vllm", "--tasks", "router"], "is for routers"),
        (["evaluate", "vllm", "sal"], "nothing to play"),
        (["evaluate", "vllm", "vllm"], "the same agent is given twice"),
        (["evaluate", "missing.safetensors"], "no such file"),
        (["evaluate", "no_such_module:act"], "cannot import 'no_such_module'"),
        (["evaluate", "vllm", "--out", "no/such/folder/x.json"], "does not exist"),
        (["evaluate"], "AGENT"),
        (["verify", "missing.json"], "missing.json: cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_typed_wrong(command: Command, arguments: list[str], hint: str) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert hint in ended.err
