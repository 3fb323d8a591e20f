"""Long runs whose memory must stay flat: `python benchmarks/soak.py --requests 10000000 --decisions 100000000`.

1. Requests: an engine serves them a million at a time, each million drawn anew and its records let go.
2. Hours: a fleet serves that many simulated hours of the preset azure-conv, an hour at a time.
3. Decisions: a vector environment takes random legal actions; so many decisions over all lanes.
4. Threads: as many threads step one vector environment each, and begin and end all the time.

Memory is this process's resident set. It is printed after a tenth, when caches are filled, and at the end.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_SLICE = 1_000_000


def resident_mib() -> float:
    """Resident memory of this process, MiB; Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024.0
    return float("nan")


def report(what: str, steps: int, step: Callable[[int], int]) -> None:
    """Call `step` so often and print the sum of what it returns, its rate, and memory after a tenth and at the end."""
    began, total, early = time.process_time(), 0, 0.0
    for number in range(steps):
        total += step(number)
        if number == steps // 10:
            early = resident_mib()
    seconds = time.process_time() - began
    print(
        f"{what}: {total:,} in {seconds:.1f} s of processor time; {early:.0f} -> {resident_mib():.0f} MiB", flush=True
    )


def requests(count: int) -> None:
    """An engine, a million requests at a time."""
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.engine import EngineConfig, simulate
    from infermax_gym.workload import make_workload

    size = min(count, _SLICE)

    def serve(number: int) -> int:
        workload = make_workload("azure-conv", size, seed=number)
        return int(simulate(workload, EngineConfig(num_kv_tokens=100_000), POLICIES["sarathi"]).finished.sum())

    report("requests of one engine", max(1, count // size), serve)


def hours(count: int, num_replicas: int) -> None:
    """A fleet, an hour at a time."""
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.baselines.routers import ROUTERS
    from infermax_gym.cluster import Fleet, simulate_fleet
    from infermax_gym.engine import EngineConfig
    from infermax_gym.workload import make_workload

    rate_per_s = 3.0 * num_replicas
    fleet = Fleet.uniform(num_replicas, EngineConfig(), POLICIES["vllm"])

    def serve(number: int) -> int:
        workload = make_workload("azure-conv", round(3600.0 * rate_per_s), seed=number).with_rate(rate_per_s)
        served = simulate_fleet(workload, fleet, ROUTERS["least-outstanding"])
        return int(served.pooled.finished.sum())

    report(f"requests of {num_replicas} replicas in {count} simulated hours", count, serve)


def decisions(count: int, num_lanes: int = 64) -> None:
    """A vector environment under random legal actions."""
    from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv

    env = InferMaxVectorEnv(num_lanes, metrics=False, num_requests=(50, 400))
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    each = max(1, count // num_lanes // 100)

    def play(number: int) -> int:
        for _ in range(each):
            mask = env.action_masks()
            env.step((rng.random(mask.shape) * mask).argmax(axis=1))
        return each * num_lanes

    report("decisions", 100, play)


def threads(count: int) -> None:
    """Threads that come and go, each with a vector environment of its own."""
    from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv

    def play(seed: int) -> None:
        env = InferMaxVectorEnv(4, metrics=False, num_requests=20)
        env.reset(seed=seed)
        for _ in range(200):
            env.step(env.action_masks().argmax(axis=1))
        env.close()

    def churn(number: int) -> int:
        together = [threading.Thread(target=play, args=(4 * number + i,)) for i in range(4)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        return len(together)

    report("threads", max(1, count // 4), churn)


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--hours", type=int, default=0)
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--decisions", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.requests:
        requests(options.requests)
    if options.hours:
        hours(options.hours, options.replicas)
    if options.decisions:
        decisions(options.decisions)
    if options.threads:
        threads(options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
