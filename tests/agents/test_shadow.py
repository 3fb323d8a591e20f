"""Shadows: exact sums, nothing gained or lost by comparing, and far less noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from agents.shadow import SHADOW_FEATURES, Shadow
from agents.vec_env import InferMaxVecEnv
from baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs.config import EnvConfig
from infermax_gym.envs.episode import Streams, draw_episode
from infermax_gym.testing import random_legal

CONFIG = EnvConfig(num_requests=40, backlog=(0, 20), num_kv_tokens=(9_000, 15_000), level_shares=(1.0,))
SHADOW = POLICIES["sarathi"]
Choice = Callable[[np.ndarray], int]


def test_request_seconds_are_the_integral() -> None:
    episode = draw_episode(CONFIG, Streams(3))
    shadow = Shadow.of(episode, SHADOW)
    result = simulate(episode.workload, episode.engine, SHADOW)
    for until_s in (0.0, 0.7, 5.0, 21.3, 1e4, np.inf):
        there = np.minimum(result.finish_s, until_s) - np.minimum(episode.workload.arrival_s, until_s)
        assert shadow.request_seconds(until_s) == pytest.approx(there.sum(), rel=1e-12, abs=1e-9)
    clock_s = float(np.median(result.finish_s))
    there = int(((episode.workload.arrival_s <= clock_s) & (result.finish_s > clock_s)).sum())
    assert shadow.num_requests(clock_s) == there
    behind, own, soon = shadow.features(clock_s, there + 5)
    arriving = (episode.workload.arrival_s > clock_s) & (episode.workload.arrival_s <= clock_s + 20.0)
    assert (behind, own, soon) == (0.25, there / 20.0, arriving.sum() / 50.0)


def first_legal(mask: np.ndarray) -> int:
    """Admit whoever comes first where that is legal, else run, else preempt."""
    legal = np.flatnonzero(mask)
    later = legal[legal >= 1]
    return int(later[0] if later.size and later[0] <= 16 else legal[0])


def at_random(rng: np.random.Generator) -> Choice:
    """Any legal action."""
    return lambda mask: random_legal(mask, CONFIG.layout, rng)


def returns(env: InferMaxVecEnv, num_episodes: int, choose: Choice) -> list[float]:
    """Returns of the first episodes of every lane, as SB3 would report them."""
    env.reset()
    found: list[list[float]] = [[] for _ in range(env.num_envs)]
    while min(map(len, found)) < num_episodes:
        _, _, dones, infos = env.step(np.array([choose(mask) for mask in env.action_masks()]))
        for i in np.flatnonzero(dones):
            found[i].append(infos[i]["episode"]["r"])
    return [r for own in found for r in own[:num_episodes]]


def latencies(num_lanes: int, num_episodes: int, seed: int) -> list[float]:
    """The shadow's total latency in the same episodes."""
    totals = []
    for i in range(num_lanes):
        streams = Streams(seed + i)
        for _ in range(num_episodes):
            episode = draw_episode(CONFIG, streams)
            totals.append(float(simulate(episode.workload, episode.engine, SHADOW).latency_s.sum()))
    return totals


def test_returns_are_what_is_saved_against_the_shadow() -> None:
    """Whatever is played, an episode's return is the shadow's total latency less one's own: nothing is lost."""
    for choice in (lambda: first_legal, lambda: at_random(np.random.default_rng(1))):
        plain = returns(InferMaxVecEnv(2, CONFIG, seed=5), 2, choice())
        relative = returns(InferMaxVecEnv(2, CONFIG, seed=5, shadow=SHADOW), 2, choice())
        np.testing.assert_allclose(np.subtract(relative, plain), latencies(2, 2, 5), rtol=1e-6)


def test_shadows_take_the_noise_of_the_traffic_away() -> None:
    """The same play: returns relative to the shadow scatter far less over episodes than plain ones."""
    busy = CONFIG.changed(num_requests=150, time_scale=(0.8, 1.2))
    plain = returns(InferMaxVecEnv(4, busy, seed=11), 4, first_legal)
    relative = returns(InferMaxVecEnv(4, busy, seed=11, shadow=POLICIES["spf-headroom"]), 4, first_legal)
    assert np.var(relative) < 0.5 * np.var(plain)


def test_features_go_behind_the_observation() -> None:
    plain, shown = InferMaxVecEnv(2, CONFIG, seed=2), InferMaxVecEnv(2, CONFIG, seed=2, shadow=SHADOW)
    a, b = plain.reset(), shown.reset()
    assert isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    for _ in range(60):
        assert b.shape == (2, a.shape[1] + len(SHADOW_FEATURES)) and b.dtype == np.float32
        np.testing.assert_array_equal(a, b[:, : a.shape[1]])
        actions = np.array([first_legal(mask) for mask in plain.action_masks()])
        a, _, _, infos = plain.step(actions)
        b, _, dones, shown_infos = shown.step(actions)
        for i in np.flatnonzero(dones):
            last = shown_infos[i]["terminal_observation"]
            np.testing.assert_array_equal(last[: a.shape[1]], infos[i]["terminal_observation"])
            assert last.shape == b[i].shape


def test_a_state_brings_its_shadow_along() -> None:
    env = InferMaxVecEnv(2, CONFIG, seed=9, shadow=SHADOW)
    env.reset()
    for _ in range(40):
        env.step(np.array([first_legal(mask) for mask in env.action_masks()]))
    states = env.lanes.get_state()
    other = InferMaxVecEnv(2, CONFIG, seed=1, shadow=SHADOW)
    other.reset()
    other.set_state(states)
    for _ in range(40):
        actions = np.array([first_legal(mask) for mask in env.action_masks()])
        (a, reward_a, _, _), (b, reward_b, _, _) = env.step(actions), other.step(actions)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(reward_a, reward_b)


def test_only_latency_has_a_shadow() -> None:
    with pytest.raises(ValueError, match="a shadow needs flat observations and the reward 'latency'"):
        InferMaxVecEnv(1, CONFIG.changed(reward="gpu_cost"), shadow=SHADOW)
    with pytest.raises(ValueError, match="a shadow needs flat observations"):
        InferMaxVecEnv(1, CONFIG, flat=False, shadow=SHADOW)
