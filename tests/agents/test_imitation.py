"""Cloning a policy: the demonstrations are the policy's own, and the clone serves like it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infermax_gym.agents.imitation import Demonstrations, clone, demonstrate, imitate
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.play import play_network
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.workload import make_workload

TEACHER = POLICIES["spf-headroom"]
CONFIG = EnvConfig(base=TEACHER, num_requests=150, time_scale=(0.7, 0.7), level_shares=(1.0,))


@pytest.fixture(scope="module")
def shown() -> Demonstrations:
    return demonstrate(TEACHER, CONFIG, 3_000, seed=0)


def test_demonstrations_are_legal(shown: Demonstrations) -> None:
    assert len(shown) == 3_000
    assert shown.masks[np.arange(3_000), shown.actions].all()
    assert set(np.digitize(shown.actions, [1, 17])) >= {0, 1}  # runs, admissions


def test_same_seed_same_demonstrations(shown: Demonstrations) -> None:
    again = demonstrate(TEACHER, CONFIG, 500, seed=0)
    assert np.array_equal(again.observations, shown.observations[:500])
    assert np.array_equal(again.actions, shown.actions[:500])


def test_students_states_are_labelled_by_the_teacher(shown: Demonstrations) -> None:
    torch.manual_seed(0)
    student = ScorerNetwork(CONFIG.layout, CONFIG.level_shares)
    more = demonstrate(TEACHER, CONFIG, 500, seed=0, student=student)
    assert more.masks[np.arange(500), more.actions].all()
    assert not np.array_equal(more.observations, shown.observations[:500])


def test_clone_agrees_more_and_more(shown: Demonstrations) -> None:
    torch.manual_seed(0)
    network = ScorerNetwork(CONFIG.layout, CONFIG.level_shares)
    seen: list[float] = []
    share = clone(network, shown, epochs=12, seed=0, report=lambda epoch, loss, agreement: seen.append(loss))
    assert share > 0.85
    assert seen[-1] < 0.5 * seen[0]


def test_gains_let_a_clone_see_more() -> None:
    """The same network, data and seed: a third of what is left of the loss, at least, is for want of gains."""
    shown = demonstrate(TEACHER, CONFIG, 6_000, seed=0)
    left = {}
    for adapted in (True, False):
        torch.manual_seed(0)
        network = ScorerNetwork(CONFIG.layout, CONFIG.level_shares)
        if adapted:
            network.adapt(torch.from_numpy(shown.observations))
        losses: list[float] = []
        clone(network, shown, epochs=15, seed=0, report=lambda epoch, loss, share, to=losses: to.append(loss))
        left[adapted] = losses[-1]
    assert left[True] < 0.67 * left[False], left


def test_clone_serves_nearly_as_well() -> None:
    network = imitate(TEACHER, CONFIG, num_decisions=3_000, rounds=2, epochs=15, seed=1)
    workload, engine = make_workload("azure-conv", 400, seed=99, time_scale=1.0), EngineConfig(num_kv_tokens=20_000)
    ours = np.mean(play_network(network, CONFIG, workload, engine).latency_s)
    row, fcfs = (np.mean(simulate(workload, engine, POLICIES[name]).latency_s) for name in (TEACHER.name, "sarathi"))
    assert ours < 1.06 * row
    assert ours < fcfs
