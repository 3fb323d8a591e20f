"""`solve`: the best plan that time allows for one instance, with a certified gap.

The lower bound is the certified one of `certify`; the plan comes from `plan_search`, decoded and replayed by the
engine. "optimal" is claimed only where the replayed plan meets the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from baselines.optimum.certify import certify
from baselines.optimum.instance import Instance
from baselines.optimum.plan_search import VARIANTS, ObjectiveName, PlanSearchResult, Variant, search_plan
from infermax_gym.engine import SimulationResult, simulate

TOLERANCE = 1e-7
"""Relative distance from the bound at which a plan counts as proven: bounds are lowered by 1e-9 against rounding."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What is known about an instance's optimum.

    Attributes:
        status: "optimal" (proven for the problem itself), "feasible", or "unknown" (no schedule found).
        objective: "makespan" or "latency" (the mean over requests).
        objective_s: value of the plan, replayed by the engine.
        lower_bound_s: no schedule is better.
        method: what found the plan and what proved the bound.
        wall_s: time spent.
        run: the replay, with its schedule; None if nothing was found.
        plan: the row and priority list behind it.
    """

    status: str
    objective: ObjectiveName
    objective_s: float
    lower_bound_s: float
    method: str
    wall_s: float
    run: SimulationResult | None
    plan: PlanSearchResult | None

    @property
    def gap(self) -> float:
        """(objective - lower bound) / objective."""
        return (self.objective_s - self.lower_bound_s) / self.objective_s if self.objective_s > 0.0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The answer in the format of `infermax optimal --json`."""
        schedule = [] if self.run is None or self.run.schedule is None else self.run.schedule
        return {
            "status": self.status,
            "objective": self.objective,
            "objective_s": self.objective_s,
            "lower_bound_s": self.lower_bound_s,
            "gap": self.gap,
            "method": self.method,
            "wall_s": self.wall_s,
            "num_preemptions": 0 if self.run is None else self.run.num_preemptions,
            "schedule": [[[r, c] for r, c in iteration.batch] for iteration in schedule],
        }


def solve(
    instance: Instance,
    objective: ObjectiveName = "makespan",
    *,
    variant: Variant = "preemptive",
    time_limit_s: float = 20.0,
    max_evaluations: int | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[float, float], None] | None = None,
) -> Solution:
    """Find a good plan and bound the optimum.

    Args:
        instance: the problem.
        objective: makespan (GPU cost) or mean latency.
        variant: "preemptive", "no-preemption", or "reserve" (I + O - 1 tokens on admission).
        time_limit_s: for the search.
        max_evaluations: alternatively, so many schedules: makes the answer reproducible.
        workers: searches side by side, from different seeds; the best plan wins.
        seed: of the first search.
        progress: called with (incumbent, lower bound) in seconds on every improvement.

    Raises:
        ValueError: the variant is unknown, or there is no worker.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    began = time.perf_counter()
    workload, config = instance.workload(), instance.engine()
    bounds = certify(workload, config)
    bound_s = bounds.makespan_s if objective == "makespan" else bounds.mean_latency_s

    def search(worker: int) -> PlanSearchResult | None:
        return search_plan(
            workload,
            config,
            objective,
            variant=variant,
            time_limit_s=time_limit_s,
            max_evaluations=max_evaluations,
            stop_at_s=bound_s * (1.0 + TOLERANCE),
            seed=seed + worker,
            progress=None if progress is None else lambda value, _: progress(value, bound_s),
        )

    with ThreadPoolExecutor(workers) as pool:
        plans = [plan for plan in pool.map(search, range(workers)) if plan is not None]
    plan = min(plans, key=lambda p: p.objective_s, default=None)
    method = "annealed priority list; bound: dual feasible functions"
    if plan is None:
        return Solution("unknown", objective, float("inf"), bound_s, method, time.perf_counter() - began, None, None)
    run = simulate(plan.run.workload, config, plan.policy, predicted=workload.num_output_tokens, record_schedule=True)
    proven = plan.objective_s <= bound_s * (1.0 + TOLERANCE)
    status = "optimal" if proven else "feasible"
    return Solution(status, objective, plan.objective_s, bound_s, method, time.perf_counter() - began, run, plan)
