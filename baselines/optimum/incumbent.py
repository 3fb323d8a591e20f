"""`Incumbent`: what several searches know together about one instance: the best plan, the best bound, when to stop."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan, PlanError, plan_of_run, simulate_plan
from infermax_gym.baselines.optimum.plan_search import ObjectiveName
from infermax_gym.baselines.optimum.rounding import clock_error_s
from infermax_gym.engine import SimulationResult

TOLERANCE = 1e-7
"""Relative distance from the bound at which a plan counts as proven, beside what the clock rounds off.

Bounds are lowered by `rounding.RELATIVE` against the rounding of their own sums.
"""

Progress = Callable[[float, float], None]
"""Called with the best objective (infinite if there is none) and the best bound, in seconds."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What is known about an instance's optimum.

    Attributes:
        status: "optimal" (proven for the problem itself), "feasible", "infeasible" (proven: no schedule meets the
            requests' limits), or "unknown" (no schedule found).
        objective: "makespan" or "latency" (the mean over requests).
        objective_s: value of the plan, replayed by the engine; infinite without one.
        lower_bound_s: no schedule is better.
        method: what found the plan and what proved the bound.
        wall_s: time spent.
        run: the replay, with its schedule; None if nothing was found.
        plan: the schedule as data; None if nothing was found.
        interrupted: Ctrl-C ended the search early.
    """

    status: str
    objective: ObjectiveName
    objective_s: float
    lower_bound_s: float
    method: str
    wall_s: float
    run: SimulationResult | None
    plan: Plan | None
    interrupted: bool = False

    @property
    def gap(self) -> float:
        """(objective - lower bound) / objective; nan without a plan."""
        if not math.isfinite(self.objective_s):
            return math.nan
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


class Incumbent:
    """Shared by the searches of a portfolio; safe to use from several threads."""

    def __init__(self, instance: Instance, objective: ObjectiveName, bound_s: float, progress: Progress | None) -> None:
        self.instance = instance
        self.objective: ObjectiveName = objective
        self.value_s = math.inf
        self.bound_s = bound_s
        # A schedule with more iterations than tokens pays for each of them far more than the clock rounds off.
        num_iterations = sum(r.peak_tokens for r in instance.requests)
        latest_s = instance.requests[-1].arrival_s + bound_s
        self._clock_error_s = 2.0 * clock_error_s(2.0 * latest_s, num_iterations)
        self.run: SimulationResult | None = None
        self.infeasible = False
        self._found_by, self._bounded_by = "nothing", "dual feasible functions"
        self._progress = progress
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @property
    def good_enough_s(self) -> float:
        """Plans of this objective or less meet the bound. The tolerance counts from the first arrival, not from 0."""
        begins_s = self.instance.requests[0].arrival_s if self.objective == "makespan" else 0.0
        return begins_s + (self.bound_s - begins_s) * (1.0 + TOLERANCE) + self._clock_error_s

    @property
    def proven(self) -> bool:
        """Whether the plan meets the bound, or there is none to be found."""
        return self.infeasible or self.value_s <= self.good_enough_s

    @property
    def ended(self) -> bool:
        """Whether searches should return: all is proven, or somebody called `end`."""
        return self._ended.is_set() or self.proven

    def end(self) -> None:
        """Ask all searches to return."""
        self._ended.set()

    def value_of(self, run: SimulationResult) -> float:
        """The objective of a run, seconds."""
        return run.makespan_s if self.objective == "makespan" else float(run.latency_s.mean())

    def offer_run(self, run: SimulationResult, found_by: str) -> None:
        """A complete schedule of the engine, recorded."""
        value_s = self.value_of(run)
        with self._lock:
            if value_s >= self.value_s:
                return
            self.value_s, self.run, self._found_by = value_s, run, found_by
        self._report()

    def offer_plan(self, plan: Plan, found_by: str) -> None:
        """A plan, which counts for what the engine makes of it; one that breaks a limit by rounding is let go."""
        try:
            run = simulate_plan(self.instance, plan, record_schedule=True)
        except PlanError:
            return
        self.offer_run(run, found_by)

    def offer_bound(self, bound_s: float, bounded_by: str) -> None:
        """A lower bound for the problem itself but for what clocks round off, which is taken away here."""
        bound_s -= self._clock_error_s
        with self._lock:
            if bound_s <= self.bound_s:
                return
            self.bound_s, self._bounded_by = bound_s, bounded_by
        self._report()

    def refute(self, bounded_by: str) -> None:
        """It is proven that no schedule meets the limits."""
        with self._lock:
            self.infeasible, self._bounded_by = self.run is None, bounded_by

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.value_s, min(self.bound_s, self.value_s))

    def solution(self, wall_s: float, interrupted: bool = False) -> Solution:
        """What is known now."""
        if self.run is None:
            status = "infeasible" if self.infeasible else "unknown"
        else:
            status = "optimal" if self.proven else "feasible"
        bound_s = min(self.bound_s, self.value_s)
        method = f"{self._found_by}; bound: {self._bounded_by}"
        plan = None if self.run is None else plan_of_run(self.instance, self.run)
        return Solution(status, self.objective, self.value_s, bound_s, method, wall_s, self.run, plan, interrupted)
