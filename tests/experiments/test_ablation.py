"""Parts that can be taken away are really gone, and stay so while the network learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("stable_baselines3")

from experiments.board.ablation import (
    TEACHER,
    VARIANTS,
    Unmasked,
    blind_to,
    latency_s,
    only_forced_preemption,
    unscaled,
)
from infermax_gym.agents.ppo import PpoSettings, make_ppo, network_of
from infermax_gym.agents.recipes import environment
from infermax_gym.agents.scenario import TEST, TrainingScenario, trace_slices
from infermax_gym.agents.training import train_ppo
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs.scheduling.layout import WAITING_FEATURES, Kind

SMALL = PpoSettings(num_lanes=4, num_steps=64, batch_size=64, epochs=2)
CONFIG = environment(TrainingScenario(num_requests=60), TEACHER)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_feature_stays_unseen() -> None:
    model = make_ppo(InferMaxVecEnv(4, CONFIG, seed=0), SMALL, seed=0)
    network = network_of(model)
    blind_to("spare_blocks")(network)
    place = WAITING_FEATURES.index("spare_blocks")
    before = network.admit.slot.weight.detach().clone()
    train_ppo(model, CONFIG, trace_slices(TrainingScenario(num_requests=30), 1, split=TEST), num_decisions=512)
    after = network.admit.slot.weight.detach()
    assert not torch.equal(before, after)
    assert (after[:, place] == 0.0).all() and (network.value_head.waiting.weight[:, place] == 0.0).all()


def test_preempts_only_where_nothing_else_is_legal() -> None:
    model = make_ppo(InferMaxVecEnv(4, CONFIG, seed=0), SMALL, seed=0)
    network = network_of(model)
    only_forced_preemption(network)
    train_ppo(model, CONFIG, trace_slices(TrainingScenario(num_requests=30), 1, split=TEST), num_decisions=512)
    observation = torch.rand(8, network.observation_size)
    legal = torch.ones(8, network.layout.num_actions, dtype=torch.bool)
    preempts = network.kind_of == Kind.PREEMPT
    assert network.log_probs(observation, legal).exp()[:, preempts].sum() < 1e-6
    legal[:, ~preempts] = False
    assert network.log_probs(observation, legal).exp()[:, preempts].sum(1).min() > 0.999


def test_unscaled_features_are_the_environments() -> None:
    network = network_of(make_ppo(InferMaxVecEnv(2, CONFIG, seed=0), SMALL, seed=0))
    observation = torch.rand(3, network.observation_size)
    assert not torch.equal(network.scaled(observation)[1], network.parts(observation)[1])
    unscaled(network)
    assert all(map(torch.equal, network.scaled(observation), network.parts(observation)))


def test_unmasked_lanes_say_everything_is_legal() -> None:
    masked, free = InferMaxVecEnv(2, CONFIG, seed=1), Unmasked(2, CONFIG, seed=1)
    masked.reset(), free.reset()
    assert not masked.action_masks().all() and free.action_masks().all()


def test_factored_play_and_the_likeliest_action_differ() -> None:
    """A fresh network admits by kind; of its single actions, to run is the likeliest as soon as many wait."""
    network = network_of(make_ppo(InferMaxVecEnv(2, CONFIG, seed=0), SMALL, seed=0))
    unscaled(network)  # so that it hardly prefers one request to another
    trace_slice = trace_slices(TrainingScenario(num_requests=80, time_scale=0.3), 1, split=TEST)[0]
    by_kind, single = (latency_s(network, CONFIG, trace_slice, factored) for factored in (True, False))
    assert by_kind < 0.8 * single


def test_every_variant_takes_something_away() -> None:
    whole = VARIANTS[0]
    assert len({v.what for v in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS[1:]:
        assert replace(variant, what=whole.what) != whole
