"""Nothing pays but serving: whatever the limit, rewards hold what all requests cost, and no stalling beats serving."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.envs.fallback import FALLBACK
from infermax_gym.envs.routing.rest import FALLBACK_ROUTER
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import Kind
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.testing import check_run
from tests.engine.strategies import examples
from tests.envs.serving import (
    IDS,
    LIMITS,
    NUM_REQUESTS,
    REWARDS,
    STALLERS,
    any_legal,
    last_legal,
    made,
    play,
    served_by_rule,
)
from tests.envs.strategies import hostile_configs


def test_the_fallbacks_are_policies_of_the_tables() -> None:
    described = {"name", "source", "note"}
    for item in fields(FALLBACK):
        if item.name not in described:
            assert getattr(FALLBACK, item.name) == getattr(POLICIES["spf-headroom"], item.name), item.name
    for item in fields(FALLBACK_ROUTER):
        if item.name not in described:
            assert getattr(FALLBACK_ROUTER, item.name) == getattr(ROUTERS["sal"], item.name), item.name


@pytest.mark.parametrize("env_id", ["InferMax-v0", "InferMaxLongContext-v0"])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("strategy", STALLERS)
def test_no_stalling_beats_serving(strategy: str, limit: str, env_id: str) -> None:
    """Nobody here looks at the observation, so one kind of information a reward is enough."""
    for reward, information in zip(REWARDS, ("none", "noisy", "oracle", "none"), strict=True):
        env = made(env_id, reward, information=information, **LIMITS[limit])
        env.reset(seed=1)
        best = served_by_rule(env, reward)
        total, info, ended_by_limit = play(env, STALLERS[strategy], seed=2)
        assert info["finished_by_agent"] + info["finished_by_fallback"] == NUM_REQUESTS
        assert info["metrics"]["num_finished"] == NUM_REQUESTS
        served_all = env_id != "InferMax-v0" and not ended_by_limit  # forced preemption leaves some no way to stall
        assert served_all or total <= best + 1e-9 * abs(best), (reward, total, best)
        assert ended_by_limit or info["finished_by_fallback"] == 0


@pytest.mark.parametrize("reward", REWARDS)
def test_stalling_without_time_is_exactly_the_fallback(reward: str) -> None:
    """The limit is reached before anything has run, so the fallback serves everything."""
    env = made("InferMax-v0", reward, backlog=30, num_kv_tokens=9_000, max_decisions=3)
    env.reset(seed=3)
    expected = served_by_rule(env, reward)
    for _ in range(2):
        _, none, terminated, truncated, info = env.step(env.layout.encode(Kind.ADMIT, 0))
        assert (none, terminated, truncated, info["finished_by_fallback"]) == (0.0, False, False, 0)
    env = made("InferMax-v0", reward, backlog=30, num_kv_tokens=9_000, max_decisions=1)
    env.reset(seed=3)
    _, total, terminated, truncated, info = env.step(env.layout.encode(Kind.ADMIT, 0))
    assert (terminated, truncated) == (True, True)
    assert info["finished_by_agent"] == 0 and info["finished_by_fallback"] == NUM_REQUESTS + 30
    assert total <= expected + 1e-9 * abs(expected) and total == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("reward", REWARDS)
def test_returns_do_not_depend_on_the_limit_but_through_who_served(env_id: str, reward: str) -> None:
    """Rewards sum over all requests: exactly the value of what the metrics say happened."""
    for limits in ({}, {"max_decisions": 5}, {"time_limit_s": 3.0}):
        env = made(env_id, reward, **limits)
        env.reset(seed=4)
        rng, total, done = np.random.default_rng(0), 0.0, False
        while not done:
            masked = hasattr(env, "action_masks")
            action = any_legal(env, env.action_masks(), rng) if masked else rng.uniform(-1, 1, env.action_space.shape)
            _, step_reward, terminated, truncated, info = env.step(action)
            total += step_reward
            done = terminated or truncated
            assert type(terminated) is bool and type(truncated) is bool
        metrics = info["metrics"]
        assert metrics["num_finished"] == NUM_REQUESTS
        expected = {
            "latency": -metrics["latency_s"]["mean"] * NUM_REQUESTS,
            "ttft": -metrics["ttft_s"]["mean"] * NUM_REQUESTS,
            "gpu_cost": -metrics["busy_s"],
            "goodput": metrics["slo_attainment"] * NUM_REQUESTS,
        }[reward]
        bound = served_by_rule(env, reward)
        capped = min(expected, bound) if truncated else expected
        assert total == pytest.approx(capped, rel=1e-9)


@pytest.mark.parametrize("env_id", ["InferMaxKnobs-v0", "InferMaxRouter-v0"])
@pytest.mark.parametrize("reward", REWARDS)
def test_bad_knobs_and_bad_routes_do_not_beat_the_rule(env_id: str, reward: str) -> None:
    bad = {"InferMaxKnobs-v0": [np.full(11, -1.0), np.full(11, 1.0)], "InferMaxRouter-v0": [0, 1, 99]}[env_id]
    for limits in ({"max_decisions": 2}, {"max_decisions": 30}, {"time_limit_s": 2.0}):
        for action in bad:
            env = made(env_id, reward, **limits)
            env.reset(seed=5)
            best, total, done = served_by_rule(env, reward), 0.0, False
            while not done:
                _, step_reward, done, _, _ = env.step(action)
                total += step_reward
            assert total <= best + 1e-9 * abs(best), (limits, action, total, best)


@pytest.mark.parametrize("decide", ["event", "change", "iteration"])
@pytest.mark.parametrize("strategy", STALLERS)
def test_whenever_the_agent_is_asked(strategy: str, decide: str) -> None:
    for reward in REWARDS:
        settings = {"decide": decide, "max_decisions_per_request": 10, "num_requests": 15, "backlog": 5}
        env = made("InferMax-v0", reward, **settings)
        env.reset(seed=9)
        best = served_by_rule(env, reward)
        total, info, truncated = play(env, STALLERS[strategy], seed=3)
        assert not truncated or total <= best + 1e-9 * abs(best)
        assert info["metrics"]["num_finished"] + info["metrics"]["num_rejected"] == 20


def test_a_turn_has_a_bounded_number_of_actions() -> None:
    """Then the engine runs by itself, so that decisions without end take time without end."""
    env = InferMaxEnv(num_requests=60, backlog=60, num_kv_tokens=20_000, max_num_seqs=4)
    env.reset(seed=0)
    most = int(env.run.lane.record["most_turn_actions"][0])
    rng, longest, turn = np.random.default_rng(0), 0, 0
    for _ in range(3_000):
        mask = env.action_masks()
        acts = np.flatnonzero(mask)[np.flatnonzero(mask) >= env.layout.num_chunk_budgets]
        action = int(rng.choice(acts)) if acts.size else int(np.flatnonzero(mask)[-1])
        before = env.run.engine.record["num_iterations"][0]
        _, _, terminated, _, _ = env.step(action)
        turn = 0 if env.run.engine.record["num_iterations"][0] > before else turn + 1
        longest = max(longest, turn)
        if terminated:
            break
    assert most == 16 and longest < most


@pytest.mark.parametrize("env_id", IDS)
def test_registered_ids_end_by_themselves(env_id: str) -> None:
    backlog = {"backlog": 0} if env_id == "InferMaxLongContext-v0" else {}
    env: Any = gym.make(env_id, num_requests=10, **backlog).unwrapped
    env.reset(seed=0)
    for _ in range(10 * 60):
        action: Any = np.full(11, -1.0)
        if hasattr(env, "action_masks"):
            action = last_legal(env, env.action_masks(), np.random.default_rng(0))
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    assert terminated and info["metrics"]["num_finished"] == 10


def test_limits_mean_the_same_in_every_form() -> None:
    shape: dict[str, Any] = {"num_requests": 20, "num_kv_tokens": 6_000, "flat": True}
    lanes = gym.make_vec(
        "InferMax-v0", num_envs=2, vectorization_mode="vector_entry_point", max_episode_steps=30, **shape
    )
    assert isinstance(lanes, InferMaxVectorEnv)
    scalars = [gym.make("InferMax-v0", max_decisions=30, **shape) for _ in range(2)]
    lanes.reset(seed=3)
    for i, env in enumerate(scalars):
        env.reset(seed=3 + i)
    for step in range(30):
        masks = lanes.action_masks()
        actions = np.array([np.flatnonzero(mask)[step % mask.sum()] for mask in masks])
        observation, rewards, terminated, truncated, info = lanes.step(actions)
        for i, env in enumerate(scalars):
            one, reward, t, u, last = env.step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, t, u)
            ended = t or u
            np.testing.assert_array_equal(info["final_obs"][i] if ended else observation[i], one)
            for name in ("dt_s", "clock_s", "finished_by_agent", "finished_by_fallback", "num_illegal"):
                assert (info["final_info"] if ended else info)[name][i] == last[name] == info[name][i]
    assert truncated.all() and (info["finished_by_agent"] + info["finished_by_fallback"] == 20).all()


@examples(120)
@given(config=hostile_configs(), seed=st.integers(0, 2**31), most=st.integers(1, 40))
def test_the_fallback_ends_whatever_the_agent_left(config: EnvConfig, seed: int, most: int) -> None:
    """On tiny caches, behind any base policy; every request is finished or rejected and no invariant is broken."""
    env = InferMaxEnv(config, flat=True, max_decisions=most)
    env.reset(seed=seed)
    rng, ended, info = np.random.default_rng(seed), False, {}
    for _ in range(most):
        _, reward, ended, _, info = env.step(any_legal(env, env.action_masks(), rng))
        assert np.isfinite(reward)
        if ended:
            break
    assert ended
    metrics = info["metrics"]
    assert metrics["num_finished"] + metrics["num_rejected"] == len(env.run.episode.workload)
    check_run(env.run)
