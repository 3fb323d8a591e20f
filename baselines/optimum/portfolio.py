"""`solve`: the best plan that time allows for one instance, with a certified gap.

First `plan_search` finds a good plan and `certify` a lower bound; then, where the instance is small enough, the exact
search of `search/` looks for a better plan until none is left or the time is up. Every plan is replayed by the engine,
and "optimal" is claimed only where the replayed plan meets a bound that holds for the problem itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from baselines.optimum.certify import certify
from baselines.optimum.instance import Instance
from baselines.optimum.plan import simulate_plan
from baselines.optimum.plan_search import VARIANTS, ObjectiveName, PlanSearchResult, Variant, search_plan
from baselines.optimum.search import astar
from baselines.optimum.search.exact import ExactSearch, exact_options
from baselines.optimum.search.tables import TooLargeError
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.workload import Workload

MOST_REQUESTS = 12
"""Instances of more requests are not tried exactly."""

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
    """

    status: str
    objective: ObjectiveName
    objective_s: float
    lower_bound_s: float
    method: str
    wall_s: float
    run: SimulationResult | None

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
        time_limit_s: for everything; the annealing takes a tenth of it where the exact search follows.
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
            time_limit_s=time_limit_s * (0.1 if len(instance) <= MOST_REQUESTS else 1.0),
            max_evaluations=max_evaluations,
            stop_at_s=bound_s * (1.0 + TOLERANCE),
            seed=seed + worker,
            progress=None if progress is None else lambda value, _: progress(value, bound_s),
        )

    with ThreadPoolExecutor(workers) as pool:
        plans = [plan for plan in pool.map(search, range(workers)) if plan is not None]
    plan = min(plans, key=lambda p: p.objective_s, default=None)
    known = Incumbent(workload, config, plan, bound_s)
    spent = time.perf_counter() - began
    if len(instance) <= MOST_REQUESTS and not known.proven and max_evaluations is None:
        refine(known, instance, objective, variant, max(time_limit_s - spent, 0.1), progress)
    return known.solution(objective, time.perf_counter() - began)


class Incumbent:
    """The best plan so far, replayed, and the best bound so far."""

    def __init__(self, workload: Workload, config: EngineConfig, plan: PlanSearchResult | None, bound_s: float) -> None:
        self.value_s = float("inf") if plan is None else plan.objective_s
        self.bound_s = bound_s
        self.found_by, self.bounded_by = "annealed priority list", "dual feasible functions"
        self.run: SimulationResult | None = None
        if plan is not None:
            lengths = workload.num_output_tokens
            self.run = simulate(plan.run.workload, config, plan.policy, predicted=lengths, record_schedule=True)

    @property
    def proven(self) -> bool:
        """Whether the plan meets the bound."""
        return self.value_s <= self.bound_s * (1.0 + TOLERANCE)

    def solution(self, objective: ObjectiveName, wall_s: float) -> Solution:
        """What is known now."""
        status = "unknown" if self.run is None else "optimal" if self.proven else "feasible"
        bound_s = min(self.bound_s, self.value_s)
        method = f"{self.found_by}; bound: {self.bounded_by}"
        return Solution(status, objective, self.value_s, bound_s, method, wall_s, self.run)


def refine(
    known: Incumbent,
    instance: Instance,
    objective: ObjectiveName,
    variant: Variant,
    seconds: float,
    progress: Callable[[float, float], None] | None,
) -> None:
    """Search exactly for a better plan and a better bound, for about `seconds`; KeyboardInterrupt ends it early."""
    options = exact_options(instance, objective, variant)
    backward = objective == "makespan" and options.late and not options.timed
    arrivals = 0.0 if objective == "makespan" else sum(r.arrival_s for r in instance.requests)
    count = 1 if objective == "makespan" else len(instance)
    try:
        search = ExactSearch(instance, options, backward)
    except TooLargeError:
        return
    _compile(objective)
    deadline = time.perf_counter() + seconds
    best = None
    try:
        while search.status == astar.RUNNING and time.perf_counter() < deadline:
            search.advance(min(0.5, max(deadline - time.perf_counter(), 0.01)))
            bound_s = (search.bound - arrivals) / count
            if bound_s > known.bound_s:
                known.bound_s, known.bounded_by = bound_s, "exact search"
            best = search.plan() or best
            if progress:
                progress(min(known.value_s, (search.incumbent - arrivals) / count), known.bound_s)
    except KeyboardInterrupt:
        pass
    best = search.plan() or best
    if search.status == astar.EXHAUSTED:
        known.bound_s, known.bounded_by = (search.bound - arrivals) / count, "exact search"
    if best is not None:
        run = simulate_plan(instance, best, record_schedule=True)
        value_s = run.makespan_s if objective == "makespan" else float(run.latency_s.mean())
        if value_s < known.value_s:
            known.value_s, known.run, known.found_by = value_s, run, "exact search"


def _compile(objective: ObjectiveName) -> None:
    """Run the search on a trivial instance, so that compiling it does not count as searching."""
    tiny = Instance.of([(1, 2), (2, 1)], kv_tokens=2)
    ExactSearch(tiny, exact_options(tiny, objective, "preemptive"), beam_width=1, max_bytes=1_000_000).advance(1.0)
