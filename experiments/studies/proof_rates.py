"""How many small instances are solved to proven optimality, by kind: the table of docs/optimum.md.

    python -m experiments.studies.proof_rates [--seconds 60] [--each 10] [--kinds N4,N5,...] [--out table.md]

Instances are drawn at random from a seed of their own; every plan is replayed by the engine.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from experiments.studies.table_file import TableFile, add_out
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import Solution, solve
from infermax_gym.streams import stream

MODELS = ("llama2-7b-a100", "llama3-70b-a100x4")


@dataclass(frozen=True)
class Kind:
    """A family of instances.

    Attributes:
        label: as in the table.
        num_requests: of each instance.
        most_tokens: prompts and outputs are uniform from 1 to this.
        fracs: KV capacity over the sum of all peaks; for identical requests, over one peak.
        identical: all requests are alike.
        variant: see `solve`.
        objectives: what is minimised.
    """

    label: str
    num_requests: int
    most_tokens: int
    fracs: tuple[float, ...] = (0.3, 0.6)
    identical: bool = False
    variant: str = "preemptive"
    objectives: tuple[str, ...] = ("makespan", "latency")


KINDS = {
    "N3": Kind("3 random, I, O <= 24", 3, 24),
    "N4": Kind("4 random, I, O <= 24", 4, 24),
    "N5": Kind("5 random, I, O <= 24", 5, 24),
    "N6": Kind("6 random, I, O <= 64, frac 0.6", 6, 64, (0.6,), objectives=("makespan",)),
    "I6": Kind("6 identical, I, O <= 24", 6, 24, (1.15, 2.0), True),
    "I8": Kind("8 identical, I, O <= 24, no preemption", 8, 24, (1.15, 2.0), True, "no-preemption"),
}


def instances(kind: Kind, each: int) -> Iterator[tuple[str, Instance]]:
    """`each` instances of a kind for every cost model and memory."""
    for cost in MODELS:
        for frac in kind.fracs:
            for seed in range(each):
                rng = stream(seed, "workload")
                count = 1 if kind.identical else kind.num_requests
                lengths = [(int(i), int(o)) for i, o in rng.integers(1, kind.most_tokens + 1, (count, 2))]
                peaks = [i + o - 1 for i, o in lengths]
                kv_tokens = max(round(frac * sum(peaks)), max(peaks))
                requests = lengths * kind.num_requests if kind.identical else lengths
                yield cost, Instance.of(requests, kv_tokens, cost, max_num_batched_tokens=4096)


def line(kind: Kind, objective: Any, cost: str, found: list[Solution]) -> str:
    """One line of the table."""
    proven = [s for s in found if s.status == "optimal"]
    gaps = [s.gap for s in found if s.status != "optimal"]
    seconds = statistics.median(s.wall_s for s in found)
    worst = f"{max(gaps):.1%}" if gaps else ""
    model = "7B" if "7b" in cost else "70B"
    return f"| {kind.label} | {model} | {objective} | {len(proven)} of {len(found)} | {seconds:.1f} | {worst} |"


def main() -> None:
    """Solve and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each instance")
    parser.add_argument("--each", type=int, default=10, help="instances of a kind by cost model and memory")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--workers", type=int, default=2)
    add_out(parser)
    options = parser.parse_args()
    table = TableFile(options.out)
    table.add("| requests | model | objective | proven | median s | largest gap of the rest |")
    table.add("|---|---|---|---|---|---|")
    for name in options.kinds.split(","):
        kind = KINDS[name]
        for objective in kind.objectives:
            for cost in MODELS:
                found = [
                    solve(
                        instance,
                        objective,  # type: ignore[arg-type]
                        variant=kind.variant,  # type: ignore[arg-type]
                        time_limit_s=options.seconds,
                        workers=options.workers,
                    )
                    for model, instance in instances(kind, options.each)
                    if model == cost
                ]
                table.add(line(kind, objective, cost, found))


if __name__ == "__main__":
    main()
