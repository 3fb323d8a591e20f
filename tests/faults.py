"""Runs that are killed at random moments, run out of disk, or cannot write: by hand, with a count.

    python -m tests.faults --rounds 100 --seed 0

Each round takes one command, kills it by SIGKILL at a moment drawn from its usual length, or limits the size of the
files it may write, and then checks its folder: whatever stands there under the name of a result is whole, a rerun
ends with exit code 0, and its results are those of an undisturbed run.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SMALL = ["--workload", "azure-conv", "--first", "300", "--kv-tokens", "20000"]
_INSTANCE = {
    "requests": [{"arrival_s": 0.1 * i, "num_prompt_tokens": 2 + i, "num_output_tokens": 5} for i in range(6)],
    "kv_tokens": 24,
    "cost": "llama2-7b-a100",
}
_SWEEP = {
    "policies": ["vllm", "sarathi"], "workloads": [{"source": "azure-conv", "first": 200}], "seeds": 6,
    "engines": [{"kv_tokens": 20_000}],
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command and what it leaves.

    Attributes:
        arguments: from the folder of its results to what follows the interpreter.
        results: from that folder to what of it must be equal in every run; raises where a result is not whole.
        again: what a rerun adds to the arguments.
    """

    arguments: Callable[[Path], list[str]]
    results: Callable[[Path], Any]
    again: tuple[str, ...] = ()


def _command(*arguments: str) -> list[str]:
    return ["-m", "infermax_gym", *arguments]


def _config(folder: Path, name: str, document: Mapping[str, Any]) -> str:
    path = folder.parent / name
    path.write_text(json.dumps(document))
    return str(path)


def _of_bench(folder: Path) -> Any:
    found: dict[str, Any] = {}
    if (folder / "summary.json").exists():
        found = json.loads((folder / "summary.json").read_text())
        for figures in found["policies"].values():
            del figures["wall_s"]
    if (folder / "results.csv").exists():
        lines = list(csv.reader((folder / "results.csv").open()))
        assert len({len(line) for line in lines}) == 1
    return found


def _of_simulate(folder: Path) -> Any:
    found = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
    for name, data in found.items():
        assert data.endswith(b"\n") or name == "trace.json"
        for line in data.decode().splitlines() if name.endswith("jsonl") else ():
            json.loads(line)
    return found


def _of_sweep(folder: Path) -> Any:
    import pyarrow.parquet

    found = {}
    for path in folder.glob("results/part=*/*.parquet"):
        pyarrow.parquet.read_table(path)
        found[path.name] = path.read_bytes()
    return found


def _of_tune(folder: Path) -> Any:
    """Which entries there are: what is found depends on the machine's speed."""
    path = folder / "tune.json"
    return {name: True for name in json.loads(path.read_text())} if path.exists() else {}


_NUM_SERVED = 300


def write_log(folder: Path) -> None:
    """What the plug-in notes of a server that serves one request after another."""
    from infermax_gym.vllm.errors import PlugInError
    from tests.vllm.test_steplog import Server, serve_one

    try:
        server = Server(folder)
    except PlugInError as error:  # a server that cannot begin its log does not start
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for number in range(_NUM_SERVED):
        serve_one(server, f"{number}")


def _of_log(folder: Path) -> Any:
    """The iterations that the log has, by number; the last line may be cut."""
    from infermax_gym.workload import WorkloadError
    from infermax_gym.workload.step_log import read_steps

    try:
        return dict(enumerate(step.batch for step in read_steps(folder).steps))
    except WorkloadError as error:
        assert "finished" in str(error) or "holds no step log" in str(error), error
        return {}


def _of_training(folder: Path) -> Any:
    import safetensors.numpy

    for name in ("checkpoint.safetensors", "policy.safetensors"):
        if (folder / name).exists():
            safetensors.numpy.load((folder / name).read_bytes())
    weights = folder / "policy.safetensors"
    return {} if not weights.exists() else {k: v.tobytes() for k, v in safetensors.numpy.load_file(weights).items()}


_TRAIN = ["train.py", "--algo", "ppo", "--steps", str(6 * 4 * 32), "--requests", "30", "--slices", "1"]
_TRAIN += ["--kv-tokens", "8000", "--lanes", "4", "--rollout", "32", "--every", "1"]

