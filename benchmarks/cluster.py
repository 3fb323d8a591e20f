"""How fast fleets simulate: seconds of one core and peak memory, each run in a process of its own.

    python benchmarks/cluster.py                      # 100 replicas, 500,000 requests, every router
    python benchmarks/cluster.py --large              # also 1,000 replicas, 5,000,000 requests
    python benchmarks/cluster.py --routers sal,random --staleness 0.1

Requests are the preset azure-conv at 3.5 per second and replica (llama2-7b-a100 with 100,000 KV tokens carries about
4), policy vllm-0.13. Time counts routing, simulating and collecting the records; making the workload is not part of it,
and neither is loading the compiled code. Peak memory is the whole process's, workload included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

GOALS = {(100, 500_000): (30.0, 6.0), (1_000, 5_000_000): (360.0, 6.0)}
RATE_PER_REPLICA = 3.5


def measure(num_replicas: int, num_requests: int, router: str, staleness_s: float) -> dict[str, float]:
    """One run in this process."""
    from infermax_gym.baselines.policies import POLICIES
    from infermax_gym.baselines.predict import router_predictions
    from infermax_gym.baselines.routers import ROUTERS
    from infermax_gym.cluster import Fleet, simulate_fleet
    from infermax_gym.engine import EngineConfig
    from infermax_gym.workload import make_workload

    policy, config, row = POLICIES["vllm-0.13"], EngineConfig(), ROUTERS[router]
    first = make_workload("azure-conv", 50, seed=0)
    simulate_fleet(first, Fleet.uniform(2, config, policy), row, predicted=router_predictions(row, first))
    workload = make_workload("azure-conv", num_requests, seed=0).with_rate(RATE_PER_REPLICA * num_replicas)
    fleet = Fleet.uniform(num_replicas, config, policy, staleness_s=staleness_s)
    predicted_lengths = router_predictions(row, workload)
    wall_s, core_s = time.perf_counter(), time.process_time()
    result = simulate_fleet(workload, fleet, row, predicted=predicted_lengths)
    wall_s, core_s = time.perf_counter() - wall_s, time.process_time() - core_s
    assert (result.pooled.status == 0).all()
    return {
        "wall_s": wall_s,
        "core_s": core_s,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "num_iterations": result.pooled.num_iterations,
        "ttft_mean_s": float(result.pooled.ttft_s.mean()),
        "ttft_p99_s": float(sorted(result.pooled.ttft_s.tolist())[int(0.99 * num_requests)]),
    }


def measure_apart(num_replicas: int, num_requests: int, router: str, staleness_s: float) -> dict[str, float]:
    """`measure` in a new process."""
    arguments = [str(num_replicas), str(num_requests), router, str(staleness_s)]
    run = subprocess.run([sys.executable, __file__, "--one", *arguments], capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def main() -> None:
    """Measure and print one line per run."""
    from infermax_gym.baselines.routers import ROUTERS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also 1,000 replicas with 5,000,000 requests")
    parser.add_argument("--routers", default=",".join(ROUTERS))
    parser.add_argument("--staleness", type=float, default=0.0)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        replicas, requests, router, staleness_s = options.one
        print(json.dumps(measure(int(replicas), int(requests), router, float(staleness_s))))
        return
    print(
        f"{'replicas':>8} {'requests':>9}  {'router':18} {'core s':>7} {'wall s':>7} {'goal s':>7} {'GiB':>5} "
        f"{'iterations':>11} {'TTFT s':>7} {'p99':>6}"
    )
    for (num_replicas, num_requests), (goal_s, _) in list(GOALS.items())[: 2 if options.large else 1]:
        for router in options.routers.split(","):
            f = measure_apart(num_replicas, num_requests, router, options.staleness)
            print(
                f"{num_replicas:8,} {num_requests:9,}  {router:18} {f['core_s']:7.1f} {f['wall_s']:7.1f} {goal_s:7.0f} "
                f"{f['peak_gib']:5.2f} {f['num_iterations']:11,} {f['ttft_mean_s']:7.3f} {f['ttft_p99_s']:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
