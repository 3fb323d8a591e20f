"""The vector environment as stable-baselines3 sees it: the same lanes, and everything its learners read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")
pytest.importorskip("sb3_contrib")

from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.testing import random_legal

NUM_LANES = 3
SETTINGS: dict[str, Any] = {"num_requests": 12, "num_kv_tokens": (9_000, 20_000), "backlog": (4, 12)}


def random_actions(env: InferMaxVecEnv, rng: np.random.Generator) -> np.ndarray:
    return np.array([random_legal(mask, env.lanes.layout, rng) for mask in env.action_masks()])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


@pytest.mark.parametrize("flat", [True, False])
def test_same_as_stable_baselines_own(flat: bool) -> None:
    """DummyVecEnv over monitored scalar environments gives the same, to what SB3 reads of it."""
    limits = {"max_decisions": 90}
    ours = InferMaxVecEnv(NUM_LANES, flat=flat, metrics=True, seed=7, **SETTINGS, **limits)
    theirs = DummyVecEnv([lambda: Monitor(InferMaxEnv(flat=flat, **SETTINGS, **limits))] * NUM_LANES)
    theirs.seed(7)
    assert same(ours.reset(), theirs.reset())
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    rng = np.random.default_rng(0)
    ends = []
    for _ in range(400):
        actions = random_actions(ours, rng)
        a, reward_a, done_a, infos_a = ours.step(actions)
        b, reward_b, done_b, infos_b = theirs.step(actions)
        assert same(a, b)
        np.testing.assert_array_equal(reward_a, reward_b)
        np.testing.assert_array_equal(done_a, done_b)
        assert (reward_a.dtype, done_a.dtype) == (reward_b.dtype, done_b.dtype)
        for i in range(NUM_LANES):
            mine, other = infos_a[i], infos_b[i]
            assert mine["dt_s"] == other["dt_s"] == ours.dt_s[i]
            assert mine["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            assert ("terminal_observation" in mine) == ("episode" in mine) == bool(done_a[i])
            if done_a[i]:
                ends.append(mine["finished_by_fallback"] > 0)
                assert same(mine["terminal_observation"], other["terminal_observation"])
                assert mine["episode"]["l"] == other["episode"]["l"]
                assert mine["episode"]["r"] == pytest.approx(other["episode"]["r"], abs=2e-6)
                assert mine["metrics"] == other["metrics"]
    assert {True, False} == set(ends), "episodes are to end both ways"


def test_masks() -> None:
    env = InferMaxVecEnv(NUM_LANES, seed=0, **SETTINGS)
    env.reset()
    rng = np.random.default_rng(0)
    assert is_masking_supported(env)
    for _ in range(50):
        masks = env.action_masks()
        assert masks.shape == (NUM_LANES, env.lanes.layout.num_actions) and masks.dtype == np.bool_
        np.testing.assert_array_equal(get_action_masks(env), masks)
        np.testing.assert_array_equal(np.stack(env.env_method("action_masks", indices=[2, 0])), masks[[2, 0]])
        np.testing.assert_array_equal(env.env_method("action_masks", indices=1)[0], masks[1])
        np.testing.assert_array_equal(env.get_attr("action_masks")[1](), masks[1])
        env.step(random_actions(env, rng))


def test_seeds_and_options() -> None:
    one, other = InferMaxVecEnv(2, seed=5, **SETTINGS), InferMaxVecEnv(2, **SETTINGS)
    first = one.reset()
    assert other.seed(5) == [5, 6]
    assert same(first, other.reset())
    assert not same(first, other.reset()), "a seed is used once"
    other.set_options({"num_kv_tokens": 9_500})
    other.reset()
    assert [run.episode.engine.num_kv_tokens for run in other.get_attr("run")] == [9_500, 9_500]
    other.set_options([{"num_kv_tokens": 9_100}, {}])
    other.seed(1)
    other.reset()
    assert other.get_attr("run", 0)[0].episode.engine.num_kv_tokens == 9_100
    other.reset()
    assert other.get_attr("run", 0)[0].episode.engine.num_kv_tokens != 9_100, "options are used once"


def test_attributes() -> None:
    env = InferMaxVecEnv(2, **SETTINGS)
    assert isinstance(env, VecEnv) and isinstance(env.lanes, InferMaxVectorEnv)
    assert env.get_attr("config") == [env.lanes.config] * 2
    assert env.get_attr("render_mode", indices=1) == [None]
    assert env.has_attr("layout") and not env.has_attr("speed")
    env.set_attr("metrics", True)
    assert env.lanes.metrics
    assert env.env_is_wrapped(Monitor) == [True, True]
    assert env.env_is_wrapped(VecNormalize, indices=[0]) == [False]  # type: ignore[arg-type]
    assert env.get_images() == [None, None]
    env.close()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda env: env.env_method("reset"),
            AttributeError,
            "lanes of InferMaxVecEnv have no method 'reset', only 'action_masks'",
        ),
        (
            lambda env: env.set_attr("metrics", True, indices=0),
            ValueError,
            "lanes share their attributes: set 'metrics' for all of them",
        ),
        (lambda env: env.get_attr("speed"), AttributeError, "no attribute 'speed'"),
        (lambda _: InferMaxVecEnv(0), ValueError, "num_envs must be at least 1, got 0"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call(InferMaxVecEnv(2, **SETTINGS))
    assert message in str(caught.value)


def test_infos_of_ends_stay() -> None:
    """Running infos are overwritten, those of ends are not: SB3 keeps them to log returns."""
    env = InferMaxVecEnv(2, seed=0, max_decisions=5, **SETTINGS)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(5):
        *_, infos = env.step(random_actions(env, rng))
    ends = [dict(info) for info in infos]
    for _ in range(5):
        env.step(random_actions(env, rng))
    assert all(info["episode"]["l"] == 5 for info in infos)
    assert [info["episode"] for info in infos] == [info["episode"] for info in ends]


class Returns(BaseCallback):
    """Collects the episode infos that a learner sees."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def _on_step(self) -> bool:
        self.lengths += [info["episode"]["l"] for info in self.locals["infos"] if "episode" in info]
        return True


