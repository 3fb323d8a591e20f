"""kill -9 in the middle of training, then `--resume`: the same policy as without, to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import train

ROOT = Path(train.__file__).parent
SHORT = ["--requests", "40", "--windows", "1", "--kv-tokens", "8000", "--lanes", "4", "--rollout", "32", "--every", "1"]
STEPS = ["--algo", "ppo", "--steps", str(12 * 4 * 32), *SHORT]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load((folder / "policy.safetensors").read_bytes())


def kill_after_checkpoints(folder: Path, extra_s: float, resume: bool) -> bool:
    """Train in a process of its own and kill it so long after a new checkpoint; whether it was still training."""
    command = [sys.executable, "train.py", *STEPS, "--out", str(folder), *(["--resume"] if resume else [])]
    checkpoint = folder / "checkpoint.safetensors"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
        time.sleep(0.01)
    time.sleep(extra_s)
    killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return killed


def test_killed_and_resumed_is_uninterrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train.main([*STEPS, "--out", str(whole)]) == 0
    rng = np.random.default_rng()
    assert kill_after_checkpoints(broken, float(rng.uniform(0.0, 0.2)), resume=False)
    assert not (broken / "policy.safetensors").exists()
    assert train.main([*STEPS, "--out", str(broken), "--resume"]) == 0
    first, second = weights(whole), weights(broken)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        np.testing.assert_array_equal(weight, second[name])
