"""Solve the instances of the library and print or write the file of their optima.

python -m experiments.facts.solve_library [--seconds 60] [--workers 2] --out baselines/optimum/solved.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.plan_search import VARIANTS
from infermax_gym.baselines.optimum.portfolio import Solution, solve
from infermax_gym.cost import COSTS
from infermax_gym.streams import stream

SMALL, LARGE = "llama2-7b-a100", "llama3-70b-a100x4"


def instances() -> dict[str, Instance]:
    """All instances by name."""
    found = {
        "identical-5-70b": Instance.of([(2, 16)] * 5, kv_tokens=19, cost=LARGE),
        "identical-5-7b": Instance.of([(2, 16)] * 5, kv_tokens=19, cost=SMALL),
        "identical-4-prompts-8": Instance.of([(8, 16)] * 4, kv_tokens=29, cost=LARGE),
        "identical-4-prompts-32": Instance.of([(32, 16)] * 4, kv_tokens=61, cost=LARGE),
        "identical-6-70b": Instance.of([(2, 12)] * 6, kv_tokens=14, cost=LARGE),
        "one-long-three-short": Instance.of([(2, 24), (2, 4), (2, 4), (2, 4)], kv_tokens=28, cost=LARGE),
        "prompts-against-outputs": Instance.of([(24, 3), (24, 3), (3, 20), (3, 20)], kv_tokens=40, cost=SMALL),
    }
    for seed in range(4):
        for cost, model in ((SMALL, "7b"), (LARGE, "70b")):
            found[f"random-4-{model}-{seed}"] = _random(seed, 4, cost)
    for seed in range(2):
        for cost, model in ((SMALL, "7b"), (LARGE, "70b")):
            found[f"random-5-{model}-{seed}"] = _random(seed, 5, cost)
            found[f"arrivals-3-{model}-{seed}"] = _with_arrivals(seed, cost)
            found[f"chunked-3-{model}-{seed}"] = _random(seed, 3, cost, most=10, max_num_batched_tokens=6)
            found[f"blocks-4-{model}-{seed}"] = _random(seed, 4, cost, block_size=4)
    return found


def _lengths(seed: int, count: int, most: int) -> list[tuple[int, int]]:
    rng = stream(seed, "workload")
    return [(int(i), int(o)) for i, o in rng.integers(1, most + 1, (count, 2))]


def _random(seed: int, count: int, cost: str, most: int = 20, **engine: int) -> Instance:
    lengths = _lengths(seed, count, most)
    peaks = [i + o - 1 for i, o in lengths]
    block = engine.get("block_size", 1)
    kv_tokens = max(-(-max(peaks) // block) * block, round((0.35 if seed % 2 else 0.6) * sum(peaks)))
    return Instance.of(lengths, kv_tokens, cost, **engine)


def _with_arrivals(seed: int, cost: str) -> Instance:
    lengths = _lengths(seed + 100, 3, 10)
    step_s = 0.03 if cost == SMALL else 0.2
    requests = tuple(Request(k * step_s, i, o) for k, (i, o) in enumerate(lengths))
    return Instance(requests, max(r.peak_tokens for r in requests) + 4, cost=COSTS[cost])


def entry(found: Solution, variant: str) -> dict[str, Any]:
    """What the library keeps of a solution."""
    kept: dict[str, Any] = {
        "objective": found.objective,
        "variant": variant,
        "status": found.status,
        "objective_s": found.objective_s,
        "lower_bound_s": found.lower_bound_s,
    }
    if variant == "preemptive" and found.plan is not None:
        kept |= {"schedule": found.plan.schedule(), "preempted": found.plan.preemptions()}
    return kept


def main() -> None:
    """Solve and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each problem")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write; by default it is printed")
    options = parser.parse_args()
    lines = []
    for name, instance in instances().items():
        optima = []
        for objective in ("makespan", "latency"):
            for variant in VARIANTS:
                found = solve(
                    instance, objective, variant=variant, time_limit_s=options.seconds, workers=options.workers
                )  # type: ignore[arg-type]
                print(f"{name} {objective} {variant}: {found.status}, gap {found.gap:.2%}", file=sys.stderr, flush=True)
                optima.append(entry(found, variant))
        value = json.dumps({"instance": instance.to_dict(), "optima": optima}, separators=(",", ":"))
        lines.append(f"{json.dumps(name)}: {value}")
    text = '{"schema": 1, "instances": {\n' + ",\n".join(sorted(lines)) + "\n}}\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
