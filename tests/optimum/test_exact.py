"""The exact search against brute force, and the proofs of the headline."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import score
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.optimum.search import astar
from infermax_gym.baselines.optimum.search.exact import ExactSearch, exact_options
from tests.engine.strategies import CONCAVE
from tests.optimum.brute import optimum
from tests.optimum.draw import tiny

VARIANTS = ("preemptive", "no-preemption", "reserve")


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [(rng.randint(1, 3), rng.randint(1, 3)) for _ in range(rng.choice([1, 2, 2, 3]))]
    peak = max(i + o - 1 for i, o in lengths)
    cost = rng.choice(["llama2-7b-a100", "llama3-70b-a100x4", "llama3-70b-a100x4-infermax"])
    instance = Instance.of(lengths, kv_tokens=peak + rng.randint(0, 3), cost=cost)
    objective, variant = rng.choice(["makespan", "latency"]), rng.choice(VARIANTS)
    search = ExactSearch(instance, exact_options(instance, objective, variant), max_bytes=50_000_000)
    search.advance(30.0)
    plan = search.plan()
    assert search.status == astar.EXHAUSTED and plan is not None
    replayed = score(instance, plan)
    assert replayed.objective(objective) == pytest.approx(optimum(instance, objective, variant), rel=1e-9)
    assert variant == "preemptive" or replayed.num_preemptions == 0


@pytest.mark.parametrize("seed", (0, 3, 4, 5, 7, 9, 11, 13, 15, 17, 18, 105, 106, 107))  # brute force is quick
def test_agrees_with_brute_force_where_the_cost_is_not_convex(seed: int) -> None:
    """A minimum of forms, with chunks, arrivals and limits; its linear lower bounds prove the optimum all the same."""
    instance, objective, variant = tiny(seed)
    instance = replace(instance, cost=CONCAVE)
    truth = optimum(instance, objective, variant)
    search = ExactSearch(instance, exact_options(instance, objective, variant), max_bytes=50_000_000)
    search.advance(30.0)
    plan = search.plan()
    assert search.status == astar.EXHAUSTED
    if math.isinf(truth):
        assert plan is None
    else:
        assert plan is not None and search.bound <= search.incumbent
        assert score(instance, plan).objective(objective) == pytest.approx(truth, rel=1e-9)


def test_both_directions_agree() -> None:
    instance = Instance.of([(2, 6), (3, 5), (1, 7)], kv_tokens=9, cost="llama3-70b-a100x4")
    options = exact_options(instance, "makespan", "preemptive")
    values = []
    for backward in (False, True):
        search = ExactSearch(instance, options, backward, max_bytes=100_000_000)
        search.advance(30.0)
        assert search.status == astar.EXHAUSTED
        values.append(search.incumbent)
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_the_headline_without_preemption_is_proven() -> None:
    instance = Instance.of([(2, 16)] * 5, kv_tokens=19, cost="llama3-70b-a100x4")
    without = solve(instance, variant="no-preemption", time_limit_s=30.0)
    reserving = solve(instance, variant="reserve", time_limit_s=30.0)
    assert without.status == reserving.status == "optimal"
    assert without.objective_s == pytest.approx(1.5325072569, rel=1e-9)
    assert reserving.objective_s == pytest.approx(1.6044592569, rel=1e-9)
