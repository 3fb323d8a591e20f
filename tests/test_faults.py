"""A short round of `tests.faults`, and faults that need no chance: no home, two runs in one folder, threads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from infermax_gym import files
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cli import main
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import make_workload
from tests import faults

BENCH = ["bench", "--workload", "azure-conv", "--first", "50", "--policies", "vllm,srf"]


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    assert faults.check_full_disk(faults.CASES["bench"], tmp_path / "out", 100) == "disk full"
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_another_run_is_at_work_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with files.locked(tmp_path):
        assert main([*BENCH, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "another run is at work in this folder" in error
    assert main([*BENCH, "--out", str(tmp_path), "--json"]) == 0  # the lock went with its holder


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "x.png"), "x.png: No space left on device"),
        (MemoryError(), "not enough memory"),
    ],
    ids=["disk", "memory"],
)
def test_what_a_machine_lacks_is_one_line(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("infermax_gym.cli.app.app", fail)
    assert main(["list", "costs"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and says in said


def test_no_home(tmp_path: Path) -> None:
    """Nothing is looked for in a home that is not there."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    code = "import infermax_gym, sys; from infermax_gym.cli import main; sys.exit(main(['list', 'policies', '--json']))"
    environment |= {"PYTHONPATH": str(faults.ROOT), "HOME": str(tmp_path / "missing")}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0 and not ran.stderr and json.loads(ran.stdout)
    assert not list(tmp_path.iterdir())


def test_jobs_change_nothing_but_wall_time(capsys: pytest.CaptureFixture[str]) -> None:
    documents = []
    for jobs in ("1", "2"):
        assert main([*BENCH, "--seeds", "2", "--json", "--jobs", jobs]) == 0
        document = json.loads(capsys.readouterr().out)
        for figures in document["policies"].values():
            del figures["wall_s"], figures["ci95"]["wall_s"]
        documents.append(document)
    assert documents[0] == documents[1]


def test_threads_do_not_meet() -> None:
    """Simulations in several threads give the bytes that each gives alone."""
    config = EngineConfig(num_kv_tokens=8_000)
    jobs = [
        (POLICIES[name], make_workload("azure-conv", 400, seed=seed)) for name in ("vllm", "srf") for seed in (0, 1)
    ]
    alone = [simulate(workload, config, policy).finish_s for policy, workload in jobs]
    together: list[np.ndarray | None] = [None] * len(jobs)

    def run(i: int) -> None:
        policy, workload = jobs[i]
        for _ in range(5):
            together[i] = simulate(workload, config, policy).finish_s

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(alone, together, strict=True):
        assert theirs is not None and ours.tobytes() == theirs.tobytes()


def test_signals_and_random_numbers_of_the_caller_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), os.getcwd(), dict(os.environ)
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002
    assert main([*BENCH, "--json", "--jobs", "2"]) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), os.getcwd(), dict(os.environ)) == before
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002
