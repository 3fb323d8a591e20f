"""`infermax sweep`: kills of workers and of the driver lose nothing, do nothing twice, change no byte."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infermax_gym.cli import main

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra sweep)")
pytest.importorskip("yaml", reason="pyyaml is not installed (extra sweep)")

CONFIG = """
policies: [vllm, sarathi]
workloads: [{source: azure-conv, first: 60}]
engines: [{kv_tokens: 40000}]
loads: [2.0, {concurrency: 8}]
seeds: 3
slo: ttft=2.0,tpot=0.1
"""
ROOT = Path(__file__).resolve().parents[2]


def command(config: Path, out: Path, *more: str, executor: str = "processes") -> list[str]:
    return ["sweep", str(config), "--out", str(out), "--executor", executor, "--jobs", "2", *more]


def workers_below(pid: int) -> list[int]:
    """Processes that run scenarios, below a driver: its children, or Ray's workers among its descendants."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            found += [child] if b"spawn_main" in words or words.startswith(b"ray::_once") else workers_below(child)
    return found


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("results/part=*/*.parquet"))}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def whole(config: Path) -> dict[str, bytes]:
    out = config.parent / "whole"
    assert main(command(config, out)) == 0
    return results(out)


def test_sizes_and_times_beforehand(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(config, tmp_path / "out", "--dry-run", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["scenarios"] == said["missing"] == 12 and said["kept"] == 0 and said["estimated_s"] >= 0.0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_killed_workers_and_driver(config: Path, tmp_path: Path, whole: dict[str, bytes], executor: str) -> None:
    """Nothing is lost, nothing is done twice, and every executor leaves the same bytes."""
    if executor == "ray":
        pytest.importorskip("ray", reason="ray is not installed (pip install 'infermax-gym[ray]')")
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "infermax_gym", *command(config, out, executor=executor)]
    process = subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120.0
    killed_worker = False
    while process.poll() is None and time.monotonic() < deadline:
        if results(out) and not killed_worker:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that ends while we look
                os.kill(workers_below(process.pid)[-1], signal.SIGKILL)
                killed_worker = True
        if len(results(out)) >= 4:
            process.kill()
        time.sleep(0.002)
    process.wait()
    before = results(out)
    assert before and before.items() <= whole.items()
    times = {path: path.stat().st_mtime_ns for path in out.glob("results/part=*/*.parquet")}
    ended = subprocess.run([*arguments, "--json"], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["kept"] == len(before)
    assert results(out) == whole
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in times.items())  # nothing twice
    assert not list(out.rglob("*.part"))


def test_a_rerun_has_nothing_to_do(config: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(config, config.parent / "whole", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kept"], said["computed"], said["failed"]) == (12, 0, [])


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("policies: [vllm]", "workloads must be a list"),
        ("policies: [nobody]\nworkloads: [azure-conv]", "nobody"),
        ("policies: []\nworkloads: [azure-conv]", "names no policy"),
        ("policies: [vllm]\nworkloads: [azure-conv]\nseeds: 0", "seeds"),
        ("policies: [vllm]\nworkloads: [azure-conv]\nloads: [{rate: fast}]", "rate must be a number"),
        ("policies: [vllm]\nworkloads: [azure-conv]\nloads: [-1.0]", "rate must be a positive number"),
        ("policies: [vllm]\nworkloads: [azure-conv]\nengines: [{kv_tokens: 0}]", "kv_tokens must be a whole"),
        ("policies: [vllm]\nworkloads: [azure-conv]\nseeds: 1000000\nloads: [1, 2]", "at most 1,000,000"),
        ("policies: [vllm]\nworkloads: [{first: 3}]", "has no source"),
        ("polices: [vllm]", "unknown entry"),
    ],
)
def test_mistakes_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, hint: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert main(command(path, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and hint in error and not (tmp_path / "out").exists()


def test_an_unusable_workload_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("azure-conv", str(tmp_path / "missing.csv")))
    assert main(command(path, tmp_path / "out")) == 2
    captured = capsys.readouterr()
    assert "12 of 12 scenarios failed" in captured.err and "no such file" in captured.err
    assert len(json.loads((tmp_path / "out" / "failures.json").read_text())) == 12
