"""Expert iteration: costs of actions are right, the best action of a tiny instance is found and learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infermax_gym.agents.compiled import weights_of
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.play import greedy_decider
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.agents.search import (
    SearchSettings,
    action_costs,
    candidates_of,
    distil,
    expert_iteration,
    measure_states,
)
from infermax_gym.engine.policy import Policy, QueueOrder, Victim
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.workload import Workload

# Two requests, memory for one at a time: the short one must go first. The queue shows the long one first.
TINY = Workload([0.0, 0.0], [400, 200], [100, 10])
FIFO = Policy("fifo", queue_order=QueueOrder.FIFO, victim=Victim.KEY)
CONFIG = EnvConfig(
    workloads=(TINY,), num_requests=2, num_kv_tokens=(512, 512), level_shares=(1.0,), base=FIFO,
    num_waiting_slots=2, num_running_slots=2,
)  # fmt: skip
RUN, LONG, SHORT = 0, 1, 2


def fresh(config: EnvConfig, seed: int = 0) -> ScorerNetwork:
    torch.manual_seed(seed)
    return ScorerNetwork(config.layout, config.level_shares, 16)


def test_the_best_action_of_a_tiny_instance() -> None:
    env = InferMaxEnv(CONFIG, flat=True)
    env.reset(seed=0)
    assert env.action_masks()[[LONG, SHORT]].all()
    long_first, short_first = action_costs(env.run, [LONG, SHORT], weights_of(fresh(CONFIG)), CONFIG)
    # Served one after the other: whoever is second waits for the first, so the short one's time counts twice.
    assert short_first < 0.75 * long_first


@pytest.mark.parametrize("seed", range(3))
def test_costs_are_those_of_the_environment(seed: int) -> None:
    """A candidate's cost is minus the reward that the environment pays when the network plays on in it."""
    config = EnvConfig(num_requests=25, backlog=(10, 10), num_kv_tokens=(6_000, 6_000), level_shares=(0.5, 1.0))
    network = fresh(config, seed)
    decide = greedy_decider(network)
    env = InferMaxEnv(config, flat=True)
    observation, _ = env.reset(seed=seed)
    for _ in range(20):
        observation, *_ = env.step(int(decide(observation[None], env.action_masks()[None].astype(np.int8))[0]))
    legal = np.flatnonzero(env.action_masks()).tolist()
    state = env.get_state()
    costs = action_costs(env.run, legal, weights_of(network), config)
    for action, cost in zip(legal, costs, strict=True):
        env.set_state(state)
        paid, next_action, done = 0.0, action, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(next_action)
            paid += reward
            done = terminated or truncated
            next_action = int(decide(observation[None], env.action_masks()[None].astype(np.int8))[0])
        assert cost == pytest.approx(-paid, rel=1e-6)


def test_measuring_leaves_the_run_as_it_is() -> None:
    env = InferMaxEnv(CONFIG, flat=True)
    env.reset(seed=0)
    before = env.run.engine.record.tobytes(), env.run.engine.requests.tobytes(), env.run.lane.record.tobytes()
    action_costs(env.run, [LONG, SHORT], weights_of(fresh(CONFIG)), CONFIG)
    assert before == (env.run.engine.record.tobytes(), env.run.engine.requests.tobytes(), env.run.lane.record.tobytes())


def test_a_nearer_horizon_counts_less() -> None:
    env = InferMaxEnv(CONFIG, flat=True)
    env.reset(seed=0)
    weights = weights_of(fresh(CONFIG))
    costs = [action_costs(env.run, [LONG], weights, CONFIG, horizon_s=h)[0] for h in (0.2, 0.4, 0.8, np.inf)]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(2 * 0.2, rel=1e-6)  # two requests in the system throughout


def test_candidates() -> None:
    log_p = np.log(np.array([0.1, 0.5, 0.2, 0.15, 0.05], np.float32))
    kind_of = np.array([0, 1, 1, 1, 2])
    assert candidates_of(log_p, kind_of, 3) == [0, 1, 4]
    assert candidates_of(log_p, kind_of, 4) == [0, 1, 4, 2]
    log_p[4] = -1e9
    assert candidates_of(log_p, kind_of, 2) == [0, 1]


def test_it_learns_the_best_action() -> None:
    settings = SearchSettings(num_states=40, horizon_s=np.inf, measure=1.0, explore=0.3, epochs=150, gain_s=1.0)
    settings = SearchSettings(**{**settings.__dict__, "learning_rate": 5e-3, "hold": 0.02})
    network = fresh(CONFIG)
    states = measure_states(network, CONFIG, settings, seed=1)
    distil(network, states, settings, seed=1)
    env = InferMaxEnv(CONFIG, flat=True)
    observation, _ = env.reset(seed=0)
    first = greedy_decider(network)(observation[None], env.action_masks()[None].astype(np.int8))
    assert first[0] == SHORT


def test_rounds_never_make_it_worse_and_repeat_themselves() -> None:
    config = EnvConfig(num_requests=30, backlog=(10, 20), num_kv_tokens=(8_000, 8_000), level_shares=(1.0,))
    held = trace_slices(TrainingScenario(num_requests=30, num_kv_tokens=8_000), 2, split=TRAIN, seed=3)
    settings = SearchSettings(num_states=60, horizon_s=5.0, measure=0.5)
    curves = []
    for _ in range(2):
        curve: list[float] = []
        expert_iteration(
            fresh(config), config, held, rounds=2, settings=settings, seed=4,
            report=lambda number, loss, share, curve=curve: curve.append(loss),
        )  # fmt: skip
        assert curve == sorted(curve, reverse=True)
        curves.append(curve)
    assert curves[0] == curves[1]
