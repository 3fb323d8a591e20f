"""Whatever is typed wrong gives exit code 2 and one line that says what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command

NEEDS_WORKLOAD = [
    (["--policies", "vlm-0.13"], "did you mean 'vllm-0.13'?"),
    (["--policies", "%%%"], "infermax list policies"),
    (["--policies", ","], "names no policy"),
    (["--cost", "lama2-7b-a100"], "did you mean 'llama2-7b-a100'?"),
    (["--cost", "missing.json"], "missing.json"),
    (["--slo", "ttft=fast"], "expected ttft=S"),
    (["--slo", "ttft=1,ttft=2"], "each once"),
    (["--slo", "ttft=-1"], "expected ttft=S"),
    (["--slo", "speed=1"], "expected ttft=S"),
    (["--by", "user"], "--by must be tenant or slo-class, got 'user'"),
    (["--rate", "0"], "--rate must be a positive number"),
    (["--time-scale", "nan"], "--time-scale must be a positive number"),
    (["--rate", "1", "--time-scale", "2"], "exclude each other"),
    (["--kv-tokens", "8"], "--kv-tokens (8) must hold at least one block of 16"),
    (["--kv-tokens", "0"], "--kv-tokens"),
    (["--kv-tokens", "many"], "--kv-tokens"),
    (["--seeds", "0"], "--seeds"),
    (["--skip", "-1"], "--skip"),
    (["--first", "0"], "--first"),
    (["--frist", "3"], "--first"),
    (["--agent", "no-such-agent"], "--agent no-such-agent"),
    (["extra"], "extra"),
]


def check(outcome: tuple[int, str, str], hint: str) -> None:
    code, out, err = outcome
    assert code == 2
    assert out == ""
    assert err.startswith("infermax: error: ")
    assert err.count("\n") == 1
    assert hint in err


@pytest.mark.parametrize(("arguments", "hint"), NEEDS_WORKLOAD, ids=lambda value: " ".join(value).strip()[:40])
def test_bench_options(command: Command, trace: Path, arguments: list[str], hint: str) -> None:
    check(command("bench", "--workload", trace, *arguments), hint)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["nope"], "nope"),
        (["bench"], "--workload"),
        (["list"], "policies|routers|costs"),
        (["list", "things"], "expected one of policies, routers, costs, devices, models, workloads, envs, agents"),
        (["bench", "--workload", "no-such-workload"], "no-such-workload"),
        (["bench", "--workload", "no-such-file.csv"], "no-such-file.csv"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_commands(command: Command, arguments: list[str], hint: str) -> None:
    check(command(*arguments), hint)


def test_a_broken_trace_is_named_with_its_line(command: Command, trace: Path) -> None:
    lines = trace.read_text().splitlines()
    lines[3] = "0.2,many,5"
    trace.write_text("\n".join(lines) + "\n")
    outcome = command("bench", "--workload", trace)
    check(outcome, f"{trace}:4")


@pytest.mark.parametrize("arguments", [[], ["--policy", "vllm-v1", "--agent", "x"]])
def test_simulate_wants_one_policy(command: Command, trace: Path, arguments: list[str]) -> None:
    check(command("simulate", "--workload", trace, *arguments), "either --policy NAME or --agent PATH")


@pytest.mark.parametrize("option", ["--requests-out", "--schedule-out", "--trace-out"])
def test_output_files_are_checked_before_the_work(command: Command, trace: Path, option: str) -> None:
    arguments = ("simulate", "--workload", trace, "--policy", "vllm-v1", option)
    check(command(*arguments, trace.parent / "missing" / "x"), "does not exist")
    check(command(*arguments, trace.parent), "is a folder")


def test_output_folder_is_checked_before_the_work(command: Command, trace: Path) -> None:
    check(command("bench", "--workload", trace, "--out", trace), "cannot write")


def test_faults_of_ours_are_not_dressed_up(command: Command, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("infermax_gym.evaluation.contenders.simulate", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        command("bench", "--workload", trace, "--policies", "vllm-v1")
