"""The native vector form of `InferMaxKnobs-v0`: its lanes are scalar environments to the bit."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.knobs.vector import InferMaxKnobsVectorEnv
from infermax_gym.envs.rewards import mix
from tests.envs.playing import small_workload

NUM_LANES = 3


def settings_of(**more: Any) -> dict[str, Any]:
    return {
        "workloads": (small_workload(60, seed=1), small_workload(80, seed=2)),
        "num_requests": 16,
        "num_kv_tokens": (180, 300),
        "time_scale": (0.5, 2.0),
        "block_size": 4,
        "max_num_batched_tokens": 32,
        "interval_s": 0.05,
        **more,
    }


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_decisions": 4},
        {"time_limit_s": 0.3},
        {"information": "noisy", "copy": False},
        {"reward": mix({"latency": 1.0, "ttft": 0.3, "gpu_cost": 0.7})},
    ],
)
def test_lanes_are_scalar_environments(more: dict[str, Any]) -> None:
    vector = InferMaxKnobsVectorEnv(NUM_LANES, **settings_of(**more))
    alone = {name: value for name, value in more.items() if name != "copy"}
    scalars = [InferMaxKnobsEnv(**settings_of(**alone)) for _ in range(NUM_LANES)]
    batch, info = vector.reset(seed=5)
    for i, env in enumerate(scalars):
        np.testing.assert_array_equal(batch[i], env.reset(seed=5 + i)[0])
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.uniform(-1.2, 1.2, (NUM_LANES, 11)).astype(np.float32)
        batch, rewards, terminated, truncated, info = vector.step(actions)
        assert vector.observation_space.contains(batch)
        for i, env in enumerate(scalars):
            observation, reward, end, cut, one = env.step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, end, cut)
            for name in set(one) - {"metrics"}:
                assert (info["final_info"] if end else info)[name][i] == one[name]
            if end:
                ends += 1
                np.testing.assert_array_equal(info["final_obs"][i], observation)
                assert info["final_info"]["metrics"][i] == one["metrics"]
                observation, _ = env.reset()
            np.testing.assert_array_equal(batch[i], observation)
    assert ends >= 2 * NUM_LANES and "action_mask" not in info


def test_states_copies_and_pickles() -> None:
    env = InferMaxKnobsVectorEnv(2, **settings_of())
    env.reset(seed=1)
    action = np.zeros((2, 11))
    env.step(action)
    states = env.get_state()
    forms = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env]
    steps = [[form.step(action)[0] for _ in range(6)] for form in forms]
    np.testing.assert_array_equal(steps[0], steps[2])
    np.testing.assert_array_equal(steps[1], steps[2])
    env.set_state(states)
    np.testing.assert_array_equal([env.step(action)[0] for _ in range(6)], steps[2])
    other = InferMaxKnobsEnv(**settings_of())
    other.set_state(states[1])  # a lane's state is a scalar environment's
    observation, *_ = other.step(action[1])
    np.testing.assert_array_equal(observation, steps[2][0][1])


def test_an_ended_state_stays_ended() -> None:
    env = InferMaxKnobsVectorEnv(1, autoreset_mode="DISABLED", **settings_of(max_decisions=1))
    env.reset(seed=0)
    env.step(np.zeros((1, 11)))
    states = env.get_state()
    env.reset()
    env.set_state(states)
    with pytest.raises(gym.error.ResetNeeded, match="lanes \\[0\\] have ended"):
        env.step(np.zeros((1, 11)))


@pytest.mark.parametrize(
    "actions", [np.zeros(11), np.zeros((2, 10)), np.zeros((3, 11)), np.full((2, 11), np.nan), "knobs", None, [[0.0], 1]]
)
def test_actions(actions: Any) -> None:
    env = InferMaxKnobsVectorEnv(2, **settings_of())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions must be \(2, 11\) numbers|an action is 11 finite numbers"):
        env.step(actions)


def test_make_vec_is_native() -> None:
    for arguments in ({}, {"vectorization_mode": "vector_entry_point"}):
        env = gym.make_vec("InferMaxKnobs-v0", num_envs=2, num_requests=5, **arguments)
        assert isinstance(env.unwrapped, InferMaxKnobsVectorEnv)
