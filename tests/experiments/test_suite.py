"""Pages about the suite are what their sources give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.studies.sections import put
from experiments.suite import hub, leaderboard, page, references
from infermax_gym.agents.storage import load_agent
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


def test_every_shipped_agent_has_a_model_card(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs pyyaml")
    folders = hub.write(tmp_path)
    assert {folder.name for folder in folders} == {file.stem for file in hub.ZOO.glob("*.safetensors")}
    for folder in folders:
        before, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        facts = yaml.safe_load(head)
        assert (before, facts["license"], facts["library_name"]) == ("", "apache-2.0", "infermax-gym")
        agent = load_agent(folder / f"{folder.name}.safetensors")
        assert str(agent.card["sha256"]) in text
        assert f"Knows of output lengths: {agent.information.name.lower()}." in text
        told = {
            r["dataset"]["name"]: r["metrics"][0]["value"] for m in facts.get("model-index", ()) for r in m["results"]
        }
        assert told == {task: round(score[0], 3) for task, score in hub.scores_of(folder.name).items()}
    assert hub.scores_of("any-engine")


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
