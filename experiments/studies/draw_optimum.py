"""The picture of docs/optimum.md: one instance's optimal schedules with and without preemption.

python -m experiments.studies.draw_optimum [--seconds 60] --out docs/pictures/optimum.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.viewer.schedule import draw_schedules

TITLES = {"preemptive": "with preemption", "no-preemption": "without preemption", "reserve": "reserving I + O - 1"}


def main() -> None:
    """Solve and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each optimum")
    parser.add_argument("--out", type=Path, default=Path("runs/pictures/optimum.png"), metavar="FILE.png")
    options = parser.parse_args()
    instance = Instance.of([(2, 16)] * 5, kv_tokens=19, cost="llama3-70b-a100x4")
    runs = {}
    for variant, title in TITLES.items():
        found = solve(instance, "makespan", variant=variant, time_limit_s=options.seconds)  # type: ignore[arg-type]
        assert found.run is not None
        runs[f"{title} ({found.status})"] = found.run
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw_schedules(runs, options.out, instance.kv_tokens)


if __name__ == "__main__":
    main()
