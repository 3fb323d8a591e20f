"""The search over vectors, and what validation trace slices choose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from infermax_gym.agents.evolution import (
    FCFS,
    SHORTEST_FIRST,
    Vector,
    action_of,
    evolve,
    minimise,
    policy_loss,
    tuned_policy,
)
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices

SCENARIO = TrainingScenario("azure-conv", 60, 1.0, 8_000)
START = np.full(3, 0.5)


def bowl(centre: float) -> Callable[[Vector], float]:
    return lambda vector: float(((vector - centre) ** 2).sum())


def test_finds_the_bottom() -> None:
    found = minimise(bowl(-0.3), START, seed=0, spread=0.3, population=8, generations=60)
    np.testing.assert_allclose(found.mean, -0.3, atol=1e-3)
    np.testing.assert_array_equal(found.checked, found.mean)
    assert found.num_evaluations == 8 * 60


def test_check_chooses_the_start_where_nothing_else_is_better() -> None:
    found = minimise(bowl(-0.3), START, seed=0, spread=0.3, population=8, generations=20, check=bowl(0.5))
    np.testing.assert_array_equal(found.checked, START)
    assert found.loss < 0.1


def test_check_stops_a_search_on_its_way() -> None:
    """What is checked lies between the start and where the search goes, so the best centre is one on the way."""
    search = {"seed": 0, "spread": 0.1, "population": 8, "generations": 40}
    found = minimise(bowl(-0.9), START, check=bowl(0.0), **search)
    plain = minimise(bowl(-0.9), START, **search)
    np.testing.assert_array_equal(found.best, plain.best)  # the search itself never sees it
    check = bowl(0.0)
    assert check(found.checked) < 0.3 * check(START)
    assert check(found.checked) < 0.3 * check(found.mean)


def test_search_ends_where_checks_are_in_vain() -> None:
    """Every step leads away from what is checked: after two checks, four generations apart, it is over."""
    found = minimise(
        bowl(-0.9), START, seed=0, spread=0.1, population=8, generations=60, check=bowl(0.9), check_every=4, patience=2
    )
    assert found.num_evaluations == 8 * 2 * 4
    np.testing.assert_array_equal(found.checked, START)
    better = minimise(
        bowl(-0.9), START, seed=0, spread=0.1, population=8, generations=16, check=bowl(-0.9), check_every=4, patience=2
    )
    assert better.num_evaluations == 8 * 16


def test_says_how_long_is_missing() -> None:
    with pytest.raises(ValueError, match="say how long to search"):
        minimise(bowl(0.0), START, seed=0, spread=0.1, population=4)


def test_validation_windows_choose() -> None:
    """With another sort of trace slices for validation, the result is at least as good on them as the start."""
    training = trace_slices(SCENARIO, 1, split=TRAIN, seed=0)
    validation = trace_slices(TrainingScenario("reasoning", 40, 0.6, 8_000), 2, split=TRAIN, seed=1)
    settings = {"seed": 0, "generations": 4, "population": 8, "start": SHORTEST_FIRST}
    chosen = evolve(training, validation=validation, **settings)
    plain = evolve(training, **settings)

    def loss(action: Vector) -> float:
        return policy_loss(tuned_policy(action, "row", predicted_sigma=None), validation, Objective())

    assert loss(chosen.action) <= min(loss(SHORTEST_FIRST), loss(plain.action))
    assert chosen.loss == plain.loss


def test_needs_windows() -> None:
    with pytest.raises(ValueError, match="at least one training trace slice"):
        evolve([], generations=1)


def test_actions_by_name() -> None:
    """Where searches begin: the places of the knobs, and names that are none."""
    np.testing.assert_array_equal(FCFS, [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(SHORTEST_FIRST, [0.0, 0.5, 0.0, 0.0, 0.0, -0.26, 0.5, 1.0, -0.5, 0.0, 0.0])
    with pytest.raises(ValueError, match="no knob is called 'age'; there are aging, "):
        action_of(age=1.0)
