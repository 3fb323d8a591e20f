"""The constraint program: equal to brute force on tiny instances and to the exact search on small ones."""

from __future__ import annotations

import math
import os
import re

import pytest

from infermax_gym.baselines.optimum.bounds import certify, most_iterations
from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.plan import Plan, score
from infermax_gym.baselines.optimum.program.model import ProgramCostError, ProgramTooLargeError
from infermax_gym.baselines.optimum.program.solve import ProgramSearch, latest_finish
from infermax_gym.baselines.optimum.search import astar
from infermax_gym.baselines.optimum.search.exact import ExactSearch, exact_options
from infermax_gym.cost import COSTS, CostModel
from tests.engine.strategies import CONCAVE
from tests.optimum.brute import optimum
from tests.optimum.draw import small, tiny

MORE = int(os.environ.get("INFERMAX_MORE_OPTIMA", "0"))
"""So many more random instances; the program does not prove all of them in its time."""

CASES = [(seed, (8, 7)) for seed in range(4)] + [(2_000 + seed, (5, 4)) for seed in range(4 + MORE)]


@pytest.mark.parametrize("seed", range(20 + MORE))
def test_agrees_with_brute_force(seed: int) -> None:
    instance, objective, variant = tiny(seed)
    truth = optimum(instance, objective, variant)
    # Without an incumbent, far more iterations have to be considered; with two requests that is quick enough.
    known_s = math.inf if math.isinf(truth) or len(instance) < 3 else 1.1 * truth
    search = ProgramSearch(instance, objective, variant, incumbent_s=known_s)
    plans: list[Plan] = []
    search.run(60.0, on_plan=plans.append)
    assert search.proven
    if math.isinf(truth):
        assert search.infeasible and not plans
        return
    replayed = score(instance, plans[-1])
    assert replayed.objective(objective) == pytest.approx(truth, rel=1e-9)
    assert truth - search.program.rounding_s <= search.bound_s <= truth * (1.0 + 1e-12)
    assert search.program.rounding_s < 1e-6 * truth
    assert variant == "preemptive" or replayed.num_preemptions == 0


@pytest.mark.parametrize(("seed", "longest"), CASES)
def test_agrees_with_the_exact_search(seed: int, longest: tuple[int, int]) -> None:
    instance, objective, variant = small(seed, longest)
    exact = ExactSearch(instance, exact_options(instance, objective, variant), max_bytes=200_000_000)
    exact.advance(30.0)
    plan = exact.plan()
    assert exact.status == astar.EXHAUSTED and plan is not None
    truth = score(instance, plan).objective(objective)
    program = ProgramSearch(instance, objective, variant, incumbent_s=truth * 1.01)
    plans: list[Plan] = []
    program.run(20.0 if MORE == 0 else 45.0, on_plan=plans.append)
    assert program.bound_s <= truth * (1.0 + 1e-12)
    if program.proven:
        assert score(instance, plans[-1]).objective(objective) == pytest.approx(truth, rel=1e-9)


def test_a_hint_is_a_schedule_of_the_program() -> None:
    instance = Instance.of([(2, 4), (3, 3)], kv_tokens=7, cost="llama3-70b-a100x4")
    first = ProgramSearch(instance, "makespan", "preemptive")
    plans: list[Plan] = []
    first.run(30.0, on_plan=plans.append)
    value_s = score(instance, plans[-1]).makespan_s
    hint = [dict(step.batch) for step in plans[-1].steps if step.batch]
    second = ProgramSearch(instance, "makespan", "preemptive", incumbent_s=value_s, hint=hint)
    again: list[Plan] = []
    second.run(30.0, on_plan=again.append)
    assert score(instance, again[0]).makespan_s == pytest.approx(value_s, rel=1e-9)


def test_the_horizon_holds_every_schedule_worth_finding() -> None:
    """Each iteration costs its constant, so a schedule as good as the incumbent cannot have more of them."""
    instance = Instance.of([(2, 6), (3, 5), (1, 7)], kv_tokens=9, cost="llama3-70b-a100x4")
    workload, config = instance.workload(), instance.engine()
    least = certify(workload, config)
    constant_s = COSTS["llama3-70b-a100x4"].theta[0, 0]
    assert most_iterations(workload, config, least.busy_s) == least.num_iterations
    assert most_iterations(workload, config, least.busy_s + 2.5 * constant_s) == least.num_iterations + 2
    assert latest_finish(instance, "makespan", 0.7) == 0.7
    # All but one request finish as early as they can: the last one gets what is left of the total latency.
    assert 0.5 < latest_finish(instance, "latency", 0.5) < 1.5


def test_a_large_program_is_refused() -> None:
    requests = tuple(Request(0.0, 100, 400) for _ in range(50))
    with pytest.raises(ProgramTooLargeError):
        ProgramSearch(Instance(requests, kv_tokens=1000), "makespan", "preemptive", incumbent_s=100.0)


def test_costs_that_the_program_does_not_hold_are_refused() -> None:
    for cost, message in (
        (CONCAVE, "cost model 'concave' has min terms (not convex); the constraint program needs a convex one"),
        (CostModel("mixed", CONCAVE.terms), "cost model 'mixed' has negative coefficients; the constraint program"),
    ):
        with pytest.raises(ProgramCostError, match=re.escape(message)) as caught:
            ProgramSearch(Instance.of([(2, 3)], kv_tokens=6, cost=cost), "makespan", "preemptive")
        assert "\n" not in str(caught.value)


def test_a_stopped_search_returns_at_once() -> None:
    instance = Instance.of([(2, 16)] * 5, kv_tokens=19, cost="llama3-70b-a100x4")
    search = ProgramSearch(instance, "makespan", "preemptive", incumbent_s=1.1)
    search.stop()
    search.run(600.0)
    assert not search.proven and search.done.is_set()
