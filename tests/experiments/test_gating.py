"""The gating network: what a choice of specialist costs, and a network that finds out where it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from experiments.board.rivals import load_rivals
from experiments.board.scenarios import SCENARIOS
from experiments.breeding.gating import (
    GatingExamples,
    costs_of,
    gating_examples,
    learn_gating,
    train_gating,
    with_gating,
)
from experiments.breeding.specialists import RECIPES
from experiments.breeding.tasks import Task
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_kernel import pick
from infermax_gym.agents.controller_layout import CONTROLLER_FEATURES, NUM_FEATURES
from infermax_gym.agents.evolution import FCFS, SHORTEST_FIRST, action_of
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TEST, TRAIN, TrainingScenario, trace_slices
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate

PLAN = RECIPES["generalist"].breed


def task(scenario: TrainingScenario, count: int = 2) -> Task:
    held = trace_slices(scenario, count, split=TRAIN)
    return Task(held, [simulate(w.workload, w.engine, POLICIES["sarathi"]) for w in held], "")


CHAT = task(TrainingScenario("azure-conv", 120, 0.9, 9_000))
LONG = task(TrainingScenario("reasoning", 60, 0.6, 20_000))


def synthetic(rng: np.random.Generator, feature: float, costs: list[float], rows: int = 400) -> GatingExamples:
    """What is seen in a scenario where a feature has some value, give or take, another is noise, the rest constant."""
    features = np.full((rows, NUM_FEATURES), 0.3)
    features[:, 0] = 1.0
    features[:, CONTROLLER_FEATURES.index("backlog")] = rng.uniform(0.0, 1.0, rows)
    features[:, CONTROLLER_FEATURES.index("capacity")] = feature + rng.normal(0.0, 0.02, rows)
    return GatingExamples(features, np.tile(costs, (rows, 1)), np.full(rows, 1.0 / rows))


def test_gating_network_learns_who_is_right_where() -> None:
    rng = np.random.default_rng(0)
    scenarios = [(0.1, [0.0, 0.3, 0.3]), (0.5, [0.3, 0.0, 0.3]), (0.9, [0.3, 0.3, 0.0])]
    gating = train_gating([synthetic(rng, at, costs) for at, costs in scenarios], seed=0, num_steps=400)
    for k, (at, costs) in enumerate(scenarios):
        held = synthetic(rng, at, costs, 40)
        chosen = [pick(gating.inner, gating.outer, row) for row in held.features]
        assert np.mean(np.array(chosen) == k) > 0.9


def test_gating_network_avoids_what_would_cost_most() -> None:
    """Two scenarios that look alike: the specialist that is second best in both costs less than guessing."""
    rng = np.random.default_rng(1)
    alike = [synthetic(rng, 0.5, costs) for costs in ([0.0, 0.5, 0.05], [0.5, 0.0, 0.05])]
    gating = train_gating(alike, seed=0, num_steps=400)
    chosen = [pick(gating.inner, gating.outer, row) for row in synthetic(rng, 0.5, [0.0, 0.0, 0.0]).features]
    assert np.mean(np.array(chosen) == 2) > 0.8


def test_gated_controller_is_as_good_as_the_right_specialist() -> None:
    """Chat is best served shortest first with room, long outputs by least attained service: the network sees it."""
    attained = action_of(generated_tokens=0.5, headroom=-0.6, max_running=1.0, prefill_share=1.0, victim_generated=0.5)
    specialists = [Controller(weights_from_action(action)) for action in (SHORTEST_FIRST, attained, FCFS)]
    plan = replace(PLAN, objective=Objective(), hinge=0.0)
    tasks = [CHAT, LONG]
    costs = costs_of(plan, tasks, specialists)
    assert costs[0].argmin() != costs[1].argmin(), "one of them is best in both"
    right = [specialists[i] for i in costs.argmin(axis=1)]
    some = gating_examples(tasks, right, costs, np.random.default_rng(0))
    both = with_gating(plan, specialists, train_gating([some], seed=0, num_steps=400))
    reached = costs_of(plan, tasks, [both])[:, 0]
    assert reached.mean() < costs.mean(axis=0).min(), "one specialist alone does as well"
    assert (reached < costs.min(axis=1) + 0.1).all()


def test_of_equals_the_in_distribution_expert_is_active() -> None:
    """Two specialists that do the same: which is active costs nothing and says where the network takes itself to be."""
    names = [f"{traffic}-tight-saturated-7b" for traffic in ("conv", "code")]
    plan = replace(PLAN, scenarios=lambda name: name in names, num_slices=2)
    same = Controller(weights_from_action(SHORTEST_FIRST))
    specialists = {"conv-tight-7b": same, "code-tight-7b": same}
    both, _ = learn_gating(plan, specialists, load_rivals(), 0, lambda line: None, in_distribution_bonus=0.02)
    assert both.gating is not None
    for place, name in enumerate(names):
        held = trace_slices(SCENARIOS[name], 1, split=TEST)[0]
        settings = both.settings(held.workload, held.engine)
        chosen = [pick(both.gating.inner, both.gating.outer, setting.features) for setting in settings]
        assert np.mean(np.array(chosen) == place) > 0.8
