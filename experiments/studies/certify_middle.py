"""How close plans and bounds come on workloads that are too large to prove: the table of docs/optimum.md.

    python -m experiments.studies.certify_middle [--seconds 50] [--workers 2] [--requests 200] [--out table.md]

All requests arrive together, no token budget binds; frac is the KV capacity over the sum of all peaks.
"""

from __future__ import annotations

import argparse

from experiments.studies.table_file import TableFile, add_out
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.streams import stream

SIZES = ((64, 64), (499, 299))
FRACS = (0.5, 0.3, 0.1)
MODELS = {"7B": "llama2-7b-a100", "70B": "llama3-70b-a100x4"}


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=50.0, help="time for each workload")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    add_out(parser)
    options = parser.parse_args()
    table = TableFile(options.out)
    table.add("| prompts, outputs up to | model | " + " | ".join(f"frac {f}" for f in FRACS) + " |")
    table.add("|---|---|" + "---|" * len(FRACS))
    for prompts, outputs in SIZES:
        rng = stream(options.seed, "workload")
        lengths = [
            (int(rng.integers(1, prompts + 1)), int(rng.integers(1, outputs + 1))) for _ in range(options.requests)
        ]
        peaks = [i + o - 1 for i, o in lengths]
        for model, cost in MODELS.items():
            gaps = []
            for frac in FRACS:
                instance = Instance.of(
                    lengths, int(frac * sum(peaks)), cost, max_num_batched_tokens=sum(peaks), max_num_seqs=1000
                )
                found = solve(instance, "makespan", time_limit_s=options.seconds, workers=options.workers)
                gaps.append(f"{found.gap:.1%}")
            table.add(f"| {prompts}, {outputs} | {model} | {' | '.join(gaps)} |")


if __name__ == "__main__":
    main()
