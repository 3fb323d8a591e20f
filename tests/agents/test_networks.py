"""The scorer: a distribution over legal actions that cares neither for slots nor for their number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infermax_gym.agents.networks import MOST_GAIN, PRESENT, ScorerNetwork
from infermax_gym.agents.play import RandomPlayer, greedy_decider, play, play_network
from infermax_gym.agents.ppo import typical_observations
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Episode
from infermax_gym.envs.scheduling.layout import ActionLayout, Kind
from infermax_gym.workload import make_workload

LAYOUT = ActionLayout(2, 5, 4)
SHARES = (0.5, 1.0)
ENGINE = EngineConfig(num_kv_tokens=8_000)
CONFIG = EnvConfig(base=POLICIES["spf-headroom"])


@pytest.fixture
def network() -> ScorerNetwork:
    torch.manual_seed(0)
    return ScorerNetwork(LAYOUT, SHARES)


def inputs(network: ScorerNetwork, count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    observation = torch.rand(count, network.observation_size, generator=generator)
    legal = torch.rand(count, network.layout.num_actions, generator=generator) < 0.5
    legal[:, 0] = True
    return observation, legal


def test_size(network: ScorerNetwork) -> None:
    assert 10_000 < network.num_weights < 50_000


def test_probabilities(network: ScorerNetwork) -> None:
    observation, legal = inputs(network)
    p = network.log_probs(observation, legal).exp()
    assert torch.allclose(p.sum(-1), torch.ones(7))
    assert (p[~legal] == 0.0).all() and (p[legal] > 0.0).all()


def test_no_gradient_is_nan(network: ScorerNetwork) -> None:
    observation, legal = inputs(network)
    legal[0] = False
    legal[0, 1] = True  # a forced decision
    chosen = legal.int().argmax(-1)
    (
        network.log_probs(observation, legal).gather(1, chosen[:, None]).mean() + network.values(observation).mean()
    ).backward()
    assert all(w.grad is not None and torch.isfinite(w.grad).all() for w in network.parameters())


def test_slots_are_interchangeable(network: ScorerNetwork) -> None:
    observation, legal = inputs(network)
    order = torch.tensor([3, 0, 4, 1, 2])
    engine, waiting, running = network.parts(observation)
    moved = torch.cat((engine, waiting[:, order].flatten(1), running.flatten(1)), -1)
    legal_moved = legal.clone()
    legal_moved[:, 2:7] = legal[:, 2:7][:, order]
    before, after = network.log_probs(observation, legal), network.log_probs(moved, legal_moved)
    assert torch.allclose(before[:, 2:7][:, order], after[:, 2:7], atol=1e-5)
    assert torch.allclose(before[:, 7:], after[:, 7:], atol=1e-5)
    assert torch.allclose(network.values(observation), network.values(moved), atol=1e-5)


def test_same_weights_for_other_windows(network: ScorerNetwork) -> None:
    larger = ScorerNetwork(ActionLayout(2, 9, 6), SHARES)
    larger.load_state_dict(network.state_dict())
    observation, legal = inputs(network)
    engine, waiting, running = network.parts(observation)
    padded = torch.cat(
        (
            engine,
            waiting.flatten(1),
            torch.zeros(7, 4 * waiting.shape[-1]),
            running.flatten(1),
            torch.zeros(7, 2 * running.shape[-1]),
        ),
        -1,
    )
    none = torch.zeros(7, 4, dtype=torch.bool)
    legal_padded = torch.cat((legal[:, :7], none, legal[:, 7:], none[:, :2]), -1)
    before, after = network.log_probs(observation, legal), larger.log_probs(padded, legal_padded)
    assert torch.allclose(before[legal], after[legal_padded], atol=1e-5)


def test_gains_make_features_vary_alike(network: ScorerNetwork) -> None:
    observation, _ = inputs(network, 2_000)
    engine, waiting, running = network.parts(observation)
    engine[:, 0] = 0.5 + 0.5 * engine[:, 0]
    engine[:, 1] = 0.25  # never varies
    engine[:, 2] *= 0.01  # hardly varies
    waiting[..., PRESENT] = 1.0
    waiting[:, 3:] = 0.0  # empty slots are no observation
    network.adapt(torch.cat((engine, waiting.flatten(1), running.flatten(1)), -1))
    assert float((engine[:, 0] * network.engine.gain[0]).std()) == pytest.approx(1.0, rel=1e-5)
    assert network.engine.gain[1] == 1.0 and network.waiting.gain[PRESENT] == 1.0
    assert network.engine.gain[2] == MOST_GAIN
    shown = waiting[:, :3, 1:].flatten(0, 1)
    assert torch.allclose((shown * network.waiting.gain[1:]).std(0), torch.ones(shown.shape[-1]), atol=1e-4)


def test_nothing_typical_leaves_gains_alone(network: ScorerNetwork) -> None:
    network.adapt(torch.zeros(1, network.observation_size))
    assert (network.engine.gain == 1.0).all() and (network.running.gain == 1.0).all()


def test_greedy_chooses_the_kind_first(network: ScorerNetwork) -> None:
    p = torch.full((1, 11), 1e-9)
    p[0, 0] = 0.4  # one way to run
    p[0, 2:7] = torch.tensor([0.1, 0.1, 0.2, 0.1, 0.1])  # five ways to admit
    assert LAYOUT.decode(int(network.greedy(p.log()))) == (Kind.ADMIT, 2)


@pytest.mark.parametrize("adapted", [False, True])
def test_compiled_play_is_torch_play(adapted: bool) -> None:
    torch.manual_seed(3)
    network = ScorerNetwork(CONFIG.layout, CONFIG.level_shares)
    if adapted:
        network.adapt(typical_observations(CONFIG, seed=0))
        assert float(network.waiting.gain.max()) > 3.0
    workload = make_workload("azure-conv", 60, seed=5, rate=4.0)
    slow = play(greedy_decider(network), CONFIG, [Episode(workload, ENGINE, None)])[0]
    fast = play_network(network, CONFIG, workload, ENGINE)
    assert np.array_equal(slow.finish_s, fast.finish_s)


def test_a_policy_that_only_preempts_comes_to_an_end() -> None:
    network = ScorerNetwork(CONFIG.layout, CONFIG.level_shares)
    with torch.no_grad():
        network.kind[-1].bias.copy_(torch.tensor([-20.0, 0.0, 20.0]))
    workload = make_workload("azure-conv", 30, seed=5, rate=4.0)
    assert play_network(network, CONFIG, workload, ENGINE).finished.all()


def test_random_play_finishes_everything() -> None:
    workload = make_workload("azure-conv", 60, seed=5, rate=4.0)
    first, again = (RandomPlayer().play(workload, ENGINE, seed=2, record_schedule=True) for _ in range(2))
    assert first.finished.all() and first.schedule == again.schedule
