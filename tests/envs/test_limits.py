"""`max_episode_steps` means the same in every form: a limit of the environment's own, paid in full."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from infermax_gym.envs import ENTRY_POINTS, InferMaxEnv, SettingError
from infermax_gym.envs.limits import limit_of_make, with_limit
from infermax_gym.envs.scheduling.config import EnvConfig

NUM_REQUESTS = 20
MOST = 6
SHAPE: dict[str, dict[str, Any]] = {
    "InferMax-v0": {},
    "InferMaxKnobs-v0": {"interval_s": 0.1},
    "InferMaxRouter-v0": {"num_replicas": 2},
}


def shape_of(env_id: str, **more: Any) -> dict[str, Any]:
    return {"num_requests": NUM_REQUESTS, "num_kv_tokens": 6_000, **SHAPE[env_id], **more}


def played(env: Any, seed: int = 0) -> tuple[list[float], tuple[bool, bool], dict[str, Any]]:
    """Rewards up to the end under one and the same action."""
    env.reset(seed=seed)
    rewards, action = [], np.zeros(11) if env.action_space.shape else 0
    while True:
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(float(reward))
        if terminated or truncated:
            return rewards, (terminated, truncated), info


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_make_pays_in_full(env_id: str) -> None:
    """Cut from outside, the last reward would hold nothing of the requests that are left."""
    cut = gym.make(env_id, max_episode_steps=MOST, **shape_of(env_id))
    assert isinstance(cut, TimeLimit)
    own = gym.make(env_id, max_decisions=MOST, **shape_of(env_id))
    rewards, ends, info = played(cut)
    again, same_ends, same_info = played(own)
    assert len(rewards) == MOST and rewards == again
    assert ends == same_ends == (True, True)
    assert info["metrics"] == same_info["metrics"] and info["metrics"]["num_finished"] == NUM_REQUESTS


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_vectors_agree(env_id: str) -> None:
    """Native, Sync and scalar, to the bit."""
    alone, _, _ = played(gym.make(env_id, max_episode_steps=MOST, **shape_of(env_id)), seed=3)
    for mode in ("vector_entry_point", "sync"):
        lanes = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode, max_episode_steps=MOST, **shape_of(env_id))
        lanes.reset(seed=3)
        action = np.zeros(lanes.action_space.shape, lanes.action_space.dtype)
        for expected in alone:
            _, rewards, terminated, truncated, _ = lanes.step(action)
            assert rewards[0] == expected
        assert terminated.all() and truncated.all()


def test_a_spec_remembers_it() -> None:
    env = gym.make("InferMax-v0", max_episode_steps=MOST, **shape_of("InferMax-v0"))
    assert env.spec is not None and env.spec.max_episode_steps == MOST
    again: Any = gym.make(env.spec).unwrapped
    assert again.config.max_decisions == MOST
    assert played(env)[0] == played(again)[0]


@pytest.mark.parametrize(
    ("own", "given", "expected"), [(None, None, None), (None, 9, 9), (4, 9, 4), (9, 4, 4), (4, None, 4), (4, -1, 4)]
)
def test_the_tighter_limit_holds(own: int | None, given: int | None, expected: int | None) -> None:
    assert with_limit(EnvConfig(max_decisions=own), given).max_decisions == expected
    made: Any = gym.make("InferMax-v0", max_episode_steps=given, max_decisions=own).unwrapped
    assert made.config.max_decisions == expected
    assert InferMaxEnv(max_decisions=own, max_episode_steps=given).config.max_decisions == expected
    lanes: Any = gym.make_vec("InferMax-v0", num_envs=1, max_decisions=own, max_episode_steps=given)
    assert lanes.config.max_decisions == expected


@pytest.mark.parametrize("steps", [0, -2, 2.5, "many"])
def test_no_number_of_steps(steps: Any) -> None:
    for env_id in ENTRY_POINTS:
        with pytest.raises(SettingError, match="max_episode_steps must be a whole number of at least 1"):
            gym.make(env_id, max_episode_steps=steps)
        with pytest.raises(SettingError, match="max_episode_steps must be a whole number of at least 1"):
            gym.make_vec(env_id, num_envs=1, max_episode_steps=steps)


def test_who_makes_nothing_has_no_limit() -> None:
    assert limit_of_make(object()) is None
    assert InferMaxEnv().config.max_decisions is None


def test_the_limit_belongs_to_the_environment_that_is_made() -> None:
    """Not to one that another's constructor makes inside."""

    class Outer(gym.Env[Any, Any]):
        def __init__(self) -> None:
            self.inner = InferMaxEnv(num_requests=5)
            self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space

    class Inherited(InferMaxEnv):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)

    gym.register("Outer-v0", entry_point=Outer, max_episode_steps=7)
    gym.register("Inherited-v0", entry_point=Inherited, max_episode_steps=7)
    try:
        outer: Any = gym.make("Outer-v0").unwrapped
        assert outer.inner.config.max_decisions is None
        inherited: Any = gym.make("Inherited-v0").unwrapped
        assert inherited.config.max_decisions == 7
    finally:
        del gym.registry["Outer-v0"], gym.registry["Inherited-v0"]
