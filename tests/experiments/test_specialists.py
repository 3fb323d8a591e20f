"""Specialists: groups, where their searches begin, and what they learn from one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.board.rivals import load_rivals
from experiments.board.scenarios import SCENARIOS, has_slos
from experiments.breeding.specialists import (
    RECIPES,
    Candidate,
    SpecialistTraining,
    groups_of,
    in_group,
    starts_of,
    train_specialists,
    warm_starts_of,
)
from infermax_gym.agents import AgentError
from infermax_gym.agents.controller import Controller
from infermax_gym.agents.controller_layout import CONTROLLER_FEATURES, CONTROLLER_KNOBS

PLAN = RECIPES["generalist"].breed
TINY = replace(PLAN, generations=(2, 1), population=4, num_slices=2, slices_at_once=1, scenarios=lambda name: True)
STARTS_OF_CHAT = starts_of(TINY, "conv-tight-7b", load_rivals())[:8:2]


@pytest.mark.parametrize("name", RECIPES)
def test_groups_share_out_the_scenarios(name: str) -> None:
    plan = RECIPES[name].breed
    groups = groups_of(plan)
    for scenario in SCENARIOS:
        assert sum(in_group(group)(scenario) for group in groups) == plan.scenarios(scenario)
    assert len(groups_of(RECIPES["goodput"].breed)) == sum(map(has_slos, SCENARIOS)) // 3


def test_starts_are_settings_of_the_family() -> None:
    rivals = load_rivals()
    starts = starts_of(PLAN, "code-wide-70b", rivals)
    names = [name for name in SCENARIOS if in_group("code-wide-70b")(name)]
    place = PLAN.knobs.index("preempt")
    assert len(starts) == 4 * (2 + len(names)) and {s[place] for s in starts} == {-0.5, 0.5}
    own = np.array(rivals.per_cell["mean"][names[0]])
    assert any(np.array_equal(s[: len(own)], own) for s in starts)


def test_interrupted_training_goes_on(tmp_path: Path) -> None:
    """A specialist in the folder is not bred again; one that is missing is, from what the others are by then."""
    rivals = load_rivals()
    plan = replace(TINY, scenarios=lambda name: name.startswith("conv-tight"))
    said: list[str] = []
    first, losses = train_specialists(plan, rivals, 0, tmp_path, said.append)
    assert set(first) == {"conv-tight-7b", "conv-tight-70b"} and len(said) == 6
    (tmp_path / "conv-tight-70b-weights.json").unlink()
    (tmp_path / "conv-tight-70b-refined.json").unlink()
    again, same = train_specialists(plan, rivals, 0, tmp_path, said.append)
    assert [line.split(":")[0] for line in said[6:]] == ["conv-tight-70b, weights", "conv-tight-70b, refined"]
    for group in first:
        np.testing.assert_array_equal(first[group].weights, again[group].weights)
    assert same == losses
    with pytest.raises(AgentError, match="another folder"):
        train_specialists(plan, rivals, 1, tmp_path, said.append)
    with pytest.raises(AgentError, match="or warm starts; take another folder"):
        train_specialists(plan, rivals, 0, tmp_path, said.append, [first["conv-tight-7b"]])


def test_a_specialist_takes_over_what_another_has_found() -> None:
    """Where another group's specialist is better than its own, it goes on from that, and never falls behind it."""
    rivals = load_rivals()
    specialist = SpecialistTraining(TINY, "conv-tight-7b", rivals, 0)
    vectors = [
        specialist.training.vector(Controller(specialist.training.controller(start).weights))
        for start in STARTS_OF_CHAT
    ]
    losses = [specialist.choosing.whole_loss(vector) for vector in vectors]
    worst, best = int(np.argmax(losses)), int(np.argmin(losses))
    assert losses[worst] > losses[best]
    own, other = (specialist.training.controller(vectors[i]) for i in (worst, best))
    assert specialist.search_weights([own]).loss <= losses[worst]
    assert specialist.search_weights([own, other]).loss <= losses[best]


@pytest.mark.parametrize("name", ["informed", "goodput"])
def test_warm_starts_are_what_a_recipe_could_have_found_itself(name: str) -> None:
    """They set only its knobs by its features, so that nothing is lost where a search begins at one of them."""
    recipe = RECIPES[name]
    warm_starts = warm_starts_of(recipe)
    assert len(warm_starts) == len(groups_of(PLAN)) and all(warm_start.gating is None for warm_start in warm_starts)
    knobs = [CONTROLLER_KNOBS.index(knob) for knob in recipe.breed.knobs]
    features = [0, *(CONTROLLER_FEATURES.index(feature) for feature in recipe.breed.features)]
    for warm_start in warm_starts:
        rest = warm_start.weights.copy()
        rest[np.ix_(knobs, features)] = 0.0
        assert not rest.any()
    assert warm_starts_of(RECIPES["generalist"]) == []


def test_a_recipe_gains_by_its_warm_starts() -> None:
    rivals = load_rivals()
    plan = replace(TINY, scenarios=lambda name: name.startswith("mixed-tight") and name.endswith("7b"))
    specialist = SpecialistTraining(plan, "mixed-tight-7b", rivals, 0)
    warm_start = warm_starts_of(RECIPES["informed"])[groups_of(PLAN).index("mixed-tight-7b")]
    reached = specialist.choosing.whole_loss(specialist.training.vector(warm_start))
    _, alone = train_specialists(plan, rivals, 0, None, lambda line: None)
    _, helped = train_specialists(plan, rivals, 0, None, lambda line: None, [warm_start])
    assert alone["mixed-tight-7b"] > reached, "what it finds alone is as good: no test"
    assert helped["mixed-tight-7b"] <= reached


def test_who_is_behind_is_refined_and_who_is_not_stays() -> None:
    """First come, first served is far behind shortest first; what is bred from it is less so."""
    rivals = load_rivals()
    specialist = SpecialistTraining(replace(TINY, generations=(2, 12), population=8), "conv-tight-7b", rivals, 0)
    first = np.zeros(len(STARTS_OF_CHAT[0]))
    first[PLAN.knobs.index("aging")], first[PLAN.knobs.index("prefill_share")] = 1.0, 1.0
    slow = Candidate(specialist.training.controller(first), specialist.choosing.whole_loss(first))
    behind = specialist.choosing.worst(specialist.training.vector(slow.controller))
    refined = specialist.refine(slow, [slow.controller])
    assert behind > 0.1
    assert specialist.choosing.worst(specialist.training.vector(refined.controller)) < behind - 0.02
    specialist.choosing.worst = lambda vector: 0.0  # type: ignore[method-assign]
    assert specialist.refine(slow, [slow.controller]) is slow
    best = min(STARTS_OF_CHAT, key=specialist.choosing.whole_loss)
    assert specialist.refine(slow, [specialist.training.controller(best)]).loss <= specialist.choosing.whole_loss(
        best
    )  # overtaken


def test_recipes_know_what_they_may() -> None:
    assert "shed" not in RECIPES["generalist"].breed.knobs and "class_ttft" not in RECIPES["generalist"].breed.knobs
    assert RECIPES["generalist"].breed.sigma is None and RECIPES["informed"].breed.sigma is not None
    for recipe in RECIPES.values():
        assert set(recipe.breed.knobs) <= set(CONTROLLER_KNOBS) and set(recipe.breed.features) <= set(
            CONTROLLER_FEATURES
        )
