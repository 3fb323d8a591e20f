"""Every example runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = {
    "random_agent": "300",
    "heuristic_agent": "20000",
    "maskable_ppo": "65536",
    "sb3_ppo_flat": "256",
    "rllib_config": "0",
    "ray_tune": "0",
    "masked_ppo_loop": "1024",
    "learn_to_route": "28800",
    "search_scheduler": "2",
}

SCORES = {
    "random_agent": (r"mean latency (\S+) s", 4.0),
    "heuristic_agent": (r"mean latency (\S+) s", 2.8),
    "learn_to_route": (r"learned +(\S+) s mean latency", 3.2),
    "maskable_ppo": (r"mean latency (\S+) s", 17.0),
}
"""Mean latency in seconds that an example must reach within its budget: where it is printed, and the most it may be."""


def test_every_example_is_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == set(BUDGETS)


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_example(name: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--steps", BUDGETS[name]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
    if name == "heuristic_agent":
        assert "the kernel's schedule: True" in run.stdout
    if name in ("random_agent", "heuristic_agent", "maskable_ppo", "sb3_ppo_flat", "learn_to_route"):
        for what in ("return", "mean latency", "finished"):
            assert what in run.stdout, "a return alone does not say whether anybody was served"
    if name in SCORES:
        pattern, most_s = SCORES[name]
        found = re.search(pattern, run.stdout)
        assert found is not None and float(found.group(1)) <= most_s, run.stdout
    if name == "maskable_ppo":
        assert "by the fallback policy 0.0" in run.stdout