CASES = {
    "bench": Case(
        lambda folder: _command("bench", *_SMALL, "--policies", "vllm,srf", "--out", str(folder)), _of_bench
    ),
    "simulate": Case(
        lambda folder: _command(
            "simulate", *_SMALL, "--policy", "vllm", "--requests-out", str(folder / "requests.csv"),
            "--schedule-out", str(folder / "schedule.jsonl"),
        ),
        _of_simulate,
    ),
    "optimal": Case(
        lambda folder: _command(
            "optimal", _config(folder, "instance.json", _INSTANCE), "--objective", "makespan", "--workers", "1",
            "--schedule-out", str(folder / "schedule.jsonl"),
        ),
        _of_simulate,
    ),
    "sweep": Case(
        lambda folder: _command(
            "sweep", _config(folder, "sweep.json", _SWEEP), "--out", str(folder), "--executor", "processes",
            "--jobs", "2",
        ),
        _of_sweep,
    ),
    "tune": Case(
        lambda folder: _command(
            "tune", *_SMALL, "--slo", "ttft=1,tpot=0.05", "--budget", "12", "--jobs", "1", "--out", str(folder)
        ),
        _of_tune,
    ),
    "step log": Case(lambda folder: ["-m", "tests.faults", "--write-log", str(folder)], _of_log),
    "train": Case(lambda folder: [*_TRAIN, "--out", str(folder)], _of_training),
}  # fmt: skip


def run(case: Case, folder: Path, *, kill_after_s: float | None = None, most_bytes: int | None = None) -> Any:
    """Run a command to its end, or to its kill; returns its exit code and what it said on standard error."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    folder.mkdir(exist_ok=True)
    arguments = [sys.executable, *case.arguments(folder)]
    if "train.py" in arguments and (folder / "checkpoint.safetensors").exists():
        arguments.append("--resume")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=limit,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return -9, ""
    return process.returncode, said


def measure(case: Case, folder: Path) -> tuple[Any, float]:
    """The results of an undisturbed run, and how long another takes: the first may have to compile."""
    code, said = run(case, folder)
    assert code == 0, said
    whole = case.results(folder)
    shutil.rmtree(folder)
    began = time.monotonic()
    code, said = run(case, folder)
    assert code == 0, said
    return whole, time.monotonic() - began


def check_kill(case: Case, folder: Path, whole: Any, after_s: float) -> tuple[str, float]:
    """Kill a run, look at what it left, and let another finish it.

    Returns:
        Whether the kill came in time, and the time of an undisturbed run that this round saw, seconds, inf if none.
    """
    began = time.monotonic()
    code, _ = run(case, folder, kill_after_s=after_s)
    took_s = math.inf if code == -9 else time.monotonic() - began
    left = case.results(folder)
    if isinstance(whole, dict):
        assert all(whole[name] == value for name, value in left.items()), "a result that no run would leave"
    code_again, said = run(case, folder)
    assert code_again == 0, said
    assert case.results(folder) == whole, "a rerun's results are others"
    return ("killed" if code == -9 else "finished before the kill"), took_s


def check_full_disk(case: Case, folder: Path, most_bytes: int) -> str:
    """Let a run hit the limit on the size of its files: one line, exit code 2, nothing half-written."""
    code, said = run(case, folder, most_bytes=most_bytes)
    lines = [line for line in said.splitlines() if "error:" in line]
    assert code in (0, 2), said
    assert (code == 0) == (not lines) and "Traceback" not in said, said
    case.results(folder)
    assert not list(folder.rglob(".*.part")), "a temporary file stays"
    return "disk full" if code or "the step log ends here" in said else "fitted"


def main() -> None:
    """Run rounds and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--write-log", type=Path, help="instead write a step log into this folder")
    options = parser.parse_args()
    if options.write_log is not None:
        return write_log(options.write_log)
    began = time.monotonic()
    rng, count = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        known: dict[str, tuple[Any, float]] = {}  # by command: its results, and its shortest time so far
        for number in range(options.rounds):
            if time.monotonic() - began > options.seconds:
                break
            kind = rng.choice(options.cases.split(","))
            case = CASES[kind]
            if kind not in known:
                known[kind] = measure(case, base / kind)
            whole, usual_s = known[kind]
            folder = base / f"round-{number}"
            if rng.random() < 0.8:
                outcome, took_s = check_kill(case, folder, whole, rng.random() * usual_s)
                known[kind] = whole, min(usual_s, took_s)
            else:
                outcome = check_full_disk(case, folder, rng.choice([0, 100, 1_000, 10_000]))
            count[f"{kind}: {outcome}"] += 1
            shutil.rmtree(folder)
            print(f"{number + 1:4} {kind}: {outcome}", flush=True)
    for what, times in sorted(count.items()):
        print(f"{times:6} {what}")


if __name__ == "__main__":
    main()
