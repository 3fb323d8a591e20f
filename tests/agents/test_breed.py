"""Breeding: what a loss is, and the windows that specialists are bred on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.breed import Nursery, behind, courses, excess
from agents.cells import TRAIN, TrainingCell, windows
from agents.grid import GRID
from agents.objectives import Objective
from agents.rivals import load_rivals
from agents.specialists import SCHOOLS, in_group
from baselines.policies import POLICIES
from infermax_gym.engine import simulate

PLAN = replace(SCHOOLS["generalist"].breed, num_windows=1, windows_at_once=1)
WINDOW = windows(TrainingCell("azure-conv", 120, 0.9, 9_000), 1, split=TRAIN)[0]


def test_a_loss_beyond_the_rival_counts_on_the_average_of_windows() -> None:
    plan = replace(PLAN, objective=Objective(), hinge=3.0)
    a, b = (simulate(WINDOW.workload, WINDOW.engine, POLICIES[n]) for n in ("sarathi", "orca"))
    worse = float(np.log(b.latency_s.mean() / a.latency_s.mean()))
    assert worse > 0.0
    assert excess([b], [a], plan) == pytest.approx(4.0 * worse)
    assert excess([a], [b], plan) == pytest.approx(-worse)
    assert excess([a, b], [b, a], plan) == pytest.approx(0.0, abs=1e-12)
    assert behind([b], [a], plan) == pytest.approx(worse)


def test_long_backlogs_have_the_best_of_several_rivals() -> None:
    """What is tuned on short windows of a cell may be far from the best on long ones."""
    plan = replace(PLAN, cells=in_group("conv-wide-7b"))
    rivals = load_rivals()
    *cells, backlog = courses(plan, rivals)
    assert len(cells) == 3 and len(backlog.windows[0].workload) > 4 * len(cells[0].windows[0].workload)
    tuned = rivals.rows_of("conv-wide-overloaded-7b")
    window = backlog.windows[0]
    rows = (tuned["per-cell"], tuned["global"], POLICIES["spf-headroom"])
    means_s = [simulate(window.workload, window.engine, row).latency_s.mean() for row in rows]
    assert backlog.rival[0].latency_s.mean() == min(means_s)


def test_worst_is_the_cell_furthest_behind() -> None:
    plan = replace(PLAN, cells=in_group("code-tight-7b"))
    nursery = Nursery(plan, courses(plan, load_rivals()))
    vector = nursery.start(load_rivals())
    controller = nursery.controller(vector)
    ratios = []
    for course in nursery.schooling:
        window = course.windows[0]
        ours, theirs = controller.play(window.workload, window.engine), course.rival[0]
        ratios.append(float(np.log(ours.latency_s.mean() / theirs.latency_s.mean())))
    assert len(ratios) == sum(map(plan.cells, GRID))
    assert nursery.worst(vector) == pytest.approx(max(ratios))
