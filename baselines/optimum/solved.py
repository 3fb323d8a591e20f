"""Small instances with their optima and how far each is proven: a yardstick for schedulers and agents.

`solved.json` beside this file is written by `experiments/facts/solve_library.py`: our own instances, from identical
requests (as in docs/optimum.md) to random ones with arrivals, blocks and a binding token budget. Every objective is the
engine's own figure for a plan; the plans with preemption are stored with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infermax_gym.baselines.optimum.instance import Instance, instance_from_dict
from infermax_gym.baselines.optimum.plan import Plan

SOLVED = Path(__file__).with_name("solved.json")


@dataclass(frozen=True)
class Optimum:
    """What is known about one problem of the library.

    Attributes:
        objective: "makespan" or "latency" (mean).
        variant: "preemptive", "no-preemption" or "reserve".
        status: "optimal" where proven, else "feasible".
        objective_s: of the best plan, replayed by the engine, seconds.
        lower_bound_s: no schedule is better, seconds.
        plan: the best plan; kept for the preemptive variant.
    """

    objective: str
    variant: str
    status: str
    objective_s: float
    lower_bound_s: float
    plan: Plan | None


@dataclass(frozen=True)
class Entry:
    """One instance of the library and its optima."""

    name: str
    instance: Instance
    optima: tuple[Optimum, ...]

    def optimum(self, objective: str, variant: str = "preemptive") -> Optimum:
        """The optimum of one objective and variant."""
        return next(o for o in self.optima if (o.objective, o.variant) == (objective, variant))


@cache
def solved_instances() -> tuple[Entry, ...]:
    """All instances, by name.

    Example:
        >>> solved_instances()[0].optimum("makespan").status
        'optimal'
    """
    return tuple(_entries(json.loads(SOLVED.read_text(encoding="utf-8"))))


def _entries(data: dict[str, Any]) -> Iterator[Entry]:
    for name, entry in sorted(data["instances"].items()):
        optima = tuple(
            Optimum(
                o["objective"], o["variant"], o["status"], o["objective_s"], o["lower_bound_s"],
                Plan.from_lists(o["schedule"], o["preempted"]) if "schedule" in o else None,
            )
            for o in entry["optima"]
        )  # fmt: skip
        yield Entry(name, instance_from_dict(entry["instance"]), optima)
