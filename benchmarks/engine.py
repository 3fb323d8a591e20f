"""How fast the engine is: replays, fast-forward, long queues, a million requests, and the first second of a process.

    python benchmarks/engine.py [--trace PATH] [--json]

Everything runs on one core; times are the best of several repetitions, in seconds of that core's work, so that a
neighbour on a shared machine does not count (starting processes is timed by the clock on the wall).
docs/performance.md explains the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.engine.kernel.run import run
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.session import run_to
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload, load_workload

ROOT = Path(__file__).resolve().parents[1]
NUM_REQUESTS = 12_000
CONFIG = EngineConfig(num_kv_tokens=100_000, max_num_batched_tokens=512)
TIME_SCALES = (1.0, 1.45)
PROGRESS = Console(stderr=True)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Figure:
    """One number that was measured.

    Attributes:
        group: what was looked at.
        name: which figure of it.
        value: the number.
        unit: its unit.
        target: what it should be, in words; empty where nothing was promised.
        met: whether it is; None without a target.
    """

    group: str
    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None


def at_least(group: str, name: str, value: float, unit: str, bound: float) -> Figure:
    """A figure that should not fall below a bound."""
    return Figure(group, name, value, unit, f">= {bound:g}", value >= bound)


def at_most(group: str, name: str, value: float, unit: str, bound: float) -> Figure:
    """A figure that should not exceed a bound."""
    return Figure(group, name, value, unit, f"<= {bound:g}", value <= bound)


def best(repetitions: int, timed: Callable[[], float]) -> float:
    """The smallest of several times, in seconds."""
    return min(timed() for _ in range(repetitions))


def replay(workload: Workload, policy: Policy, fast_forward: bool) -> tuple[float, Engine]:
    """Seconds that the kernel takes for a whole workload, and the engine it leaves."""
    engine = allocate(workload, CONFIG, policy, predictions(policy, workload))
    recorder = Recorder()
    start = time.process_time()
    goes_on = run_to(engine, recorder, fast_forward=fast_forward)
    seconds = time.process_time() - start
    assert not goes_on
    return seconds, engine


def whole(workload: Workload, policy: Policy) -> float:
    """Seconds of `simulate`, from the requests to the per-request records."""
    predicted = predictions(policy, workload)
    start = time.process_time()
    simulate(workload, CONFIG, policy, predicted=predicted)
    return time.process_time() - start


def replays(workload: Workload, repetitions: int, say: Say) -> list[Figure]:
    """Iterations per second, wall time and decisions saved, at two loads."""
    figures = []
    for scale in TIME_SCALES:
        scaled = workload.scaled(scale)
        for name in ("sarathi", "vllm-0.13"):
            say(f"{name}, arrivals x {scale:g}")
            policy = POLICIES[name]
            group = f"{name}, {len(workload):,} requests, arrivals x {scale:g}"
            record = replay(scaled, policy, True)[1].record[0]
            iterations, decisions = int(record["num_iterations"]), int(record["num_decisions"])
            step_s = best(repetitions, lambda s=scaled, p=policy: replay(s, p, False)[0])  # type: ignore[misc]
            fast_s = best(repetitions, lambda s=scaled, p=policy: replay(s, p, True)[0])  # type: ignore[misc]
            whole_s = best(repetitions, lambda s=scaled, p=policy: whole(s, p))  # type: ignore[misc]
            figures += [
                Figure(group, "iterations", iterations, ""),
                at_least(group, "step by step", iterations / step_s / 1e6, "M iterations/s", 5.0),
                Figure(group, "with fast-forward", iterations / fast_s / 1e6, "M iterations/s"),
                at_most(group, "whole replay", whole_s * 1e3, "ms", 60.0),
                at_least(group, "iterations per decision", iterations / decisions, "", 3.0),
            ]
    return figures


def backlog(name: str, num_requests: int, repetitions: int) -> float:
    """Seconds per iteration while so many requests wait.

    All arrive within the first second (an iteration takes a twentieth of that), with prompts and outputs in a
    narrow band, so that the batches of a long and of a short queue look alike.
    """
    rng = np.random.default_rng(0)
    workload = Workload(
        np.sort(rng.uniform(0.0, 1.0, num_requests)),
        rng.integers(900, 1101, num_requests),
        rng.integers(150, 251, num_requests),
    )
    engine = allocate(workload, CONFIG, POLICIES[name])
    run(engine.core, NO_LIMIT, 10.0, False)
    num_iterations = 500

    def timed() -> float:
        copy = engine.copy()
        start = time.process_time()
        run(copy.core, num_iterations, np.inf, False)
        seconds = time.process_time() - start
        assert copy.record["num_waiting"][0] > 0.5 * num_requests
        return seconds

    return best(10 * repetitions, timed) / num_iterations


def backlogs(repetitions: int, say: Say) -> list[Figure]:
    """What an iteration costs with 100,000 requests waiting, against 1,000."""
    figures = []
    for name in ("shortest-prompt-first", "hrrn", "larry", "spf-headroom", "sarathi"):
        say(f"long queues, {name}")
        short_s, long_s = backlog(name, 1_000, repetitions), backlog(name, 100_000, repetitions)
        group = f"{name}, requests waiting"
        figures += [
            Figure(group, "1,000", short_s * 1e9, "ns/iteration"),
            Figure(group, "100,000", long_s * 1e9, "ns/iteration"),
            at_most(group, "100,000 over 1,000", long_s / short_s, "times", 3.0),
        ]
    return figures


def repeated(workload: Workload, num_requests: int) -> Workload:
    """The workload again and again, one copy after another, until there are so many requests."""
    copies = -(-num_requests // len(workload))
    span_s = float(workload.arrival_s[-1]) * (1 + 1 / len(workload))
    arrival_s = (np.arange(copies)[:, None] * span_s + workload.arrival_s).ravel()[:num_requests]
    prompts = np.tile(workload.num_prompt_tokens, copies)[:num_requests]
    return Workload(arrival_s, prompts, np.tile(workload.num_output_tokens, copies)[:num_requests])


def million(source: str, time_scale: float) -> dict[str, float]:
    """One million requests, for a process of its own: seconds, iterations, and peak memory in MiB."""
    small = load_workload(source, first=NUM_REQUESTS, time_scale=time_scale)
    simulate(small.trace_slice(0, 1), CONFIG, POLICIES["sarathi"])  # load the compiled engine
    workload = repeated(small, 1_000_000)
    before = peak_mib()
    start = time.process_time()
    result = simulate(workload, CONFIG, POLICIES["sarathi"])
    seconds = time.process_time() - start
    return {"seconds": seconds, "num_iterations": result.num_iterations, "before_mib": before, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Most memory that this process has held, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def millions(source: str, say: Say) -> list[Figure]:
    """One million requests at two loads."""
    figures = []
    for scale in TIME_SCALES:
        say(f"one million requests, arrivals x {scale:g}")
        code = f"import json, benchmarks.engine as e; print(json.dumps(e.million({source!r}, {scale})))"
        seen: dict[str, float] = json.loads(python("-c", code)[1])
        group = f"sarathi, 1,000,000 requests, arrivals x {scale:g}"
        figures += [
            Figure(group, "iterations", seen["num_iterations"], ""),
            at_most(group, "whole replay", seen["seconds"], "s", 10.0),
            at_most(group, "peak memory of the process", seen["peak_mib"], "MiB", 1024.0),
        ]
    return figures


def python(*arguments: str, **variables: str) -> tuple[float, str]:
    """Wall seconds and output of a fresh Python process in the repository."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start, done.stdout


