"""States: exact branching, any number of times, here or in another environment."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.testing import random_legal
from tests.envs.playing import same_observation, tight_env

Steps = list[tuple[Any, float, bool, bool, float]]


def go_on(env: InferMaxEnv, seed: int, num_steps: int) -> Steps:
    """Random steps, into the next episodes."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(num_steps):
        observation, reward, terminated, truncated, info = env.step(random_legal(env.action_masks(), env.layout, rng))
        if terminated or truncated:
            observation, info = env.reset()
        seen.append((observation, reward, terminated, truncated, info["clock_s"]))
    return seen


def same(a: Steps, b: Steps) -> bool:
    return all(same_observation(x[0], y[0]) and x[1:] == y[1:] for x, y in zip(a, b, strict=True))


def fresh(**settings: Any) -> InferMaxEnv:
    """Episodes that differ from one another, so that the random streams are part of what is tested."""
    return tight_env(num_requests=10, time_scale=(0.5, 2.0), **settings)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("information", ["none", "noisy"])
def test_branches(flat: bool, information: str) -> None:
    env = fresh(flat=flat, information=information)
    env.reset(seed=1)
    go_on(env, 0, 30)
    here = env._observation()
    state = env.get_state()
    one = go_on(env, 1, 200)
    assert any(step[2] for step in one), "the branch is to reach another episode"
    assert same_observation(env.set_state(state), here)
    other = go_on(env, 2, 200)
    assert not same(one, other)
    env.set_state(state)
    assert same(go_on(env, 1, 200), one)
    twin = fresh(flat=flat, information=information)
    assert same_observation(twin.set_state(state), here)
    assert same(go_on(twin, 1, 200), one)


def test_a_state_is_not_touched_by_play() -> None:
    """Two branches of one state, stepped in turns, do not see each other."""
    env, twin, alone = fresh(), fresh(), fresh()
    env.reset(seed=1)
    go_on(env, 0, 25)
    state = env.get_state()
    twin.set_state(state)
    alone.set_state(state)
    expected = go_on(alone, 4, 60)
    a, b = np.random.default_rng(4), np.random.default_rng(5)
    for observation, reward, *_ in expected[:40]:
        step = env.step(random_legal(env.action_masks(), env.layout, a))
        twin.step(random_legal(twin.action_masks(), twin.layout, b))
        if step[2] or step[3]:
            break
        assert same_observation(step[0], observation) and step[1] == reward


def test_rewards_after_a_branch_count_from_there() -> None:
    env = fresh()
    env.reset(seed=0)
    state = env.get_state()
    go_on(env, 0, 20)
    env.set_state(state)
    assert env._info()["dt_s"] == 0.0


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_states_can_be_stored(duplicate: Callable[[Any], Any]) -> None:
    env = fresh()
    env.reset(seed=1)
    go_on(env, 0, 30)
    stored = duplicate(env.get_state())
    expected = go_on(env, 1, 100)
    env.set_state(stored)
    assert same(go_on(env, 1, 100), expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_environments_can_be_duplicated(duplicate: Callable[[Any], Any]) -> None:
    """A duplicate has memory of its own: what it does is not seen by the original."""
    env = fresh()
    env.reset(seed=1)
    go_on(env, 0, 30)
    state = env.get_state()
    twin = duplicate(env)
    one = go_on(twin, 2, 50)
    assert same_observation(env._observation(), fresh().set_state(state))
    assert same(go_on(env, 2, 50), one)


def test_knobs() -> None:
    env = InferMaxKnobsEnv(num_requests=60, interval_s=0.5)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (12, 11)).astype(np.float32)
    for action in actions[:4]:
        env.step(action)
    state = env.get_state()
    first = [env.step(action)[:2] for action in actions[4:]]
    env.set_state(state)
    for action, (observation, reward) in zip(actions[4:], first, strict=True):
        again = env.step(action)
        np.testing.assert_array_equal(again[0], observation)
        assert again[1] == reward


@pytest.mark.parametrize("env_id", ["InferMax-v0", "InferMaxKnobs-v0"])
@pytest.mark.parametrize("call", ["step", "get_state", "run"])
def test_before_the_first_reset(env_id: str, call: str) -> None:
    env: Any = gym.make(env_id).unwrapped
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        {"step": lambda: env.step(env.action_space.sample()), "get_state": env.get_state, "run": lambda: env.run}[
            call
        ]()
