"""The native vector environment: lanes are scalar environments to the bit, autoreset and infos as declared."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.envs.rewards import mix
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.testing import play_random, random_legal
from tests.engine.strategies import examples
from tests.envs.playing import same_observation, small_workload
from tests.envs.strategies import hostile_configs

NUM_LANES = 3
SEED = 11


def settings_of(**more: Any) -> dict[str, Any]:
    """Episodes of some 100 decisions with preemptions; every reset draws another window and memory size."""
    return {
        "workloads": (small_workload(60, seed=1), small_workload(80, seed=2)),
        "num_requests": 16,
        "num_kv_tokens": (180, 300),
        "time_scale": (0.5, 2.0),
        "block_size": 4,
        "max_num_batched_tokens": 32,
        **more,
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "dict": {},
    "flat": {"flat": True},
    "iteration": {"decide": "iteration", "flat": True},
    "noisy": {"information": "noisy"},
    "decisions": {"max_decisions": 37},
    "time": {"time_limit_s": 0.4, "flat": True},
    "views": {"copy": False},
    "mixed reward": {"reward": mix({"latency": 1.0, "ttft": 0.3, "gpu_cost": 0.7}), "max_decisions": 60},
}


def lane(batch: Any, i: int) -> Any:
    return {key: value[i] for key, value in batch.items()} if isinstance(batch, dict) else batch[i]


@pytest.mark.parametrize("name", VARIANTS)
def test_lanes_are_scalar_environments(name: str) -> None:
    """Same seeds, same actions: the same bits, over several episodes of each lane."""
    vector = InferMaxVectorEnv(NUM_LANES, **settings_of(**VARIANTS[name]))
    of_a_lane = {key: value for key, value in VARIANTS[name].items() if key != "copy"}
    scalars = [InferMaxEnv(**settings_of(**of_a_lane)) for _ in range(NUM_LANES)]
    batch, info = vector.reset(seed=SEED)
    for i, env in enumerate(scalars):
        observation, one = env.reset(seed=SEED + i)
        assert same_observation(lane(batch, i), observation)
        assert info["clock_s"][i] == one["clock_s"]
    rng = np.random.default_rng(0)
    ends = np.zeros(NUM_LANES, int)
    for _ in range(600):
        masks = vector.action_masks()
        actions = np.array([random_legal(mask, vector.layout, rng, illegal_share=0.05) for mask in masks])
        batch, rewards, terminated, truncated, info = vector.step(actions)
        for i, env in enumerate(scalars):
            observation, reward, end, cut, one = env.step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, end, cut)
            assert (info["dt_s"][i], info["clock_s"][i]) == (one["dt_s"], one["clock_s"])
            if end or cut:
                ends[i] += 1
                assert info["_final_obs"][i] and info["_final_info"][i] and info["final_info"]["_metrics"][i]
                assert same_observation(info["final_obs"][i], observation)
                assert info["final_info"]["metrics"][i] == one["metrics"]
                observation, one = env.reset()
            elif "_final_obs" in info:
                assert not info["_final_obs"][i] and info["final_obs"][i] is None
            assert same_observation(lane(batch, i), observation)
            np.testing.assert_array_equal(info["action_mask"][i], one["action_mask"])
            np.testing.assert_array_equal(vector.action_masks()[i], env.action_masks())
    assert (ends >= 2).all()


@examples(40)
@given(config=hostile_configs(), seed=st.integers(0, 1000))
def test_lanes_on_hostile_configurations(config: EnvConfig, seed: int) -> None:
    """The same bits where memory, windows and budgets are tiny, over the first steps of a few episodes."""
    config = config.changed(max_decisions=25)
    vector, scalars = InferMaxVectorEnv(2, config, flat=True), [InferMaxEnv(config, flat=True) for _ in range(2)]
    batch, _ = vector.reset(seed=seed)
    for i, env in enumerate(scalars):
        np.testing.assert_array_equal(batch[i], env.reset(seed=seed + i)[0])
    rng = np.random.default_rng(seed)
    for _ in range(60):
        actions = rng.integers(-1, vector.layout.num_actions, 2)
        batch, rewards, *ends, info = vector.step(actions)
        for i, env in enumerate(scalars):
            observation, reward, *ended, one = env.step(actions[i])
            assert [rewards[i], ends[0][i], ends[1][i]] == [reward, *ended]
            if any(ended):
                np.testing.assert_array_equal(info["final_obs"][i], observation)
                assert info["final_info"]["metrics"][i] == one["metrics"]
                observation, _ = env.reset()
            np.testing.assert_array_equal(batch[i], observation)


def test_wrappers_of_gymnasium() -> None:
    env = gym.wrappers.vector.RecordEpisodeStatistics(InferMaxVectorEnv(2, max_decisions=5, **settings_of()))
    env.reset(seed=0)
    for _ in range(5):
        *_, truncated, info = env.step(env.unwrapped.action_masks().argmax(1))  # type: ignore[attr-defined]
    assert truncated.all() and info["episode"]["l"].tolist() == [5, 5]


def test_same_as_gymnasiums_own() -> None:
    """SyncVectorEnv over scalar environments in the same autoreset mode gives the same."""
    ours = InferMaxVectorEnv(NUM_LANES, **settings_of())
    make = lambda: InferMaxEnv(**settings_of())  # noqa: E731
    theirs = SyncVectorEnv([make] * NUM_LANES, autoreset_mode=AutoresetMode.SAME_STEP)
    a, _ = ours.reset(seed=SEED)
    b, _ = theirs.reset(seed=SEED)
    rng = np.random.default_rng(0)
    num_ends = 0
    for _ in range(300):
        assert same_observation(a, b)
        actions = np.array([random_legal(mask, ours.layout, rng) for mask in ours.action_masks()])
        a, reward_a, *end_a, info_a = ours.step(actions)
        b, reward_b, *end_b, info_b = theirs.step(actions)
        np.testing.assert_array_equal(reward_a, reward_b)
        np.testing.assert_array_equal(end_a, end_b)
        assert ("final_obs" in info_a) == ("final_obs" in info_b)
        for i in np.flatnonzero(end_a[0] | end_a[1]):
            num_ends += 1
            assert same_observation(info_a["final_obs"][i], info_b["final_obs"][i])
    assert num_ends > 3
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.single_observation_space == theirs.single_observation_space


def test_declared_mode() -> None:
    env = gym.make_vec("InferMax-v0", num_envs=2, num_requests=5)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.num_envs == 2


@pytest.mark.parametrize("name", VARIANTS)
def test_random_play(name: str) -> None:
    played = play_random(
        InferMaxVectorEnv(NUM_LANES, **settings_of(**VARIANTS[name])), seed=3, max_steps=250, illegal_share=0.1
    )
    assert played.num_episodes >= 2


def test_observations_are_copies_unless_asked() -> None:
    settled: list[np.ndarray] = []
    for copied in (True, False):
        env = InferMaxVectorEnv(2, copy=copied, flat=True, **settings_of())
        observation, _ = env.reset(seed=0)
        before = observation.copy()
        env.step(env.action_masks().argmax(1))
        settled.append(np.array_equal(before, observation))
    assert settled == [True, False]


def test_happened_holds_the_components() -> None:
    env = InferMaxVectorEnv(NUM_LANES, reward="gpu_cost", **settings_of())
    env.reset(seed=0)
    for _ in range(50):
        _, rewards, _, _, info = env.step(env.action_masks().argmax(1))
        np.testing.assert_array_equal(-info["reward_components"][:, 3], rewards)
        np.testing.assert_array_equal(info["reward_components"][:, 0], info["dt_s"])


def test_without_metrics() -> None:
    env = InferMaxVectorEnv(2, metrics=False, max_decisions=3, **settings_of())
    env.reset(seed=0)
    for _ in range(3):
        *_, truncated, info = env.step(env.action_masks().argmax(1))
    assert truncated.all() and not {"metrics", "_metrics"} & set(info["final_info"]), (
        "TorchRL trips over a column of None"
    )


def test_seeds_and_options() -> None:
    env = InferMaxVectorEnv(2, flat=True, **settings_of())
    first, _ = env.reset(seed=[5, 5])
    np.testing.assert_array_equal(first[0], first[1])
    apart, _ = env.reset(seed=5)
    np.testing.assert_array_equal(apart[0], first[0])
    assert env.runs[0].episode.workload is not env.runs[1].episode.workload
    env.reset(seed=5, options={"num_kv_tokens": 200})
    assert [run.episode.engine.num_kv_tokens for run in env.runs] == [200, 200]
    env.reset(seed=5, options=[{"num_kv_tokens": 200}, {"num_kv_tokens": 240}])
    assert [run.episode.engine.num_kv_tokens for run in env.runs] == [200, 240]
    again, _ = env.reset()
    later, _ = env.reset()
    assert not np.array_equal(again, later)


def test_unseeded_lanes_differ() -> None:
    env = InferMaxVectorEnv(2, flat=True, **settings_of())
    env.reset()
    a, b = (run.episode.workload.arrival_s for run in env.runs)  # windows may coincide, continuous time scales do not
    other = InferMaxVectorEnv(2, flat=True, **settings_of())
    other.reset()
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, other.runs[0].episode.workload.arrival_s)


def test_state_branches_exactly() -> None:
    env = InferMaxVectorEnv(NUM_LANES, **settings_of())
    env.reset(seed=0)
    choose = np.random.default_rng(0)

    def go_on(num_steps: int) -> list[Any]:
        seen = []
        for _ in range(num_steps):
            actions = np.array([random_legal(mask, env.layout, choose) for mask in env.action_masks()])
            seen.append(env.step(actions)[:4])
        return seen

    go_on(20)
    states = env.get_state()
    choose = np.random.default_rng(1)
    first = go_on(120)
    env.set_state(states)
    choose = np.random.default_rng(1)
    for (obs_a, *rest_a), (obs_b, *rest_b) in zip(first, go_on(120), strict=True):
        assert same_observation(obs_a, obs_b)
        np.testing.assert_array_equal(rest_a, rest_b)


def test_lane_states_and_scalar_states_are_the_same() -> None:
    vector, scalar = InferMaxVectorEnv(2, **settings_of()), InferMaxEnv(**settings_of())
    batch, _ = vector.reset(seed=4)
    observation = scalar.set_state(vector.get_state()[1])
    assert same_observation(observation, lane(batch, 1))
    for _ in range(30):
        action = int(scalar.action_masks().argmax())
        observation, *_ = scalar.step(action)
        batch, *_ = vector.step(np.array([0, action]))
        assert same_observation(observation, lane(batch, 1))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("flat", [True, False])
def test_environments_can_be_duplicated(duplicate: Any, flat: bool) -> None:
    env = InferMaxVectorEnv(2, flat=flat, **settings_of())
    env.reset(seed=0)
    for _ in range(20):
        env.step(env.action_masks().argmax(1))
    twin = duplicate(env)
    for _ in range(60):
        observation, *_ = twin.step(env.action_masks().argmax(1))
        expected, *_ = env.step(env.action_masks().argmax(1))
        assert same_observation(observation, expected)
    duplicate(InferMaxVectorEnv(2)).reset(seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InferMaxVectorEnv(0), "num_envs must be at least 1, got 0"),
        (lambda: InferMaxVectorEnv(2, render_mode="ansi"), "a vector environment does not render; use the scalar one"),
        (lambda: InferMaxVectorEnv(2).reset(seed=[1]), "need one seed for each of 2 lanes, got 1"),
        (lambda: begun().step([0, 0, 0]), r"actions must have shape (2,), got (3,)"),
        (lambda: begun().set_state([]), "need one state for each of 2 lanes, got 0"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


def begun() -> InferMaxVectorEnv:
    env = InferMaxVectorEnv(2, num_requests=3)
    env.reset(seed=0)
    return env
