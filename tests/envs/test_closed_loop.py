"""Closed-loop traffic in the environments: who is sent when, scalar and vector alike, and states that go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infermax_gym.engine.recorder import result_of
from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.envs.settings import SettingError
from infermax_gym.testing import random_legal
from infermax_gym.workload import Workload, closed_loop
from tests.envs.playing import play, randomly, same_observation, small_workload, tight_env

CLOSED: dict[str, Any] = {"concurrency": 5, "think_s": 0.05, "ramp_up_s": 0.1}


def sent_as_defined(workload: Workload, arrival_s: Any, finish_s: Any) -> None:
    shared = workload.after == -2
    released_s = np.sort(finish_s)[: int(shared.sum())]
    np.testing.assert_array_equal(arrival_s[shared], released_s + workload.think_s[shared])


@pytest.mark.parametrize("decide", ["event", "iteration", "change"])
def test_requests_are_sent_when_others_have_ended(decide: str) -> None:
    env = tight_env(decide=decide, **CLOSED)
    env.reset(seed=3)
    rewards, info = play(env, randomly(0))
    run = env.run
    result = result_of(run.engine, run.episode.workload, run.recorder, False)
    assert info["metrics"]["num_finished"] == len(run.episode.workload) == 24
    sent_as_defined(run.episode.workload, result.arrival_s, result.finish_s)
    assert sum(rewards) == pytest.approx(-float((result.finish_s - result.arrival_s).sum()))


def test_a_limit_hands_over_what_was_not_sent() -> None:
    env = tight_env(time_limit_s=0.2, **CLOSED)
    env.reset(seed=3)
    _, info = play(env, randomly(0))
    assert info["finished_by_agent"] + info["finished_by_fallback"] == 24
    assert info["finished_by_fallback"] > 10


def test_lanes_are_scalar_environments() -> None:
    settings: dict[str, Any] = {
        "workloads": (small_workload(60, seed=1), small_workload(80, seed=2)),
        "num_requests": 16,
        "num_kv_tokens": (180, 300),
        "block_size": 4,
        "max_num_batched_tokens": 32,
        "concurrency": (2, 8),
        "think_s": 0.02,
    }
    vector = InferMaxVectorEnv(3, **settings)
    scalars = [InferMaxEnv(**settings) for _ in range(3)]
    batch, _ = vector.reset(seed=5)
    for i, env in enumerate(scalars):
        observation, _ = env.reset(seed=5 + i)
        assert same_observation({key: value[i] for key, value in batch.items()}, observation)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(400):
        actions = np.array([random_legal(mask, vector.layout, rng) for mask in vector.action_masks()])
        batch, rewards, terminated, truncated, info = vector.step(actions)
        for i, env in enumerate(scalars):
            observation, reward, end, cut, one = env.step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, end, cut)
            if end or cut:
                ends += 1
                assert info["final_info"]["metrics"][i] == one["metrics"]
                observation, _ = env.reset()
            assert same_observation({key: value[i] for key, value in batch.items()}, observation)
    assert ends > 6


def test_a_state_goes_on_alike() -> None:
    env = tight_env(**CLOSED)
    env.reset(seed=1)
    chooser = randomly(7)
    for _ in range(20):
        env.step(chooser(env))
    state = env.get_state()
    first = play(env, randomly(8))
    env.set_state(state)
    second = play(env, randomly(8))
    assert first[0] == second[0]
    assert first[1]["metrics"] == second[1]["metrics"]


def test_knobs_are_the_kernel() -> None:
    """Neutral knobs all the way: the run of the same policy in the kernel."""
    env = InferMaxKnobsEnv(workloads=(small_workload(),), num_requests=24, num_kv_tokens=240, **CLOSED)
    env.reset(seed=0)
    done = False
    action = env.action_space.sample() * 0.0
    while not done:
        _, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    assert info["metrics"]["num_finished"] == 24
    run = env.run
    result = result_of(run.engine, run.episode.workload, run.recorder, False)
    sent_as_defined(run.episode.workload, result.arrival_s, result.finish_s)


def routing_settings() -> dict[str, Any]:
    return {
        "workloads": (small_workload(40, seed=2),),
        "num_requests": 40,
        "num_replicas": 3,
        "num_kv_tokens": 400,
        "block_size": 4,
        "max_num_batched_tokens": 32,
        "concurrency": 9,
        "think_s": 0.02,
    }


@pytest.mark.parametrize("staleness_s", [0.0, 0.03])
def test_a_router_is_asked_when_a_client_sends(staleness_s: float) -> None:
    env = InferMaxRouterEnv(**routing_settings(), staleness_s=staleness_s)
    vector = InferMaxRouterVectorEnv(2, **routing_settings(), staleness_s=staleness_s)
    observation, info = env.reset(seed=4)
    batch, _ = vector.reset(seed=[4, 5])
    rng = np.random.default_rng(0)
    clock_s, asked_s, done = -1.0, [], False
    while not done:
        assert same_observation({key: value[0] for key, value in batch.items()}, observation)
        asked_s.append(info["clock_s"])
        assert info["clock_s"] >= clock_s
        clock_s = info["clock_s"]
        action = int(rng.integers(3))
        observation, reward, terminated, truncated, info = env.step(action)
        batch, rewards, *_ = vector.step(np.array([action, 0]))
        assert rewards[0] == reward
        done = terminated or truncated
    result = env.run.fleet.result(keep=True).pooled
    assert asked_s == sorted(result.arrival_s.tolist())
    sent_as_defined(result.workload, result.arrival_s, result.finish_s)


def test_a_reset_may_change_the_clients() -> None:
    env = tight_env()
    env.reset(seed=1, options={"concurrency": 3})
    assert int((env.run.episode.workload.after == -1).sum()) == 3
    env.reset(options={})
    assert not env.run.episode.workload.is_closed_loop


def test_clients_move_no_other_draw() -> None:
    plain, closed = (tight_env(num_kv_tokens=(200, 300), **more) for more in ({}, {"concurrency": (2, 9)}))
    for env in (plain, closed):
        env.reset(seed=9)
    a, b = plain.run.episode, closed.run.episode
    assert a.engine == b.engine
    assert a.workload.num_prompt_tokens.tolist() == b.workload.num_prompt_tokens.tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"think_s": 1.0},
        {"ramp_up_s": 1.0},
        {"concurrency": 2, "backlog": 3},
        {"sessions": 1},
        {"workloads": "uniform:3"},
    ],
)
def test_refused_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        EnvConfig(**wrong)


def test_a_closed_workload_is_served_as_it_is() -> None:
    workload = closed_loop(small_workload(), 4)
    env = tight_env(workload)
    env.reset(seed=0)
    play(env, randomly(1))
    run = env.run
    result = result_of(run.engine, run.episode.workload, run.recorder, False)
    sent_as_defined(workload, result.arrival_s, result.finish_s)
