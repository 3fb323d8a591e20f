"""Random engines and fleets, the invariants checked after every iteration: `python -m tests.engine.fuzz --decisions N`.

A decision is one iteration: who runs, who is admitted, who is preempted. Policies are any combination of knobs, from
`tests.engine.strategies`; caches are tiny. One engine in 25 has a prefix cache, whose checker is in Python and slow;
every third case is followed by a fleet, with or without migration, whose engines are checked at its end. By hand with
many decisions; the tests run a short round.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from infermax_gym.cluster import Fleet, Router
from infermax_gym.cluster.simulate import FleetRun
from infermax_gym.engine import EngineConfig, InvariantChecker, Policy, SchedulerError
from infermax_gym.engine.kernel.run import DONE, LOG_FULL
from infermax_gym.engine.layout import FINISHED, REJECTED
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.state import allocate
from infermax_gym.workload import Workload, closed_loop
from tests.cluster.strategies import fleets, migrations, routers
from tests.engine.strategies import configs, policies

NUM_REQUESTS, NUM_CACHED, PER_ENGINE = 400, 40, 16
_ROUND = 8  # cases that are drawn at a time


def traffic(rng: np.random.Generator, count: int, *, closed: bool, shared: bool) -> Workload:
    """Bursts and pauses, short and long, of three tenants; with beginnings in common, or with clients who wait."""
    gaps_s = rng.choice([0.0, 0.0, 0.001, 0.02, 0.3], count) * rng.choice([0.1, 1.0])
    prompts, outputs = rng.integers(1, rng.choice([4, 41]), count), rng.integers(1, rng.choice([4, 26, 60]), count)
    more: dict[str, object] = {}
    if shared:
        size = int(rng.choice([1, 4, 16]))
        counts = -(-prompts // size)
        hashes = np.concatenate([np.r_[np.zeros(k // 2, int), np.full(k - k // 2, rng.integers(3))] for k in counts])
        more = {"prefix_blocks": hashes, "prefix_start": np.r_[0, np.cumsum(counts)], "prefix_block_size": size}
    workload = Workload(
        np.cumsum(gaps_s), prompts, outputs,
        priority=rng.integers(0, 3, count), tenant=rng.integers(0, 3, count), tenant_names=("a", "b", "c"),
        ttft_slo_s=rng.choice([0.1, 1.0, np.inf], count), tpot_slo_s=rng.choice([0.01, 0.2, np.inf], count),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return closed_loop(workload, int(rng.integers(1, 40)), float(rng.choice([0.0, 0.01]))) if closed else workload


def predicted(rng: np.random.Generator, workload: Workload) -> np.ndarray:
    """Exact or wild output lengths."""
    return np.maximum(1.0, workload.num_output_tokens * rng.choice([1.0, 1.0, 0.1, 5.0], len(workload)))


def check_engine(policy: Policy, config: EngineConfig, rng: np.random.Generator) -> tuple[str, int]:
    """One engine to its end, or to where its policy leaves it stuck; its iterations."""
    caching, closed = rng.random() < 0.04, rng.random() < 0.3
    workload = traffic(rng, NUM_CACHED if caching else NUM_REQUESTS, closed=closed, shared=caching)
    engine = allocate(workload, replace(config, prefix_caching=caching), policy, predicted(rng, workload))
    checker, recorder = InvariantChecker(engine), Recorder()
    while (code := checker.run()) == LOG_FULL:
        recorder.empty(engine)
    checker.check_now()
    core = engine.record[0]
    if code == DONE:
        assert np.isin(engine.requests["place"][: len(workload)], (FINISHED, REJECTED)).all()
    kind = "prefix cache" if caching else "closed loop" if closed else "open"
    return f"engine, {kind}{'' if code == DONE else ', stuck'}", int(core["num_iterations"])


def check_fleet(fleet: Fleet, router: Router, rng: np.random.Generator) -> tuple[str, int]:
    """One fleet to its end; the iterations of its engines."""
    shared = fleet.replicas[0].config.prefix_caching
    workload = traffic(rng, NUM_REQUESTS, closed=rng.random() < 0.3, shared=shared)
    run = FleetRun(workload, fleet, router, predicted(rng, workload))
    moves = "fleet" if fleet.migration is None else "fleet, migration"
    try:
        draws = rng.random((len(workload), max(1, router.num_choices)))
        run.route(draws, predicted=predicted(rng, workload))
        run.finish()
    except SchedulerError:
        moves += ", stuck"
    engines = run.state.engines
    for engine in engines:
        InvariantChecker(engine.copy()).check_now()
    return moves, sum(int(engine.record["num_iterations"][0]) for engine in engines)


def run_round(first_seed: int, num_cases: int, count: Counter[str]) -> None:
    """Draw cases, check them, and count iterations by kind of case."""

    @seed(first_seed)
    @settings(
        max_examples=num_cases, database=None, deadline=None, phases=[Phase.generate], report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(policies(), configs(), fleets(), st.none() | migrations(), routers(), st.integers(0, 2**31))
    def check(policy, config, fleet, migration, router, number):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(number)  # what is not drawn by the strategies
        for i in range(PER_ENGINE):
            kind, num_decisions = check_engine(policy, config, rng)
            count[kind] += num_decisions
            if i % 3 == 2:
                kind, num_decisions = check_fleet(replace(fleet, migration=migration), router, rng)
                count[kind] += num_decisions

    check()


def main() -> None:
    """Run rounds and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    options = parser.parse_args()
    count: Counter[str] = Counter()
    began, used, number = time.monotonic(), time.process_time(), options.seed
    while count.total() < options.decisions and time.monotonic() - began < options.seconds:
        run_round(number, _ROUND, count)
        if number % 10 == 0:
            print(f"{count.total():12,} decisions, seed {number}", flush=True)
        number += 1
    for kind, times in sorted(count.items()):
        print(f"{times:12,} {kind}")
    used = time.process_time() - used
    print(f"{count.total():12,} decisions in {used:.0f} s of processor time; seeds {options.seed} to {number - 1}")


if __name__ == "__main__":
    main()
