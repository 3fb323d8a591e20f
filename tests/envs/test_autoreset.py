"""Autoreset modes of the native vectors are Gymnasium's own: the same as `SyncVectorEnv` over scalar environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

from infermax_gym.envs.rewards import Component
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.envs.wrappers import TimeDiscount, TimeDiscountVector

SETTINGS: dict[str, Any] = {"num_requests": 9, "num_kv_tokens": 6_000, "max_decisions": 40}
PAIRS = {"scheduling": (InferMaxVectorEnv, InferMaxEnv), "routing": (InferMaxRouterVectorEnv, InferMaxRouterEnv)}
NUM_LANES = 3


def pair(name: str, mode: AutoresetMode, **settings: Any) -> tuple[Any, Any]:
    native, scalar = PAIRS[name]
    shape = {**SETTINGS, **settings}
    ours = native(NUM_LANES, autoreset_mode=mode, **shape)
    theirs = SyncVectorEnv([lambda: scalar(**shape)] * NUM_LANES, autoreset_mode=mode)
    return ours, theirs


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


def legal(env: Any, step: int) -> Any:
    return np.array([np.flatnonzero(mask)[(7 * step) % mask.sum()] for mask in env.action_masks()])


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", PAIRS)
def test_same_as_gymnasiums_own(name: str, mode: AutoresetMode, flat: bool) -> None:
    ours, theirs = pair(name, mode, flat=flat)
    assert ours.metadata["autoreset_mode"] == mode
    a, info_a = ours.reset(seed=5)
    b, info_b = theirs.reset(seed=5)
    assert equal(a, b)
    ends = 0
    for step in range(120):
        actions = legal(ours, step)
        a, reward_a, terminated_a, truncated_a, info_a = ours.step(actions)
        b, reward_b, terminated_b, truncated_b, info_b = theirs.step(actions)
        assert equal(a, b)
        np.testing.assert_array_equal(reward_a, reward_b)
        np.testing.assert_array_equal(terminated_a, terminated_b)
        np.testing.assert_array_equal(truncated_a, truncated_b)
        done = terminated_a | truncated_a
        ends += int(done.sum())
        if mode == AutoresetMode.SAME_STEP and done.any():
            np.testing.assert_array_equal(info_a["_final_obs"], info_b["_final_obs"])
            for i in np.flatnonzero(done):
                assert equal(info_a["final_obs"][i], info_b["final_obs"][i])
            for key in set(info_b["final_info"]) - {"metrics", "_metrics"}:
                mine, other = info_a["final_info"][key], info_b["final_info"][key]
                np.testing.assert_array_equal(np.asarray(mine)[done], np.asarray(other)[done])
        elif mode == AutoresetMode.DISABLED and done.any():
            with pytest.raises(gym.error.ResetNeeded, match="reset them with options"):
                ours.step(actions)
            a, _ = ours.reset(options={"reset_mask": done})
            b, _ = theirs.reset(options={"reset_mask": done})
            assert equal(a, b)
        if mode != AutoresetMode.SAME_STEP:
            for key in ("dt_s", "clock_s", "num_illegal"):
                np.testing.assert_array_equal(info_a[key], info_b[key])
    assert ends >= 2 * NUM_LANES


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(2, bool), "reset_mask must be"),
        (np.ones(NUM_LANES, int), "reset_mask must be"),
        (np.zeros(NUM_LANES, bool), "reset_mask must be"),
        (np.array([True, False, False]), "the first reset must be of all lanes"),
    ],
)
def test_reset_masks(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InferMaxVectorEnv(NUM_LANES, **SETTINGS).reset(options={"reset_mask": mask})


def test_modes_have_names() -> None:
    for name in ("NEXT_STEP", "NextStep", AutoresetMode.NEXT_STEP):
        assert InferMaxVectorEnv(1, autoreset_mode=name).autoreset_mode == AutoresetMode.NEXT_STEP
    with pytest.raises(ValueError, match="autoreset_mode must be one of NEXT_STEP, SAME_STEP, DISABLED, got 'never'"):
        InferMaxVectorEnv(1, autoreset_mode="never")


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_returned_changes_later(name: str) -> None:
    ours, _ = pair(name, AutoresetMode.SAME_STEP)
    ours.reset(seed=0)
    kept = []
    for step in range(100):
        observation, rewards, terminated, truncated, info = ours.step(legal(ours, step))
        values = [*observation.values(), rewards, terminated, truncated]
        values += [value for value in info.values() if isinstance(value, np.ndarray) and value.dtype != object]
        kept += [(value, value.copy()) for value in values]
    assert all(np.array_equal(value, copied) for value, copied in kept)


@pytest.mark.parametrize("name", PAIRS)
def test_views_are_views_where_asked_for(name: str) -> None:
    native, _ = PAIRS[name]
    env = native(2, copy=False, flat=True, **SETTINGS)
    first, info = env.reset(seed=0)
    second, *_, later = env.step(legal(env, 0))
    assert np.shares_memory(first, second) and np.shares_memory(info["action_mask"], later["action_mask"])


@pytest.mark.parametrize(
    "wrap",
    [
        wrappers.RecordEpisodeStatistics,
        wrappers.NormalizeObservation,
        lambda env: wrappers.TransformReward(env, lambda reward: 0.1 * reward),
        lambda env: wrappers.TransformObservation(env, lambda observation: 2.0 * observation),
    ],
)
def test_stock_wrappers_give_the_same_on_both(wrap: Any) -> None:
    """In the modes in which Gymnasium's wrappers of observations work at all."""
    ours, theirs = (wrap(env) for env in pair("scheduling", AutoresetMode.NEXT_STEP, flat=True))
    a, _ = ours.reset(seed=2)
    b, _ = theirs.reset(seed=2)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for step in range(90):
        actions = legal(ours.unwrapped, step)
        a, reward_a, done_a, _, info_a = ours.step(actions)
        b, reward_b, done_b, _, info_b = theirs.step(actions)
        np.testing.assert_allclose(a, b, rtol=1e-5)
        np.testing.assert_array_equal(reward_a, reward_b)
        np.testing.assert_array_equal(done_a, done_b)
        assert ("episode" in info_a) == ("episode" in info_b)


