"""The gate: what a choice of specialist costs, and a gate that finds out where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from experiments.board.rivals import load_rivals
from experiments.board.scenarios import GRID
from experiments.breeding.breed import Course
from experiments.breeding.gating import Lessons, costs_of, gated, learn_gate, lessons, teach
from experiments.breeding.specialists import SCHOOLS
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_kernel import CONTROLLER_FEATURES, NUM_FEATURES, pick
from infermax_gym.agents.evolution import FCFS
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.recipes import SHORTEST_FIRST
from infermax_gym.agents.scenario import TEST, TRAIN, TrainingCell, windows
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate

PLAN = SCHOOLS["generalist"].breed


def course(cell: TrainingCell, count: int = 2) -> Course:
    held = windows(cell, count, split=TRAIN)
    return Course(held, [simulate(w.workload, w.engine, POLICIES["sarathi"]) for w in held], "")


CHAT = course(TrainingCell("azure-conv", 120, 0.9, 9_000))
LONG = course(TrainingCell("reasoning", 60, 0.6, 20_000))


def synthetic(rng: np.random.Generator, feature: float, costs: list[float], rows: int = 400) -> Lessons:
    """What is seen in a cell where a feature has some value, give or take, another is noise, and the rest constant."""
    features = np.full((rows, NUM_FEATURES), 0.3)
    features[:, 0] = 1.0
    features[:, CONTROLLER_FEATURES.index("backlog")] = rng.uniform(0.0, 1.0, rows)
    features[:, CONTROLLER_FEATURES.index("capacity")] = feature + rng.normal(0.0, 0.02, rows)
    return Lessons(features, np.tile(costs, (rows, 1)), np.full(rows, 1.0 / rows))


def test_gate_learns_who_is_right_where() -> None:
    rng = np.random.default_rng(0)
    cells = [(0.1, [0.0, 0.3, 0.3]), (0.5, [0.3, 0.0, 0.3]), (0.9, [0.3, 0.3, 0.0])]
    gate = learn_gate([synthetic(rng, at, costs) for at, costs in cells], seed=0, num_steps=400)
    for k, (at, costs) in enumerate(cells):
        held = synthetic(rng, at, costs, 40)
        chosen = [pick(gate.inner, gate.outer, row) for row in held.features]
        assert np.mean(np.array(chosen) == k) > 0.9


def test_gate_avoids_what_would_cost_most() -> None:
    """Two cells that look alike: the specialist that is second best in both costs less than guessing."""
    rng = np.random.default_rng(1)
    alike = [synthetic(rng, 0.5, costs) for costs in ([0.0, 0.5, 0.05], [0.5, 0.0, 0.05])]
    gate = learn_gate(alike, seed=0, num_steps=400)
    chosen = [pick(gate.inner, gate.outer, row) for row in synthetic(rng, 0.5, [0.0, 0.0, 0.0]).features]
    assert np.mean(np.array(chosen) == 2) > 0.8


def test_gated_controller_is_as_good_as_the_right_specialist() -> None:
    """Chat is best served shortest first with room, long outputs by least attained service: the gate sees it."""
    attained = np.array([0.0, 0.0, 0.0, 0.5, 0.0, -0.6, 1.0, 1.0, 0.0, 0.5, 0.0])
    specialists = [Controller(weights_from_action(action)) for action in (SHORTEST_FIRST, attained, FCFS)]
    plan = replace(PLAN, objective=Objective(), hinge=0.0)
    schooling = [CHAT, LONG]
    costs = costs_of(plan, schooling, specialists)
    assert costs[0].argmin() != costs[1].argmin(), "one of them is best in both"
    right = [specialists[i] for i in costs.argmin(axis=1)]
    some = lessons(plan, schooling, right, costs, np.random.default_rng(0))
    both = gated(plan, specialists, learn_gate([some], seed=0, num_steps=400))
    reached = costs_of(plan, schooling, [both])[:, 0]
    assert reached.mean() < costs.mean(axis=0).min(), "one specialist alone does as well"
    assert (reached < costs.min(axis=1) + 0.1).all()


def test_of_equals_the_one_at_home_is_in_charge() -> None:
    """Two specialists that do the same: who is in charge costs nothing and says where the gate takes itself to be."""
    names = [f"{traffic}-tight-saturated-7b" for traffic in ("conv", "code")]
    plan = replace(PLAN, cells=lambda name: name in names, num_windows=2)
    same = Controller(weights_from_action(SHORTEST_FIRST))
    specialists = {"conv-tight-7b": same, "code-tight-7b": same}
    both, _ = teach(plan, specialists, load_rivals(), 0, lambda line: None, at_home=0.02)
    assert both.gate is not None
    for place, name in enumerate(names):
        held = windows(GRID[name], 1, split=TEST)[0]
        settings = both.settings(held.workload, held.engine)
        chosen = [pick(both.gate.inner, both.gate.outer, setting.features) for setting in settings]
        assert np.mean(np.array(chosen) == place) > 0.8
