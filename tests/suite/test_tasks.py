"""Version 1 stays what it is, and its ids play."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import infermax_gym  # noqa: F401 - registers the ids
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.scheduling.episode import draw_episode
from infermax_gym.suite.cards import card_of
from infermax_gym.suite.episodes import digest, episode_of
from infermax_gym.suite.tasks import (
    ALL_TRAFFIC,
    ANY_ENGINE,
    FIRST_TEST_SEED,
    SuiteError,
    Task,
    short_name,
    task_of,
    tasks_of,
)

TASKS = tasks_of("v1")

FROZEN = {
    "InferMaxSuite-Toy-v1": "b0b3336e01e105d7752fcead4457167f2a8aee81d91d4efc381589e7a1337741",
    "InferMaxSuite-LongContext-v1": "627bddd8c8fb231c13c89f57e8d994888b50491489e044dd9026117977c7b764",
    "InferMaxSuite-AllTraffic-v1": "84fd3a465358173d59b9033a47556d63d31e838eea3938e60918f418772e9cf6",
    "InferMaxSuite-AnyEngine-v1": "cf6045fe916a58ab449d0a496dd625a9f5c67a28749c565c614783dbb1714a05",
    "InferMaxSuite-Router-v1": "245b9c0c01eeccf65552868366f258241b39967c711312fc1590428bbf747f14",
    "InferMaxSuite-Goodput-v1": "f8dc151643479c033f40acc197baf4f042c4764aaf6fc268a75390065bd9d3fc",
}
"""What v1 is. A change here is another benchmark: make a v2 of it, and leave v1 as it is."""


@pytest.mark.parametrize("task", TASKS, ids=short_name)
def test_version_1_has_not_drifted(task: Task) -> None:
    assert digest(task) == FROZEN[task.id] == card_of(task).digest


def test_test_seeds_are_those_of_the_published_sentence() -> None:
    # sha256("infermax_gym suite v1: test episode 0 of InferMaxSuite-Toy-v1"), the first six bytes
    assert TASKS[0].seeds()[0] == FIRST_TEST_SEED + 179660855226728
    seeds = [seed for task in TASKS for seed in task.seeds()]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= FIRST_TEST_SEED


@pytest.mark.parametrize("task", TASKS, ids=short_name)
def test_the_id_plays_an_episode_to_its_end(task: Task) -> None:
    env = gym.make(task.id)
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    rng = np.random.default_rng(0)
    over = False
    while not over:
        action = int(rng.choice(np.flatnonzero(env.get_wrapper_attr("action_masks")())))
        _, _, over, _, info = env.step(action)
    assert info["metrics"]["num_finished"] == task.horizon


def test_the_registered_id_draws_the_test_episodes_of_their_seeds() -> None:
    """Pinning engine, traffic and load does not move the requests."""
    task = task_of("long-context")
    variant, seed = task.episodes()[0]
    env = gym.make(task.id)
    env.reset(seed=seed)
    theirs = env.unwrapped.run.episode.workload
    ours = episode_of(task, variant, seed).workload
    assert np.array_equal(theirs.arrival_s, ours.arrival_s)
    assert np.array_equal(theirs.num_output_tokens, ours.num_output_tokens)


def test_training_draws_training_variants_and_the_test_split_the_others() -> None:
    for split, variants in (("train", ANY_ENGINE.train), ("test", ANY_ENGINE.test)):
        env = gym.make(ANY_ENGINE.id, split=split)
        found = set()
        for seed in range(40):
            env.reset(seed=seed)
            engine = env.unwrapped.run.episode.engine
            found.add((engine.num_kv_tokens, env.unwrapped.run.episode.workload.name))
        assert found == {(v.num_kv_tokens, v.traffic) for v in variants}
    assert not {v.engine for v in ANY_ENGINE.train} & {v.engine for v in ANY_ENGINE.test}
    assert {v.traffic for v in ALL_TRAFFIC.test} > {v.traffic for v in ALL_TRAFFIC.train}


def test_one_seed_gives_one_episode() -> None:
    env = gym.make(ALL_TRAFFIC.id, flat=True)
    first, _ = env.reset(seed=5)
    again, _ = env.reset(seed=5)
    assert np.array_equal(first, again)


def test_a_task_that_is_not_there() -> None:
    with pytest.raises(SuiteError, match="suite v1 has no task 'toys'; expected one of toy, long-context"):
        task_of("toys")
    with pytest.raises(SuiteError, match="there is no suite 'v0'; expected one of v1"):
        tasks_of("v0")
    with pytest.raises(SuiteError, match="split must be 'train' or 'test', got 'all'"):
        gym.make(ALL_TRAFFIC.id, split="all")


def test_the_engines_are_those_of_the_table_with_their_own_memory() -> None:
    from infermax_gym.cost.engines import find_engine

    for task in (ALL_TRAFFIC, ANY_ENGINE, task_of("router"), task_of("goodput")):
        for variant in (*task.train, *task.test):
            assert find_engine(variant.engine).num_kv_tokens == variant.num_kv_tokens


def test_seeds_alone_decide_an_episode() -> None:
    task = task_of("goodput")
    variant, seed = task.episodes()[1]
    from infermax_gym.suite.episodes import scheduling_config

    fresh = draw_episode(scheduling_config(task), Streams(seed), task.options(variant))
    assert np.array_equal(fresh.workload.arrival_s, episode_of(task, variant, seed).workload.arrival_s)
