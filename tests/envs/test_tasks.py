"""Ids with settings of their own: they are registered, and an agent from the shelf passes the rules on them."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import infermax_gym  # noqa: F401  registers the ids
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs import TASKS, TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, VARIANTS


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


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_change_one_thing(name: str) -> None:
    plain: Any = gym.make("InferMaxLongContext-v0").unwrapped
    varied: Any = gym.make("InferMaxLongContext-v0", **VARIANTS[name]).unwrapped
    fields = plain.config.__dataclass_fields__
    changed = {field for field in fields if getattr(plain.config, field) != getattr(varied.config, field)}
    assert changed == set(VARIANTS[name])


def test_seeds_to_train_to_choose_and_to_test_on_are_apart() -> None:
    kinds = [set(TRAIN_SEEDS), set(VALIDATION_SEEDS), set(TEST_SEEDS)]
    assert len(set.union(*kinds)) == sum(map(len, kinds))


def best_rule_s() -> float:
    """Mean latency of the best rule on the first 20 test episodes, in seconds."""
    rules: dict[str, list[float]] = {"spf-headroom": [], "shortest-prompt-first": [], "sarathi": []}
    env: Any = gym.make("InferMaxLongContext-v0").unwrapped
    for seed in TEST_SEEDS[:20]:
        env.reset(seed=seed)
        episode = env.run.episode
        for name, scores in rules.items():
            scores.append(float(np.mean(simulate(episode.workload, episode.engine, POLICIES[name]).latency_s)))
    return min(float(np.mean(scores)) for scores in rules.values())


@pytest.mark.skipif("INFERMAX_LEARNING" not in os.environ, reason="half a minute each; INFERMAX_LEARNING=1 runs them")
@pytest.mark.parametrize("variant", ["as it is", "decide-event", "preempt-any"])
def test_an_agent_from_the_shelf_learns_the_task_and_no_variant_without_its_two_settings(variant: str) -> None:
    """That it learns the task as it is, tests/test_examples.py checks every time."""
    pytest.importorskip("sb3_contrib")
    from examples.maskable_ppo import TASK, learner, test_scores

    task, best_s = {**TASK, **VARIANTS.get(variant, {})}, best_rule_s()
    model = learner(0, task)
    assert test_scores(model, 20, task)["mean_latency_s"] > best_s
    model.learn(70_000)
    after = test_scores(model, 20, task)
    print(variant, after, "the best rule", best_s)
    if variant == "as it is":
        assert after["mean_latency_s"] < 0.8 * best_s and after["finished_by_fallback"] == 0
    else:
        assert after["mean_latency_s"] > best_s