ONE_REQUEST = (
    "from infermax_gym.engine import EngineConfig, Policy, simulate; from infermax_gym.workload import Workload;"
    "simulate(Workload([0.0], [10], [3]), EngineConfig(), Policy('first'))"
)


def starts(repetitions: int, say: Say) -> list[Figure]:
    """What a fresh process waits for: the import, and the first simulation with and without compiled code on disk."""
    say("starting processes")
    empty_s = best(repetitions, lambda: python("-c", "pass")[0])
    import_s = best(repetitions, lambda: python("-c", "import infermax_gym")[0])
    with tempfile.TemporaryDirectory() as folder:
        first_s = python("-c", ONE_REQUEST, NUMBA_CACHE_DIR=folder)[0]
        second_s = best(repetitions, lambda: python("-c", ONE_REQUEST, NUMBA_CACHE_DIR=folder)[0])
    return [
        at_most("process", "import infermax_gym", import_s - empty_s, "s", 0.8),
        Figure("process", "first simulation ever (compiles)", first_s, "s"),
        at_most("process", "first simulation of a later process", second_s, "s", 2.0),
    ]


PUBLIC_RATES = (
    ("INFERMAX's simulator (Python)", "2,000 to 12,000"),
    ("vLLM V1's scheduler with a fake runner (Python)", "6,000 to 15,000"),
)
"""Iterations per second of the public peers on the same kind of traffic, as measured for the project's oracles."""


def show(figures: list[Figure], seconds: float) -> None:
    """Print the figures as a table."""
    table = Table("what", "figure", "value", "target", title="engine, one core, best of several")
    table.columns[2].justify = "right"
    group = ""
    for figure in figures:
        if figure.group != group and group:
            table.add_section()
        value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"
        mark = "" if figure.met is None else (" met" if figure.met else " MISSED")
        shown = figure.group if figure.group != group else ""
        table.add_row(shown, figure.name, f"{value} {figure.unit}".rstrip(), figure.target + mark)
        group = figure.group
    table.add_section()
    for name, rate in PUBLIC_RATES:
        table.add_row("for comparison", name, f"{rate} iterations/s", "")
    Console(width=None if sys.stdout.isatty() else 130).print(table)
    print(f"{seconds:.0f} s in all")


def pin() -> None:
    """Stay on one core, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trace", default="azure-conv", help="a preset or a trace file (default: azure-conv)")
    parser.add_argument("--repetitions", type=int, default=7, help="of each measurement (default: 7)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    pin()
    start = time.perf_counter()
    with PROGRESS.status("loading", spinner="line") as status:

        def say(what: str) -> None:
            status.update(what)

        workload = load_workload(options.trace, first=NUM_REQUESTS)
        replay(workload.trace_slice(0, 10), POLICIES["sarathi"], True)  # load the compiled engine
        figures = replays(workload, options.repetitions, say)
        figures += backlogs(options.repetitions, say)
        figures += millions(options.trace, say)
        figures += starts(options.repetitions, say)
    if options.json:
        document: dict[str, Any] = {"schema": 1, "trace": options.trace, "figures": [asdict(f) for f in figures]}
        print(json.dumps(document, indent=2))
    else:
        show(figures, time.perf_counter() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
