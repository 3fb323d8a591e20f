"""Rewards sum to what they say; mixes are linear; errors are one line."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import simulate
from infermax_gym.engine.metrics import meets_slo
from infermax_gym.engine.recorder import result_of
from infermax_gym.envs.fallback import FALLBACK
from infermax_gym.envs.rewards import COMPONENTS, REWARDS, Reward, mix
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from tests.engine.strategies import examples
from tests.envs.playing import play, randomly, small_workload, tight_env
from tests.envs.strategies import hostile_configs


def totals(env: InferMaxEnv) -> dict[str, float]:
    """What each reward must have summed to in a finished episode, from the per-request records alone."""
    run = env.run
    result = result_of(run.engine, run.episode.workload, run.recorder.copy(), False)
    met = meets_slo(result, None)
    return {
        "latency": -math.fsum(result.latency_s[result.finished]),
        "ttft": -math.fsum(result.ttft_s[result.finished]),
        "gpu_cost": -result.busy_s,
        "goodput": float((result.finished if met is None else met).sum()),
    }


def assert_sums(env: InferMaxEnv, rewards: list[float], name: str) -> None:
    assert math.fsum(rewards) == pytest.approx(totals(env)[name], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("decide", ["event", "iteration"])
@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_sums(name: str, decide: str, seed: int) -> None:
    env = tight_env(small_workload(seed=seed), reward=name, decide=decide)
    env.reset(seed=seed)
    rewards, info = play(env, randomly(seed))
    assert info["metrics"]["num_preemptions"] > 0
    assert_sums(env, rewards, name)


def test_sums_on_a_preset_with_backlog() -> None:
    env = InferMaxEnv(num_requests=60, backlog=(30, 30), num_kv_tokens=(9_000, 9_000))
    env.reset(seed=2)
    rewards, info = play(env, randomly(2))
    assert info["metrics"]["num_requests"] == 90
    assert_sums(env, rewards, "latency")


def test_sums_across_idle_times() -> None:
    workload = replace(small_workload(6), arrival_s=np.array([0.0, 0.0, 100.0, 100.0, 5e3, 5e3]))
    for name in REWARDS:
        env = tight_env(workload, reward=name)
        env.reset(seed=0)
        rewards, _ = play(env, randomly(0))
        assert_sums(env, rewards, name)


def test_rejected_requests_cost_nothing() -> None:
    workload = small_workload(12)
    prompts = workload.num_prompt_tokens.copy()
    prompts[[0, 3, 11]] = 1_000
    for name in REWARDS:
        env = tight_env(replace(workload, num_prompt_tokens=prompts), reward=name)
        env.reset(seed=0)
        rewards, info = play(env, randomly(0))
        assert info["metrics"]["num_rejected"] == 3
        assert_sums(env, rewards, name)


def test_sum_after_a_limit() -> None:
    """Whatever is left when a limit is reached has been paid for, too; at most what the fallback alone is worth."""
    env = tight_env(time_limit_s=0.5)
    env.reset(seed=0)
    rewards, info = play(env, randomly(0))
    requests = env.run.engine.requests
    assert 0 < info["finished_by_agent"] < 24 and np.isfinite(requests["finish_s"]).all()
    total_s = (requests["finish_s"] - requests["arrival_s"]).sum()
    fallback_s = simulate(env.run.episode.workload, env.run.episode.engine, FALLBACK).latency_s.sum()
    assert sum(rewards) == pytest.approx(-max(total_s, fallback_s), rel=1e-9)


@examples(60)
@given(config=hostile_configs(), seed=st.integers(0, 1000))
def test_sums_on_hostile_configurations(config: EnvConfig, seed: int) -> None:
    env = InferMaxEnv(config, flat=True)
    env.reset(seed=seed)
    choose = randomly(seed)
    rewards, _ = play(env, lambda e: choose(e) if e.run.lane.record["num_decisions"][0] < 40 else -1)
    assert isinstance(config.reward, Reward)
    assert_sums(env, rewards, config.reward.name)


def test_mix_is_linear() -> None:
    parts = {"latency": 1.0, "gpu_cost": 0.5, "goodput": 2.0}
    env = tight_env(reward=mix(parts))
    env.reset(seed=0)
    rewards, _ = play(env, randomly(0))
    expected = sum(weight * totals(env)[name] for name, weight in parts.items())
    assert math.fsum(rewards) == pytest.approx(expected, rel=1e-9)


def test_a_reward_of_ones_own() -> None:
    per_finish = Reward("finishes", tuple(float(c == "num_finished") for c in COMPONENTS), "requests")  # type: ignore[arg-type]
    env = tight_env(reward=per_finish)
    env.reset(seed=0)
    rewards, info = play(env, randomly(0))
    assert sum(rewards) == info["metrics"]["num_finished"] == 24


def test_dt_is_the_clock() -> None:
    env = tight_env()
    _, info = env.reset(seed=0)
    clock_s, choose = info["clock_s"], randomly(0)
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(choose(env))
        assert clock_s + info["dt_s"] == pytest.approx(info["clock_s"], rel=1e-12)
        clock_s, done = info["clock_s"], terminated or truncated


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mix({}), "a mix needs at least one reward; known: latency, ttft, gpu_cost, goodput"),
        (lambda: mix({"speed": 1.0}), "unknown reward 'speed'; known: latency, ttft, gpu_cost, goodput"),
        (
            lambda: EnvConfig(reward="speed"),
            "environment: unknown reward 'speed'; known: latency, ttft, gpu_cost, goodput",
        ),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message
