"""Disturbed cost models, and what is said of comparisons on them."""

from __future__ import annotations

import numpy as np

from experiments.studies.cost_errors import Comparison, disturbed, pairs, summary
from infermax_gym.cost.engines import find_engine


def test_a_term_that_bends_keeps_its_knot() -> None:
    cost = find_engine("llama-3.1-8b@h100").cost
    other = disturbed(cost, 0.2, np.random.default_rng(0))
    assert other != cost and len(other.terms) == len(cost.terms)
    for term, before in zip(other.terms, cost.terms, strict=True):
        if len(before) > 1:
            bent = [np.array(form) for form in term if any(form)]
            original = [np.array(form) for form in before if any(form)]
            for new, old in zip(bent, original, strict=True):
                ratios = new[old != 0.0] / old[old != 0.0]
                assert np.allclose(ratios, ratios[0]), "one factor for all of it"


def test_nothing_is_disturbed_by_sigma_zero() -> None:
    cost = find_engine("gpt-oss-120b@h100x2").cost
    assert cost.min_terms and disturbed(cost, 0.0, np.random.default_rng(0)) == cost


def test_tables_count_what_is_robust() -> None:
    found = [
        Comparison("a", "sarathi", "hrrn", 0.01, {0.1: 1.0, 0.2: 0.5}),
        Comparison("b", "hrrn", "sarathi", 0.01, {0.1: 0.5, 0.2: 1.0}),
        Comparison("b", "larry", "sarathi", 0.5, {0.1: 1.0, 0.2: 1.0}),
    ]
    assert [list(column.cells) for column in summary(found).columns] == [
        ["0% to 2%", "over 20%"], ["2", "1"], ["50%", "100%"], ["50%", "100%"],
    ]  # fmt: skip
    cells = [list(column.cells) for column in pairs(found).columns]
    assert ("sarathi", "hrrn", "2", "1", "1%") in list(zip(*cells, strict=True))
