"""Long runs whose memory must stay flat: `python benchmarks/soak.py --requests 10000000 --decisions 100000000`.

1. Requests: an engine serves them a million at a time, each million drawn anew and its records let go.
2. Hours: a fleet serves that many simulated hours of the preset azure-conv, an hour at a time. At the end of each, the
   engines' invariants are checked, and that every request is finished or rejected, once.
3. Decisions: a vector environment takes random legal actions; so many decisions over all lanes.
4. Threads: as many threads step one vector environment each, and begin and end all the time.

Memory is this process's resident set. It is printed after a tenth, when caches are filled, after half, and at the end.
Two things let it grow though nothing leaks. The operating system counts a page only once it is written, and the logs of
long episodes fill for millions of decisions. The allocator keeps the holes that large blocks leave. `--strict` writes
every page at the beginning of an episode and gives large blocks back, so that what grows then is a leak.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, Router
from infermax_gym.cluster.simulate import FleetRun
from infermax_gym.cluster.state import ARRIVALS_AT_ONCE
from infermax_gym.engine import EngineConfig, InvariantChecker, simulate
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.native import Options
from infermax_gym.envs.scheduling.episode import Run
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.streams import stream
from infermax_gym.workload import Workload, make_workload

_SLICE = 1_000_000
_M_MMAP_THRESHOLD = -3  # of glibc's mallopt


def resident_mib() -> float:
    """Resident memory of this process, MiB; Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024.0
    return float("nan")


def report(what: str, steps: int, step: Callable[[int], int]) -> None:
    """Call `step` so often; print the sum of what it returns, its rate, and memory after a tenth, half, and all."""
    began, total, seen = time.process_time(), 0, list[str]()
    for number in range(steps):
        total += step(number)
        if number in (steps // 10, steps // 2, steps - 1):
            seen.append(f"{resident_mib():.0f}")
            print(f"  {what}: {total:,}; {seen[-1]} MiB", file=sys.stderr, flush=True)
    seconds = time.process_time() - began
    print(f"{what}: {total:,} in {seconds:.1f} s of processor time; {' -> '.join(seen)} MiB", flush=True)


def requests(count: int) -> None:
    """An engine, a million requests at a time."""
    size = min(count, _SLICE)

    def serve(number: int) -> int:
        workload = make_workload("azure-conv", size, seed=number)
        return int(simulate(workload, EngineConfig(num_kv_tokens=100_000), POLICIES["sarathi"]).finished.sum())

    report("requests of one engine", max(1, count // size), serve)


def serve_checked(workload: Workload, fleet: Fleet, router: Router, seed: int) -> int:
    """Serve a workload as `simulate_fleet` does; how many requests finished.

    Raises:
        InvariantError: an engine is not in order at the end.
        AssertionError: a request is neither finished nor rejected, or one is counted twice.
    """
    run = FleetRun(workload, fleet, router)
    rng = stream(seed, "router")
    while run.next_request < len(workload):
        count = min(ARRIVALS_AT_ONCE, len(workload) - run.next_request)
        run.route(rng.random((count, router.num_choices)))
    run.finish()
    for engine in run.state.engines:
        InvariantChecker(engine.copy()).check_now()
    served = run.result()
    num_finished, num_rejected = int(served.pooled.finished.sum()), int((served.replica_of < 0).sum())
    assert num_finished + num_rejected == len(workload) == int(served.num_requests_of.sum()) + num_rejected
    done, late_s = served.pooled.finished, served.pooled.finish_s - workload.arrival_s
    assert (served.pooled.num_generated_tokens[done] == workload.num_output_tokens[done]).all()
    assert (late_s[done] > 0.0).all()
    return num_finished


def hours(count: int, num_replicas: int) -> None:
    """A fleet, an hour at a time."""
    rate_per_s = 3.0 * num_replicas
    fleet = Fleet.uniform(num_replicas, EngineConfig(), POLICIES["vllm"])

    def serve(number: int) -> int:
        workload = make_workload("azure-conv", round(3600.0 * rate_per_s), seed=number).with_rate(rate_per_s)
        return serve_checked(workload, fleet, ROUTERS["least-outstanding"], number)

    report(f"requests of {num_replicas} replicas in {count} simulated hours", count, serve)


class _Written(InferMaxVectorEnv):
    """Lanes whose episodes have every page of their memory written at the beginning."""

    def _draw(self, streams: Streams, options: Options | None) -> Run:
        run = super()._draw(streams, options)
        for array in run.engine.arrays.values():
            if array.size:
                octets = array.reshape(-1).view(np.uint8)
                octets |= 0
        return run


def give_back_large_blocks() -> None:
    """Let glibc return blocks of 64 KiB and more to the system once they are free; elsewhere nothing."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)


def decisions(count: int, num_lanes: int = 64, *, strict: bool = False) -> None:
    """A vector environment under random legal actions."""
    if strict:
        give_back_large_blocks()
    env = (_Written if strict else InferMaxVectorEnv)(num_lanes, metrics=False, num_requests=(50, 400))
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
    parser.add_argument("--strict", action="store_true", help="decisions: only a leak lets memory grow")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.requests:
        requests(options.requests)
    if options.hours:
        hours(options.hours, options.replicas)
    if options.decisions:
        decisions(options.decisions, strict=options.strict)
    if options.threads:
        threads(options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
