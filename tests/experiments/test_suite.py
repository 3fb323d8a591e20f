"""Pages about the suite are what their sources give."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.studies.sections import put
from experiments.suite import leaderboard, page, references
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.suite.cards import card_of
from infermax_gym.suite.episodes import episode_of
from infermax_gym.suite.play import play_episode
from infermax_gym.suite.tasks import ROUTER, TOY


def test_the_leaderboard_is_up_to_date() -> None:
    """`python -m experiments.suite.leaderboard` writes it."""
    assert leaderboard.PAGE.read_text(encoding="utf-8") == leaderboard.page()


def test_the_cards_are_up_to_date() -> None:
    """`python -m experiments.suite.page` writes them."""
    text = page.PAGE.read_text(encoding="utf-8")
    assert put(text, page.MARKER, page.cards()) == text


def test_the_references_are_what_their_command_finds() -> None:
    variant, seed = TOY.episodes()[0]
    episode = episode_of(TOY, variant, seed)
    assert references.bound_of(TOY, episode) <= card_of(TOY).one[0] * (1.0 + 1e-9)
    tuned = references.tuned_rule(TOY)
    assert references.reach(tuned, TOY, episode) == pytest.approx(card_of(TOY).references["tuned"][0])
    assert references.bound_of(ROUTER, episode_of(ROUTER, *ROUTER.episodes()[0])) == pytest.approx(
        card_of(ROUTER).one[0]
    )


def test_the_bound_of_a_fleet_is_no_higher_than_what_routers_reach() -> None:
    """At any load, on more replicas than needed and on fewer."""
    variant, seed = ROUTER.episodes()[3]
    episode = episode_of(ROUTER, variant, seed)
    for name in ("sal", "round-robin"):
        bound = references.fleet_bound(episode.workload, episode, 4)
        assert bound <= play_episode(ROUTERS[name], ROUTER, variant, seed).objective
    alone, crowded = (references.fleet_bound(episode.workload, episode, n) for n in (100, 1))
    assert alone < crowded
    assert np.isfinite(crowded)
