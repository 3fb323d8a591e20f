"""Specialists and their gate: groups, what a choice costs, and a gate that finds out where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents import AgentError
from agents.breed import Course, excess
from agents.cells import TRAIN, TrainingCell, windows
from agents.controller import Controller, weights_from_action
from agents.controller_kernel import CONTROLLER_FEATURES, CONTROLLER_KNOBS, NUM_FEATURES, pick
from agents.evolution import FCFS
from agents.grid import GRID, has_slos
from agents.objectives import Objective
from agents.recipes import SHORTEST_FIRST
from agents.rivals import load_rivals
from agents.specialists import (
    SCHOOLS,
    Lessons,
    attend,
    costs_of,
    gated,
    groups_of,
    in_group,
    learn_gate,
    lessons,
    starts_of,
)
from baselines.policies import POLICIES
from infermax_gym.engine import simulate

PLAN = SCHOOLS["generalist"].breed
TINY = replace(PLAN, generations=(2, 1), population=4, num_windows=2, windows_at_once=1, cells=lambda name: True)


@pytest.mark.parametrize("name", SCHOOLS)
def test_groups_share_out_the_cells(name: str) -> None:
    plan = SCHOOLS[name].breed
    groups = groups_of(plan)
    for cell in GRID:
        assert sum(in_group(group)(cell) for group in groups) == plan.cells(cell)
    assert len(groups_of(SCHOOLS["goodput"].breed)) == sum(map(has_slos, GRID)) // 3


def test_starts_are_settings_of_the_family() -> None:
    rivals = load_rivals()
    starts = starts_of(PLAN, "code-wide-70b", rivals)
    names = [name for name in GRID if in_group("code-wide-70b")(name)]
    place = PLAN.knobs.index("push_out")
    assert len(starts) == 2 * (2 + len(names)) and {s[place] for s in starts} == {-0.5, 0.5}
    own = np.array(rivals.per_cell["mean"][names[0]])
    assert any(np.array_equal(s[: len(own)], own) for s in starts)


def course(cell: TrainingCell, count: int = 2) -> Course:
    held = windows(cell, count, split=TRAIN)
    return Course(held, [simulate(w.workload, w.engine, POLICIES["sarathi"]) for w in held])


CHAT = course(TrainingCell("azure-conv", 120, 0.9, 9_000))
LONG = course(TrainingCell("reasoning", 60, 0.6, 20_000))


def test_a_loss_beyond_the_rival_counts_on_the_average_of_windows() -> None:
    plan = replace(PLAN, objective=Objective(), hinge=3.0)
    a, b = (simulate(CHAT.windows[0].workload, CHAT.windows[0].engine, POLICIES[n]) for n in ("sarathi", "orca"))
    worse = float(np.log(b.latency_s.mean() / a.latency_s.mean()))
    assert worse > 0.0
    assert excess([b], [a], plan) == pytest.approx(4.0 * worse)
    assert excess([a], [b], plan) == pytest.approx(-worse)
    assert excess([a, b], [b, a], plan) == pytest.approx(0.0, abs=1e-12)


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


def test_interrupted_schools_go_on(tmp_path: Path) -> None:
    """A specialist in the folder is not bred again; one that is missing is."""
    rivals = load_rivals()
    plan = replace(TINY, cells=lambda name: name.startswith("conv-tight"))
    said: list[str] = []
    first, losses = attend(plan, rivals, 0, tmp_path, said.append)
    assert set(first) == {"conv-tight-7b", "conv-tight-70b"} and len(said) >= 2
    (tmp_path / "conv-tight-70b.json").unlink()
    before = len(said)
    again, same = attend(plan, rivals, 0, tmp_path, said.append)
    assert all(line.startswith("conv-tight-70b") for line in said[before:]) and len(said) > before
    for group in first:
        np.testing.assert_array_equal(first[group].weights, again[group].weights)
    assert same == losses
    with pytest.raises(AgentError, match="another folder"):
        attend(plan, rivals, 1, tmp_path, said.append)


def test_schools_know_what_they_may() -> None:
    assert "late" not in SCHOOLS["generalist"].breed.knobs and "class_ttft" not in SCHOOLS["generalist"].breed.knobs
    assert SCHOOLS["generalist"].breed.sigma is None and SCHOOLS["informed"].breed.sigma is not None
    for school in SCHOOLS.values():
        assert set(school.breed.knobs) <= set(CONTROLLER_KNOBS) and set(school.breed.features) <= set(
            CONTROLLER_FEATURES
        )
