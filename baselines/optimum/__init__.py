"""The optimum: how good can any schedule be, and how sure are we?

What is here, in the order in which to read it:

1. `instance`    the problem: requests, an engine, the format of `infermax optimal`.
2. `plan`        a schedule as data, replayed by the engine: the only judge of what a schedule is worth.
3. `bounds`      lower bounds for a workload of any size; `in_time` the same for requests in time. Both stand on
                 `minorant` (a linear cost below the cost model), `packing` (how many iterations the memory forces) and
                 `rounding` (what floating-point clocks may take away).
4. `plan_search` good plans for any size: annealing over settings of a policy, decoded by the engine.
   `annealing/`  the same over priority lists and thresholds, decoded by a small loop of its own.
5. `search/`     proofs for a dozen requests: best-first search, and shortest paths for identical requests.
   `program/`    the same problem as a constraint program for OR-Tools CP-SAT.
6. `portfolio`   `solve`: all of them on one instance; `incumbent` is what they know together.
7. `solved`      small instances with proven optima.

Who calls whom:

    solve (portfolio) -> certify (bounds) -> minorant, packing, rounding
                      -> search_plan (plan_search) -> infermax_gym.engine
                      -> Annealer (annealing) -> plan
                      -> ExactSearch or AlikeSearch (search) -> minorant, packing -> plan
                      -> ProgramSearch (program) -> certify -> plan
                      -> Incumbent (incumbent) -> plan -> infermax_gym.engine

`borrow` is for the compiled parts only: how they hand records of arrays around at no cost.

The public names below are imported on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infermax_gym.baselines.optimum.bounds import CertifiedBounds, certify
    from infermax_gym.baselines.optimum.in_time import most_in_time
    from infermax_gym.baselines.optimum.incumbent import Solution
    from infermax_gym.baselines.optimum.instance import Instance, InstanceError, Request, load_instance
    from infermax_gym.baselines.optimum.plan import Plan, PlanError, Score, Step, score, simulate_plan
    from infermax_gym.baselines.optimum.portfolio import solve
    from infermax_gym.baselines.optimum.solved import solved_instances

__all__ = [
    "CertifiedBounds",
    "Instance",
    "InstanceError",
    "Plan",
    "PlanError",
    "Request",
    "Score",
    "Solution",
    "Step",
    "certify",
    "load_instance",
    "most_in_time",
    "score",
    "simulate_plan",
    "solve",
    "solved_instances",
]

_MODULE_OF = {
    "CertifiedBounds": "bounds",
    "Instance": "instance",
    "InstanceError": "instance",
    "Plan": "plan",
    "PlanError": "plan",
    "Request": "instance",
    "Score": "plan",
    "Solution": "incumbent",
    "Step": "plan",
    "certify": "bounds",
    "load_instance": "instance",
    "most_in_time": "in_time",
    "score": "plan",
    "simulate_plan": "plan",
    "solve": "portfolio",
    "solved_instances": "solved",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
