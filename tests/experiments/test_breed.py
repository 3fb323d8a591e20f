"""Breeding: what a loss is, and the trace slices that specialists are bred on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.board.rivals import load_rivals
from experiments.board.scenarios import SCENARIOS
from experiments.breeding.breed import breed
from experiments.breeding.controller_search import ControllerSearch
from experiments.breeding.specialists import RECIPES, in_group
from experiments.breeding.tasks import behind, excess, training_tasks
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate

PLAN = replace(RECIPES["generalist"].breed, num_slices=1, slices_at_once=1)
SLICE = trace_slices(TrainingScenario("azure-conv", 120, 0.9, 9_000), 1, split=TRAIN)[0]


def test_a_loss_beyond_the_rival_counts_on_the_average_of_windows() -> None:
    plan = replace(PLAN, objective=Objective(), hinge=3.0)
    a, b = (simulate(SLICE.workload, SLICE.engine, POLICIES[n]) for n in ("sarathi", "orca"))
    worse = float(np.log(b.latency_s.mean() / a.latency_s.mean()))
    assert worse > 0.0
    assert excess([b], [a], plan) == pytest.approx(4.0 * worse)
    assert excess([a], [b], plan) == pytest.approx(-worse)
    assert excess([a, b], [b, a], plan) == pytest.approx(0.0, abs=1e-12)
    assert behind([b], [a], plan) == pytest.approx(worse)


def test_worst_is_the_scenario_furthest_behind() -> None:
    plan = replace(PLAN, scenarios=in_group("code-tight-7b"))
    search = ControllerSearch(plan, training_tasks(plan, load_rivals()))
    vector = search.start(load_rivals())
    controller = search.controller(vector)
    ratios = []
    for task in search.tasks:
        trace_slice = task.trace_slices[0]
        ours, theirs = controller.play(trace_slice.workload, trace_slice.engine), task.rival[0]
        ratios.append(float(np.log(ours.latency_s.mean() / theirs.latency_s.mean())))
    assert len(ratios) == sum(map(plan.scenarios, SCENARIOS))
    assert search.worst(vector) == pytest.approx(max(ratios))


def test_a_stage_repeats_itself() -> None:
    """One seed and a number of generations give the same controller, to the bit."""
    plan = replace(PLAN, scenarios=in_group("code-tight-7b"), generations=(1, 1), population=4)
    first, second = (breed(plan, load_rivals(), seed=3, report=lambda line: None)[0] for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    other = breed(plan, load_rivals(), seed=4, report=lambda line: None)[0]
    assert not np.array_equal(first.weights, other.weights)
