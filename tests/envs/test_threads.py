"""Threads over lanes: the same bits, whoever steps a lane; copies, forks and errors."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from infermax_gym.envs import SettingError
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.envs.threads import Crew

SETTINGS: dict[str, Any] = {"num_requests": 12, "num_kv_tokens": 6_000, "flat": True, "max_decisions": 60}


def steps(env: InferMaxVectorEnv, count: int, seed: int = 0) -> list[Any]:
    """What random legal play sees."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(count):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in env.action_masks()])
        observation, rewards, terminated, truncated, info = env.step(actions)
        counts = (info["num_illegal"], info["finished_by_agent"], info["finished_by_fallback"])
        seen.append((observation, rewards, terminated, truncated, info["dt_s"], info["clock_s"], *counts))
    return seen


def assert_same(first: list[Any], second: list[Any]) -> None:
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("num_threads", [2, 3, 50])
def test_threads_change_nothing(num_threads: int) -> None:
    alone, shared = InferMaxVectorEnv(5, **SETTINGS), InferMaxVectorEnv(5, num_threads=num_threads, **SETTINGS)
    alone.reset(seed=3)
    shared.reset(seed=3)
    seen = steps(shared, 150)
    assert_same(steps(alone, 150), seen)
    assert sum(step[2].sum() for step in seen) > 5, "across ends of episodes"
    shared.close()


def test_copies_have_threads_of_their_own() -> None:
    env = InferMaxVectorEnv(4, num_threads=2, **SETTINGS)
    env.reset(seed=0)
    steps(env, 5)
    others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = steps(env, 40, seed=1)
    env.close()
    for other in others:
        assert_same(steps(other, 40, seed=1), expected)


def _step_forked(env: InferMaxVectorEnv, queue: Any) -> None:
    queue.put(steps(env, 10, seed=1)[-1][1])


def test_forked_processes_begin_threads_of_their_own() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    env = InferMaxVectorEnv(4, num_threads=2, **SETTINGS)
    env.reset(seed=0)
    steps(env, 5)
    context: Any = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_step_forked, args=(env, queue))
    child.start()
    rewards = queue.get(timeout=60)
    child.join(60)
    np.testing.assert_array_equal(steps(env, 10, seed=1)[-1][1], rewards)


def test_every_lane_has_one_thread_and_errors_come_back() -> None:
    crew, parts = Crew(3, 8), list[tuple[int, int]]()
    assert crew.all_of(lambda first, last: parts.append((first, last)) or True)
    assert sorted(parts) == [(0, 2), (2, 5), (5, 8)]
    assert not crew.all_of(lambda first, last: last < 8)
    with pytest.raises(ZeroDivisionError):
        crew.all_of(lambda first, last: bool(1 // (first - 5)))
    crew.close()
    assert crew.all_of(lambda first, last: True), "closed crews begin again"


def test_threads_end_with_their_crew() -> None:
    for ends in (lambda crew: crew.close(), lambda crew: None):
        before = set(threading.enumerate())
        crew = Crew(3, 8)
        crew.all_of(lambda first, last: True)
        begun = set(threading.enumerate()) - before
        assert len(begun) == 2
        ends(crew)
        del crew
        gc.collect()
        for thread in begun:
            thread.join(10.0)
            assert not thread.is_alive()


@pytest.mark.parametrize("number", [0, 1.5, True, "2", 1_000])
def test_numbers_of_threads(number: Any) -> None:
    with pytest.raises(SettingError, match=r"num_threads must be a whole number in 1\.\.256"):
        InferMaxVectorEnv(2, num_threads=number)
