"""Offline data sets: what was played comes back, and plays again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.suite.cards import card_of
from infermax_gym.suite.data import croissant, load_trajectories, make_dataset, transitions
from infermax_gym.suite.tasks import FIRST_TEST_SEED, ROUTER, TOY, SuiteError
from infermax_gym.suite.trajectories import expert, kinds_of, trajectories
from tests.cli.conftest import Command, command  # noqa: F401 - a fixture


def test_a_dataset_comes_back_and_its_actions_give_its_rewards(tmp_path: Path) -> None:
    pytest.importorskip("minari", reason="needs the extra 'data'")
    where = make_dataset(TOY, "expert", tmp_path, 2)
    played = load_trajectories(TOY, "expert", tmp_path)
    written = list(trajectories(TOY, "expert", 2))
    env = gym.make(TOY.id)
    for ours, theirs in zip(written, played, strict=True):
        assert np.array_equal(ours.actions, theirs.actions)
        assert all(np.array_equal(ours.observations[name], theirs.observations[name]) for name in ours.observations)
        env.reset(seed=ours.seed)
        assert [env.step(a)[1] for a in theirs.actions.tolist()] == pytest.approx(theirs.rewards.tolist())
        assert ours.seed < FIRST_TEST_SEED
    flat, masks, actions = transitions(played)
    assert masks[np.arange(len(actions)), actions].all()
    assert np.array_equal(flat[0], gym.make(TOY.id, flat=True).reset(seed=0)[0])
    described = json.loads((where / "croissant.json").read_text())
    assert described == croissant(TOY, "expert", where)
    for file in described["distribution"]:
        assert hashlib.sha256((where / file["contentUrl"]).read_bytes()).hexdigest() == file["sha256"]
    with pytest.raises(ValueError, match="is there already"):
        make_dataset(TOY, "expert", tmp_path, 1)


def test_the_solver_is_better_than_random_play(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infermax_gym.suite.trajectories._SOLVE_S", 5.0)
    found = next(trajectories(TOY, "optimal", 1))
    env = gym.make(TOY.id)
    env.reset(seed=found.seed)
    rng = np.random.default_rng(0)
    over, total = False, 0.0
    while not over:
        _, reward, over, _, _ = env.step(rng.choice(np.flatnonzero(env.get_wrapper_attr("action_masks")())))
        total += float(reward)
    assert total <= found.rewards.sum() + 1e-12


def test_who_plays_what() -> None:
    assert kinds_of(ROUTER) == ("random", "default")
    with pytest.raises(SuiteError, match="has no optimal trajectories; expected one of random, default"):
        next(trajectories(ROUTER, "optimal", 1))
    played = next(trajectories(ROUTER, "default", 1))
    assert len(played.actions) == ROUTER.horizon
    assert expert(TOY).max_running == card_of(TOY).notes["tuned_rule"]["max_running"]


def test_the_command_says_what_is_wrong(command: Command, tmp_path: Path) -> None:  # noqa: F811
    for arguments, hint in (
        (["nothing", "-o", tmp_path], "has no task 'nothing'"),
        (["toy", "-o", tmp_path, "--kinds", "best"], "--kinds has 'best'; expected random, default, expert, optimal"),
        (["router", "-o", tmp_path, "--kinds", "optimal"], "has no optimal trajectories"),
    ):
        if "router" in arguments:
            pytest.importorskip("minari", reason="needs the extra 'data'")
        ended = command("dataset", *arguments)
        assert (ended.code, ended.err.count("\n")) == (2, 1 + ("router" in arguments))
        assert hint in ended.err
