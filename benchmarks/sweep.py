"""What the driver of a sweep spends on a scenario, apart from running it: `python benchmarks/sweep.py`.

Seconds of this process, so that others on the machine do not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from infermax_gym.sweep import Outcome, Shared, Store, Task, key_of, run_in_processes
from infermax_gym.sweep.tasks import Work

FIGURES = {f"ttft_s_{i}": 0.1 * i for i in range(40)}


def load(recipe: None) -> None:
    """Nothing."""


def run(argument: int, shared: None) -> dict[str, float]:
    """Figures as many as a scenario has."""
    return FIGURES


def main() -> None:
    """Print microseconds a scenario."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenarios", type=int, default=500)
    count = parser.parse_args().scenarios
    start = time.process_time()
    tasks = [Task(key_of({"number": i, "engine": FIGURES}), i, Shared("", None)) for i in range(count)]
    planned = time.process_time()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)).opened() as store:
        store.add(Outcome(tasks[0], FIGURES, None, 1, 0.1), {"policy": "vllm", "seed": 0})  # imports pyarrow
        began = time.process_time()
        for task in tasks:
            store.add(Outcome(task, FIGURES, None, 1, 0.1), {"policy": "vllm", "seed": 0})
        stored = time.process_time()
        store.keys()
        looked = time.process_time()
    sent = time.process_time()
    assert all(outcome.error is None for outcome in run_in_processes(Work(load, run), tasks, num_workers=2))
    answered = time.process_time()
    for what, seconds in (
        ("plan", planned - start), ("send and receive", answered - sent), ("store", stored - began),
        ("look up again", looked - stored),
    ):  # fmt: skip
        print(f"{what:18} {1e6 * seconds / count:8.0f} us a scenario")


if __name__ == "__main__":
    main()