@pytest.mark.parametrize("wrap", [wrappers.FlattenObservation])
def test_dicts_can_be_flattened(wrap: Any) -> None:
    env = wrap(InferMaxVectorEnv(2, autoreset_mode="NextStep", **SETTINGS))
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape
    filtered = wrappers.FilterObservation(InferMaxVectorEnv(2, autoreset_mode="NextStep", **SETTINGS), ["engine"])
    observation, _ = filtered.reset(seed=0)
    assert set(observation) == {"engine"}


@pytest.mark.parametrize("flat", [True, False])
def test_discounts_reach_observations(flat: bool) -> None:
    tau_s = 20.0
    one = TimeDiscount(InferMaxEnv(flat=flat, **SETTINGS), tau_s)
    many = TimeDiscountVector(InferMaxVectorEnv(1, flat=flat, **SETTINGS), tau_s)
    a, _ = one.reset(seed=1)
    b, _ = many.reset(seed=1)
    assert one.observation_space.contains(a) and many.observation_space.contains(b)
    done, step = False, 0
    while not done:
        actions = legal(many.unwrapped, step)
        a, _, done, _, info = one.step(int(actions[0]))
        b, _, _, _, infos = many.step(actions)
        last = infos["final_obs"][0] if done else {k: v[0] for k, v in b.items()} if not flat else b[0]
        seen = [float(x[-1]) if flat else float(x["discount"][0]) for x in (a, last)]
        assert seen[0] == seen[1] == np.float32(np.exp(-info["dt_s"] / tau_s))
        assert one.observation_space.contains(a) and many.observation_space.contains(b)
        step += 1
    assert (float(b[0, -1]) if flat else float(b["discount"][0, 0])) == 1.0, "the next episode begins"
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="tau_s must be"):
            TimeDiscount(InferMaxEnv(), wrong)


@pytest.mark.parametrize("env_id", ["InferMax-v0", "InferMaxKnobs-v0", "InferMaxRouter-v0"])
def test_infos_without_metrics_are_always_alike(env_id: str) -> None:
    env: Any = gym.make(env_id, num_requests=4, metrics=False, max_decisions=5).unwrapped
    _, info = env.reset(seed=0)
    keys, ended = set(info), False
    while not ended:
        *_, ended, _, info = env.step(env.action_space.sample())
        assert set(info) == keys


def test_components_of_an_end_are_the_ends() -> None:
    env = InferMaxVectorEnv(1, max_decisions=1, num_requests=5)
    env.reset(seed=0)
    *_, info = env.step(np.array([0]))
    assert info["reward_components"][0, Component.NUM_FINISHED] == 5
    assert info["dt_s"][0] == info["reward_components"][0, Component.ELAPSED_S] == info["final_info"]["dt_s"][0]


@pytest.mark.parametrize("env_id", ["InferMax-v0", "InferMaxKnobs-v0", "InferMaxRouter-v0"])
def test_native_sync_and_async_agree_under_the_same_wrappers(env_id: str) -> None:
    """Made by `gym.make_vec`, each form in two wrappers: observations, rewards, ends and statistics."""
    shape: dict[str, Any] = {"num_requests": 6, "max_decisions": 9, "metrics": False}
    shape |= {"interval_s": 0.2} if env_id == "InferMaxKnobs-v0" else {"flat": True}
    mode = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    native = gym.make_vec(env_id, num_envs=2, **shape, **mode)
    others = [
        gym.make_vec(env_id, num_envs=2, vectorization_mode=name, vector_kwargs=mode, **shape)
        for name in ("sync", "async")
    ]
    forms = [
        wrappers.NormalizeObservation(wrappers.RecordEpisodeStatistics(env))  # type: ignore[arg-type]
        for env in (native, *others)
    ]
    try:
        first, *rest = (form.reset(seed=4)[0] for form in forms)
        for observation in rest:
            np.testing.assert_allclose(observation, first, rtol=1e-5)
        space, num_ends = forms[0].action_space, 0
        space.seed(0)
        for _ in range(40):
            action = space.sample()
            ours, *theirs = (form.step(action) for form in forms)
            num_ends += int((ours[2] | ours[3]).sum())
            for other in theirs:
                np.testing.assert_allclose(other[0], ours[0], rtol=1e-5)
                for one, same in zip(other[1:4], ours[1:4], strict=True):
                    np.testing.assert_array_equal(one, same)
                assert ("episode" in other[4]) == ("episode" in ours[4])
                if "episode" in ours[4]:
                    np.testing.assert_array_equal(other[4]["episode"]["r"], ours[4]["episode"]["r"])
        assert num_ends >= 4
    finally:
        for form in forms:
            form.close()
