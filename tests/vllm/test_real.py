"""The plug-in inside the real vLLM, and vLLM's own scheduler, against the simulator; `make test-vllm` runs them.

They need the environment of scripts/vllm_environment.sh, whose folder INFERMAX_TEST_VLLM names.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = Path(os.environ.get("INFERMAX_TEST_VLLM", "none"))
PYTHON = HOME / "venv" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no environment with vllm; make test-vllm makes it")

SHORT = bool(os.environ.get("INFERMAX_VLLM_SHORT"))  # what continuous integration has the time for
VERSIONS = (None, "0.33.0") if SHORT else (None, "0.13.0", "0.22.1", "0.28.0", "0.33.0")  # None: the one installed
CASES = 44 if SHORT else 90  # each way to schedule at least once


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(HOME / "numba"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    command = [str(PYTHON), "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)


def last_json(text: str) -> Any:
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_real_scheduler_and_the_simulator_decide_alike(version: str | None) -> None:
    """Batches, preemptions and times of every iteration, to the bit."""
    source = [] if version is None else ["--source", str(HOME / "sources" / version)]
    done = run("tests.vllm.fuzz", "--cases", str(CASES), "--first", "3", *source)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = last_json(done.stdout)
    assert record["cases"] == CASES
    assert record["exact"] >= 0.9 * CASES  # the rest kept blocks twice
    assert version is None or record["vllm"] == version


@pytest.mark.parametrize(
    "how",
    ["fcfs"]
    if SHORT
    else ["fcfs", "spf-headroom", "spf-headroom-5", "spf-share", "conv-evolved", "generalist", "any-engine"],
)
def test_the_real_engine_and_the_simulator_decide_alike(how: str) -> None:
    """A tiny model computes; iterations, preemptions and the log are the simulator's."""
    done = run("tests.vllm.engine_case", how)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = last_json(done.stdout)
    assert record["first_difference"] is None
    assert record["num_iterations"] > 500
    assert record["log_differs"] is None


@pytest.mark.parametrize(
    ("how", "asynchronous"),
    [("any-engine", False), ("hrrn", True)]
    if SHORT
    else [
        *[(how, False) for how in ("fcfs", "spf-headroom", "generalist", "any-engine")],
        *[(how, True) for how in ("fcfs", "spf-headroom", "hrrn", "larry", "srf")],  # keys of the last three move
    ],
)
def test_an_emulated_engine_runs_as_the_simulator_says(how: str, asynchronous: bool) -> None:
    """On a virtual clock nothing computes; batches, preemptions and every request's times are the simulator's."""
    done = run("tests.vllm.emulated_case", how, *(["--async-scheduling"] if asynchronous else []))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = last_json(done.stdout)
    assert record["async_scheduling"] is asynchronous
    assert record["num_iterations"] > 1000
    assert record["first_difference"] is None and record["same_times"]
