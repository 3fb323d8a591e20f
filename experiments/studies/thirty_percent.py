"""What preemption saves at the optimum: INFERMAX's headline, with a proof status in every cell.

    python -m experiments.studies.thirty_percent [--seconds 60] [--out table.md]

Prints the table of docs/optimum.md. Every optimum is found by the exact search and replayed by the engine.
"""

from __future__ import annotations

import argparse

from experiments.studies.table_file import TableFile, add_out
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import Solution, solve

CASES = (
    ("70B N5 I2 O16 M=1.00P", "llama3-70b-a100x4", 5, 2, 16, 1.0),
    ("70B N5 I2 O16 M=1.15P", "llama3-70b-a100x4", 5, 2, 16, 1.15),
    ("7B N5 I2 O16 M=1.15P", "llama2-7b-a100", 5, 2, 16, 1.15),
    ("70B N4 I8 O16 M=1.30P", "llama3-70b-a100x4", 4, 8, 16, 1.3),
    ("70B N4 I16 O16 M=1.30P", "llama3-70b-a100x4", 4, 16, 16, 1.3),
    ("70B N4 I32 O16 M=1.30P", "llama3-70b-a100x4", 4, 32, 16, 1.3),
)


def saved(with_preemption: Solution, without: Solution) -> str:
    """The saving, and whether both sides are proven."""
    saving = 1.0 - with_preemption.objective_s / without.objective_s
    proven = with_preemption.status == without.status == "optimal"
    return f"{saving:.1%}" + ("" if proven else " (not proven)")


def main() -> None:
    """Solve and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each optimum")
    add_out(parser)
    options = parser.parse_args()
    table = TableFile(options.out)
    table.add(
        "| identical requests | makespan: vs no preemption | vs reserving | latency: vs no preemption | vs reserving |"
    )
    table.add("|---|---|---|---|---|")
    for name, cost, count, prompt, output, factor in CASES:
        kv_tokens = int(factor * (prompt + output - 1))
        instance = Instance.of([(prompt, output)] * count, kv_tokens=kv_tokens, cost=cost)
        savings = []
        for objective in ("makespan", "latency"):
            found = {
                variant: solve(instance, objective, variant=variant, time_limit_s=options.seconds)  # type: ignore[arg-type]
                for variant in ("preemptive", "no-preemption", "reserve")
            }
            savings += [saved(found["preemptive"], found[v]) for v in ("no-preemption", "reserve")]
        table.add(f"| {name} | {' | '.join(savings)} |")


if __name__ == "__main__":
    main()
