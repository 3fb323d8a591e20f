"""Ids with settings of their own: they are registered, and an agent from the shelf passes the rules on them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import infermax_gym  # noqa: F401  registers the ids
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs import TASKS


@pytest.mark.parametrize("env_id", TASKS)
def test_ids_draw_what_their_settings_say(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=0)
    config = env.unwrapped.config  # type: ignore[attr-defined]
    assert config.preempt == "forced"
    assert config.decide == "change"
    assert len(env.unwrapped.run.episode.workload) == 50  # type: ignore[attr-defined]
    lanes = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    assert lanes.single_action_space == env.action_space


def test_maskable_ppo_passes_the_rules_on_test_episodes() -> None:
    pytest.importorskip("sb3_contrib")
    from examples.maskable_ppo import FIRST_TEST_SEED, TASK, learner, test_scores

    rules = {"spf-headroom": [], "shortest-prompt-first": [], "sarathi": []}  # type: dict[str, list[float]]
    env = gym.make("InferMaxLongContext-v0")
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + 20):
        env.reset(seed=seed)
        episode = env.unwrapped.run.episode  # type: ignore[attr-defined]
        for name, scores in rules.items():
            scores.append(float(np.mean(simulate(episode.workload, episode.engine, POLICIES[name]).latency_s)))
    best = min(float(np.mean(scores)) for scores in rules.values())
    model = learner(seed=0)
    before = test_scores(model, 20)
    model.learn(70_000)
    after = test_scores(model, 20)
    assert before["mean_latency_s"] > best
    assert after["mean_latency_s"] < 0.8 * best
    assert after["finished_by_fallback"] == 0
    assert TASK["preempt"] == "forced"
