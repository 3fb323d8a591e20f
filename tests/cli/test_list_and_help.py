"""`infermax list`, the help, and the command as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import infermax_gym
from infermax_gym.cli import options
from infermax_gym.engine import EngineConfig
from tests.cli.conftest import Command

KINDS = ("policies", "routers", "costs", "workloads", "envs", "agents")


@pytest.mark.parametrize("kind", KINDS)
def test_lists(command: Command, kind: str) -> None:
    code, out, err = command("list", kind, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["schema"] == 1
    names = [row["name"] for row in document[kind]]
    assert len(set(names)) == len(names)
    code, out, err = command("list", kind)
    assert (code, err) == (0, "")
    assert all(name in out for name in names if "@" not in name)  # engines are summed up
    assert out


@pytest.mark.parametrize("kind", ["policies", "routers"])
def test_policies_and_routers_are_described(command: Command, kind: str) -> None:
    for row in json.loads(command("list", kind, "--json").out)[kind]:
        assert row["information"] in ("none", "bound", "predicted", "oracle")
        assert row["note"], row["name"]
        assert row["source"], row["name"]


def test_engines_are_listed_by_model_and_gpu(command: Command) -> None:
    code, out, err = command("list", "costs", "--model", "qwen3-32b", "--gpu", "h100")
    assert (code, err) == (0, "")
    assert "qwen3-32b@h100x2/sglang" in out and "h200" not in out and "KV tokens" in out and "…" not in out
    rows = json.loads(command("list", "costs", "--model", "Qwen3-32B", "--json").out)["costs"]
    one = next(row for row in rows if row["name"] == "qwen3-32b@h100x2")
    assert one["num_devices"] == 2 and one["max_num_seqs"] == 1024 and one["usd_per_hour"] == 6.4
    assert "qwen3-32b" in command("list", "costs").out


@pytest.mark.parametrize(("columns", "left_out"), [("80", "silicon, fit error"), ("100", "silicon"), ("140", "")])
def test_engines_lose_columns_rather_than_digits(
    command: Command, monkeypatch: pytest.MonkeyPatch, columns: str, left_out: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = command("list", "costs", "--model", "qwen3-32b").out
    assert "…" not in out and "306,800" in out
    assert max(map(len, out.splitlines())) <= int(columns)
    assert f"too wide for this output: {left_out}" in out if left_out else "too wide" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("costs", "--model", "qwen3-23b"), "--model 'qwen3-23b' has no engine here; did you mean 'qwen3-32b'?"),
        (("costs", "--gpu", "tpu"), "--gpu 'tpu' has no engine here; expected one of a100"),
        (("envs", "--model", "qwen3-32b"), "--model and --gpu choose among costs"),
    ],
)
def test_engines_that_are_not_there(command: Command, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = command("list", *arguments)
    assert code == 2 and message in err and err.count("\n") == 1


def test_former_names_of_policies_are_shown(command: Command) -> None:
    rows = {row["name"]: row for row in json.loads(command("list", "policies", "--json").out)["policies"]}
    assert rows["vllm-0.13"]["aliases"] == ["vllm-v1"]
    assert "vllm-v1-full-isl" in rows["vllm"]["aliases"]
    assert "vllm-v1" not in rows
    assert rows["sarathi"]["aliases"] == rows["sglang-lpm"]["aliases"] == []
    assert "vllm-v1-full-isl" in command("list", "policies").out


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"{infermax_gym.__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["bench", "--help"], ["simulate", "-h"], ["list", "-h"]])
def test_help(command: Command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "Usage: infermax" in out


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (options.KvTokens, "num_kv_tokens"),
        (options.BlockSize, "block_size"),
        (options.MaxNumBatchedTokens, "max_num_batched_tokens"),
        (options.MaxNumSeqs, "max_num_seqs"),
    ],
)
def test_help_shows_the_defaults_of_the_engine(option: object, field: str) -> None:
    (metadata,) = option.__metadata__  # type: ignore[attr-defined]
    assert metadata.show_default == str(getattr(EngineConfig(), field))


def test_help_shows_the_default_cost() -> None:
    (metadata,) = options.Cost.__metadata__  # type: ignore[attr-defined]
    assert metadata.show_default == EngineConfig().cost.name


def run(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infermax_gym", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)  # type: ignore[call-overload,no-any-return]


def test_module_is_the_command() -> None:
    outcome = run("list", "costs", "--json")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert json.loads(outcome.stdout)["costs"]


def test_process_reports_bad_input() -> None:
    outcome = run("bench", "--workload", "no-such-workload")
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.count("\n") == 1


def test_a_reader_may_leave_early() -> None:
    """`infermax list policies | head -1` ends without complaint."""
    code = "import sys; from infermax_gym.cli import main; sys.exit(main(['list', 'policies', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=120), errors) == (0, "")
