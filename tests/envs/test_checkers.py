"""gymnasium's and stable-baselines3's own checkers, warnings as errors, on every id and variant."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import infermax_gym  # noqa: F401 - registers
from infermax_gym.envs import ENTRY_POINTS
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"num_requests": 12}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dict": ("InferMax-v0", {}),
    "flat": ("InferMax-v0", {"flat": True}),
    "iteration": ("InferMax-v0", {"decide": "iteration"}),
    "noisy": ("InferMax-v0", {"information": "noisy"}),
    "oracle": ("InferMax-v0", {"information": "oracle", "flat": True}),
    "ansi": ("InferMax-v0", {"render_mode": "ansi"}),
    "rgb_array": ("InferMax-v0", {"render_mode": "rgb_array"}),
    "goodput": ("InferMax-v0", {"reward": "goodput", "ttft_slo_s": 1.0}),
    "one slot": ("InferMax-v0", {"num_waiting_slots": 1, "num_running_slots": 1, "level_shares": (1.0,)}),
    "knobs": ("InferMaxKnobs-v0", {}),
    "knobs, oracle": ("InferMaxKnobs-v0", {"information": "oracle"}),
    "knobs, ansi": ("InferMaxKnobs-v0", {"render_mode": "ansi"}),
    "decisions": ("InferMax-v0", {"max_decisions": 4}),
    "knobs, rgb_array": ("InferMaxKnobs-v0", {"render_mode": "rgb_array", "max_decisions": 2}),
    "router, rgb_array": ("InferMaxRouter-v0", {"render_mode": "rgb_array", "max_decisions": 3, "flat": True}),
    "router": ("InferMaxRouter-v0", {}),
    "router, flat": ("InferMaxRouter-v0", {"flat": True, "num_replicas": 3}),
    "router, ansi": ("InferMaxRouter-v0", {"flat": True, "render_mode": "ansi"}),
    "router, unlike, old signals": (
        "InferMaxRouter-v0",
        {"alike": False, "num_kv_tokens": (4_000, 40_000), "staleness_s": 0.5, "information": "noisy", "flat": True},
    ),
}
# The one exception, of stable-baselines3's checker: it recommends one-dimensional observations, and in the Dict a
# kind of slots is a table, one row a request (of replicas, one row a replica), which is the point of the Dict. The flat
# variants have no exception.
TABLES = "Your observation (waiting|running|replicas) has an unconventional shape"
WITH_TABLES = {name for name, (env_id, s) in VARIANTS.items() if env_id != "InferMaxKnobs-v0" and not s.get("flat")}

every_variant = pytest.mark.parametrize("name", VARIANTS)


def make(name: str) -> gym.Env[Any, Any]:
    env_id, settings = VARIANTS[name]
    return gym.make(env_id, **SMALL, **settings)


@pytest.fixture(autouse=True)
def _strict() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_every_id_is_checked() -> None:
    assert {env_id for env_id, _ in VARIANTS.values()} == set(ENTRY_POINTS)


@every_variant
def test_gymnasium_checker(name: str) -> None:
    gymnasium_check(make(name).unwrapped)


@every_variant
def test_sb3_checker(name: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    if name in WITH_TABLES:
        warnings.filterwarnings("ignore", message=TABLES)
    sb3.check_env(make(name).unwrapped, warn=True, skip_render_check=False)
    sb3.check_env(make(name), warn=True, skip_render_check=False)


def test_fresh_process() -> None:
    """`gym.make` imports the package by itself, and nothing warns on the way."""
    code = (
        "import gymnasium as gym;"
        "env = gym.make('infermax_gym:InferMax-v0', num_requests=3);"
        "observation, info = env.reset(seed=0);"
        "env.step(int(info['action_mask'].argmax()));"
        "knobs = gym.make('infermax_gym:InferMaxKnobs-v0', num_requests=3); knobs.reset(seed=0)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=300)


def test_make_vec_is_native() -> None:
    env = gym.make_vec("InferMax-v0", num_envs=3, vectorization_mode="vector_entry_point", **SMALL)
    assert isinstance(env.unwrapped, InferMaxVectorEnv)
    assert isinstance(gym.make_vec("InferMax-v0", num_envs=3, **SMALL).unwrapped, InferMaxVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    routers = gym.make_vec("InferMaxRouter-v0", num_envs=3, **SMALL)
    assert isinstance(routers.unwrapped, InferMaxRouterVectorEnv)
    assert routers.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


@pytest.mark.parametrize("env_id", ENTRY_POINTS)
def test_make_vec_sync(env_id: str) -> None:
    env = gym.make_vec(env_id, num_envs=2, vectorization_mode="sync", **SMALL)
    assert isinstance(env.unwrapped, SyncVectorEnv)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)


def test_make_vec_async() -> None:
    env = gym.make_vec("infermax_gym:InferMax-v0", num_envs=2, vectorization_mode="async", **SMALL)
    try:
        env.reset(seed=0)
        observation, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
    finally:
        env.close()


def test_wrappers_of_gymnasium_find_the_masks() -> None:
    env = gym.wrappers.RecordEpisodeStatistics(make("flat"))
    env.reset(seed=0)
    assert env.get_wrapper_attr("action_masks")().any()


def test_first_lines_with_stable_baselines() -> None:
    """What people type first: algorithms by id, helpers that ask for pictures, evaluation after a moment."""
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and Monitor, on machines of all kinds
        sb3.PPO("MlpPolicy", "InferMaxKnobs-v0", n_steps=8, batch_size=8).learn(8)
        lanes = make_vec_env("InferMaxRouter-v0", 4, env_kwargs=SMALL)
        lanes.reset()
        assert all(image is not None for image in lanes.get_images())
        model = sb3.PPO("MlpPolicy", make_vec_env("InferMax-v0", 1, env_kwargs={"flat": True, **SMALL}), n_steps=256)
        model.learn(256)
        mean, _ = evaluate_policy(model, model.get_env(), n_eval_episodes=2)
    assert mean < 0.0