@pytest.mark.parametrize("flat", [True, False])
def test_maskable_ppo_learns_without_illegal_actions(flat: bool) -> None:
    env = InferMaxVecEnv(4, flat=flat, seed=0, max_decisions=40, metrics=True, **SETTINGS)
    model = MaskablePPO("MlpPolicy" if flat else "MultiInputPolicy", env, n_steps=32, batch_size=64, n_epochs=1, seed=0)
    returns = Returns()
    model.learn(512, returns)
    assert len(returns.lengths) >= 12 and max(returns.lengths) <= 40
    assert len(model.ep_info_buffer or []) == len(returns.lengths)
    assert all(run.lane.record["num_illegal"][0] == 0 for run in env.get_attr("run"))
    mean, _ = evaluate_policy(model, InferMaxVecEnv(2, flat=flat, seed=1, max_decisions=30, **SETTINGS), 2)
    assert np.isfinite(mean)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_unmasked_learners_run(algorithm: Any) -> None:
    """Illegal actions are the environment's to replace."""
    env = InferMaxVecEnv(2, seed=0, max_decisions=30, **SETTINGS)
    settings: dict[str, Any] = {"n_steps": 16}
    if algorithm is DQN:
        settings = {"learning_starts": 40, "buffer_size": 500}
    if algorithm is PPO:
        settings["batch_size"] = 32
    algorithm("MlpPolicy", env, seed=0, **settings).learn(128)


def test_wrappers_of_stable_baselines() -> None:
    env = VecNormalize(InferMaxVecEnv(2, seed=0, max_decisions=10, **SETTINGS), norm_obs=False)
    assert is_masking_supported(env)
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(10):
        masks = get_action_masks(env)
        layout = env.get_attr("layout")[0]
        _, _, dones, infos = env.step(np.array([random_legal(mask, layout, rng) for mask in masks]))
    assert dones.all() and all(info["episode"]["l"] == 10 for info in infos)
