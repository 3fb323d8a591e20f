"""Nothing pays but serving: whatever the limit, rewards hold what all requests cost, and no stalling beats serving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import simulate_fleet
from infermax_gym.engine import SimulationResult, meets_slo, simulate
from infermax_gym.envs.fallback import FALLBACK
from infermax_gym.envs.routing.rest import FALLBACK_ROUTER
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import Kind
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.testing import check_run
from tests.envs.strategies import hostile_configs

IDS = ("InferMax-v0", "InferMaxKnobs-v0", "InferMaxRouter-v0")
REWARDS = ("latency", "ttft", "gpu_cost", "goodput")
LIMITS: dict[str, dict[str, Any]] = {
    "few decisions": {"max_decisions": 7},
    "decisions": {"max_decisions": 150},
    "per request": {"max_decisions_per_request": 2},
    "time": {"time_limit_s": 4.0},
}
NUM_REQUESTS = 40
Chooser = Callable[[Any, Any, np.random.Generator], Any]


def made(env_id: str, reward: str = "latency", **changed: Any) -> Any:
    """A contended environment."""
    shape = {"num_replicas": 2, "num_kv_tokens": 6_000} if env_id == "InferMaxRouter-v0" else {"num_kv_tokens": 6_000}
    common = {"num_requests": NUM_REQUESTS, "reward": reward, "ttft_slo_s": 2.0, "tpot_slo_s": 0.1}
    return gym.make(env_id, disable_env_checker=True, **{**common, **shape, **changed}).unwrapped


def value(result: SimulationResult, reward: str) -> float:
    """The return of a run."""
    done = result.finished
    return {
        "latency": -float(result.latency_s[done].sum()),
        "ttft": -float(result.ttft_s[done].sum()),
        "gpu_cost": -result.busy_s,
        "goodput": float(np.sum(meets_slo(result, None))),
    }[reward]


def served_by_rule(env: Any, reward: str) -> float:
    """The return of `spf-headroom`, or of `sal` before the replicas, on the episode that an environment has begun."""
    if "Router" in type(env).__name__:
        fleet = env.run.fleet
        return value(simulate_fleet(fleet.workload, fleet.fleet, FALLBACK_ROUTER).pooled, reward)
    return value(simulate(env.run.episode.workload, env.run.episode.engine, FALLBACK), reward)


def last_legal(env: Any, mask: Any, rng: np.random.Generator) -> int:
    return int(np.flatnonzero(mask)[-1])


def first_legal(env: Any, mask: Any, rng: np.random.Generator) -> int:
    return int(np.flatnonzero(mask)[0])


def any_legal(env: Any, mask: Any, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(mask)))


def preempting(env: Any, mask: Any, rng: np.random.Generator) -> int:
    """PREEMPT where it is legal, else one ADMIT, else RUN."""
    first = env.layout.encode(Kind.PREEMPT, 0)
    legal = np.flatnonzero(mask)
    victims = legal[legal >= first]
    return int(victims[0]) if victims.size else int(legal[-1])


def admitting_nobody(env: Any, mask: Any, rng: np.random.Generator) -> int:
    """RUN where it is legal."""
    return int(np.flatnonzero(mask)[0])


def illegal(env: Any, mask: Any, rng: np.random.Generator) -> int:
    return -1


STALLERS: dict[str, Chooser] = {
    "last legal": last_legal,
    "first legal": first_legal,
    "any legal": any_legal,
    "preempt always": preempting,
    "admit nobody": admitting_nobody,
    "illegal": illegal,
}


def play(env: Any, choose: Chooser, seed: int, most: int = 20_000) -> tuple[float, dict[str, Any], bool]:
    """A whole episode: its return, its last info, and whether a limit ended it."""
    rng, total = np.random.default_rng(seed), 0.0
    for _ in range(most):
        _, reward, terminated, truncated, info = env.step(choose(env, env.action_masks(), rng))
        total += reward
        if terminated or truncated:
            return total, info, truncated
    raise AssertionError(f"no end in {most} steps")


def test_the_fallbacks_are_policies_of_the_tables() -> None:
    described = {"name", "source", "note"}
    for item in fields(FALLBACK):
        if item.name not in described:
            assert getattr(FALLBACK, item.name) == getattr(POLICIES["spf-headroom"], item.name), item.name
    for item in fields(FALLBACK_ROUTER):
        if item.name not in described:
            assert getattr(FALLBACK_ROUTER, item.name) == getattr(ROUTERS["sal"], item.name), item.name


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("strategy", STALLERS)
def test_no_stalling_beats_serving(strategy: str, limit: str, reward: str) -> None:
    for information in ("none", "noisy", "oracle"):
        env = made("InferMax-v0", reward, information=information, **LIMITS[limit])
        env.reset(seed=1)
        best = served_by_rule(env, reward)
        total, info, _ = play(env, STALLERS[strategy], seed=2)
        assert info["finished_by_agent"] + info["finished_by_fallback"] == NUM_REQUESTS
        assert info["metrics"]["num_finished"] == NUM_REQUESTS
        assert total <= best + 1e-9 * abs(best), (information, total, best)


@pytest.mark.parametrize("reward", REWARDS)
def test_stalling_without_time_is_exactly_the_fallback(reward: str) -> None:
    """The limit is reached before anything has run, so the fallback serves everything."""
    env = made("InferMax-v0", reward, backlog=30, num_kv_tokens=9_000, max_decisions=3)
    env.reset(seed=3)
    expected = served_by_rule(env, reward)
    for _ in range(2):
        _, none, terminated, truncated, info = env.step(env.layout.encode(Kind.ADMIT, 0))
        assert (none, terminated, truncated, info["finished_by_fallback"]) == (0.0, False, False, 0)
    env = made("InferMax-v0", reward, backlog=30, num_kv_tokens=9_000, max_decisions=1)
    env.reset(seed=3)
    _, total, terminated, truncated, info = env.step(env.layout.encode(Kind.ADMIT, 0))
    assert (terminated, truncated) == (True, True)
    assert info["finished_by_agent"] == 0 and info["finished_by_fallback"] == NUM_REQUESTS + 30
    assert total <= expected + 1e-9 * abs(expected) and total == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("reward", REWARDS)
def test_returns_do_not_depend_on_the_limit_but_through_who_served(env_id: str, reward: str) -> None:
    """Rewards sum over all requests: exactly the value of what the metrics say happened."""
    for limits in ({}, {"max_decisions": 5}, {"time_limit_s": 3.0}):
        env = made(env_id, reward, **limits)
        env.reset(seed=4)
        rng, total, done = np.random.default_rng(0), 0.0, False
        while not done:
            masked = hasattr(env, "action_masks")
            action = any_legal(env, env.action_masks(), rng) if masked else rng.uniform(-1, 1, env.action_space.shape)
            _, step_reward, terminated, truncated, info = env.step(action)
            total += step_reward
            done = terminated or truncated
            assert type(terminated) is bool and type(truncated) is bool
        metrics = info["metrics"]
        assert metrics["num_finished"] == NUM_REQUESTS
        expected = {
            "latency": -metrics["latency_s"]["mean"] * NUM_REQUESTS,
            "ttft": -metrics["ttft_s"]["mean"] * NUM_REQUESTS,
            "gpu_cost": -metrics["busy_s"],
            "goodput": metrics["slo_attainment"] * NUM_REQUESTS,
        }[reward]
        bound = served_by_rule(env, reward)
        capped = min(expected, bound) if truncated else expected
        assert total == pytest.approx(capped, rel=1e-9)


@pytest.mark.parametrize("env_id", ["InferMaxKnobs-v0", "InferMaxRouter-v0"])
@pytest.mark.parametrize("reward", REWARDS)
def test_bad_knobs_and_bad_routes_do_not_beat_the_rule(env_id: str, reward: str) -> None:
    bad = {"InferMaxKnobs-v0": [np.full(11, -1.0), np.full(11, 1.0)], "InferMaxRouter-v0": [0, 1, 99]}[env_id]
    for limits in ({"max_decisions": 2}, {"max_decisions": 30}, {"time_limit_s": 2.0}):
        for action in bad:
            env = made(env_id, reward, **limits)
            env.reset(seed=5)
            best, total, done = served_by_rule(env, reward), 0.0, False
            while not done:
                _, step_reward, done, _, _ = env.step(action)
                total += step_reward
            assert total <= best + 1e-9 * abs(best), (limits, action, total, best)


@pytest.mark.parametrize("reward", REWARDS)
def test_a_searched_adversary_does_not_beat_the_rule(reward: str) -> None:
    """Evolution of how often each kind of action is taken, against the return, with at most four requests finished."""
    rng = np.random.default_rng(7)
    env = made("InferMax-v0", reward, max_decisions=200)

    def value_of(genes: np.ndarray) -> float:
        kinds = np.exp(genes[:3])

        def choose(env: Any, mask: Any, rng: np.random.Generator) -> int:
            if env.run.engine.record["num_finished"][0] >= 4:
                return preempting(env, mask, rng)
            starts = [env.layout.encode(kind, 0) for kind in Kind]
            parts = [
                np.flatnonzero(part) + start for part, start in zip(np.split(mask, starts[1:]), starts, strict=True)
            ]
            shares = np.array([share * (part.size > 0) for share, part in zip(kinds, parts, strict=True)])
            part = parts[int(rng.choice(3, p=shares / shares.sum()))]
            return int(part[0] if genes[3] > 0.0 else part[-1])

        env.reset(seed=6)
        return play(env, choose, seed=8)[0]

    env.reset(seed=6)
    best = served_by_rule(env, reward)
    centre, spread, found = np.zeros(4), 2.0, -np.inf
    for _ in range(8):
        candidates = centre + spread * rng.standard_normal((12, 4))
        values = np.array([value_of(genes) for genes in candidates])
        found = max(found, float(values.max()))
        centre, spread = candidates[np.argsort(values)[-3:]].mean(0), 0.8 * spread
    assert found <= best + 1e-9 * abs(best)


@pytest.mark.parametrize("decide", ["event", "change", "iteration"])
@pytest.mark.parametrize("strategy", STALLERS)
def test_whenever_the_agent_is_asked(strategy: str, decide: str) -> None:
    for reward in REWARDS:
        env = made("InferMax-v0", reward, decide=decide, max_decisions_per_request=10, backlog=5)
        env.reset(seed=9)
        best = served_by_rule(env, reward)
        total, info, truncated = play(env, STALLERS[strategy], seed=3)
        assert not truncated or total <= best + 1e-9 * abs(best)
        assert info["metrics"]["num_finished"] + info["metrics"]["num_rejected"] == NUM_REQUESTS + 5


def test_a_turn_has_a_bounded_number_of_actions() -> None:
    """Then the engine runs by itself, so that decisions without end take time without end."""
    env = InferMaxEnv(num_requests=60, backlog=60, num_kv_tokens=20_000, max_num_seqs=4)
    env.reset(seed=0)
    most = int(env.run.lane.record["most_turn_actions"][0])
    rng, longest, turn = np.random.default_rng(0), 0, 0
    for _ in range(3_000):
        mask = env.action_masks()
        acts = np.flatnonzero(mask)[np.flatnonzero(mask) >= env.layout.num_chunk_budgets]
        action = int(rng.choice(acts)) if acts.size else int(np.flatnonzero(mask)[-1])
        before = env.run.engine.record["num_iterations"][0]
        _, _, terminated, _, _ = env.step(action)
        turn = 0 if env.run.engine.record["num_iterations"][0] > before else turn + 1
        longest = max(longest, turn)
        if terminated:
            break
    assert most == 16 and longest < most


@pytest.mark.parametrize("env_id", IDS)
def test_registered_ids_end_by_themselves(env_id: str) -> None:
    env: Any = gym.make(env_id, num_requests=10).unwrapped
    env.reset(seed=0)
    for _ in range(10 * 60):
        action: Any = np.full(11, -1.0)
        if hasattr(env, "action_masks"):
            action = last_legal(env, env.action_masks(), np.random.default_rng(0))
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    assert terminated and info["metrics"]["num_finished"] == 10


def test_limits_mean_the_same_in_every_form() -> None:
    shape: dict[str, Any] = {"num_requests": 20, "num_kv_tokens": 6_000, "flat": True}
    lanes = gym.make_vec(
        "InferMax-v0", num_envs=2, vectorization_mode="vector_entry_point", max_episode_steps=30, **shape
    )
    assert isinstance(lanes, InferMaxVectorEnv)
    scalars = [gym.make("InferMax-v0", max_decisions=30, **shape) for _ in range(2)]
    lanes.reset(seed=3)
    for i, env in enumerate(scalars):
        env.reset(seed=3 + i)
    for step in range(30):
        masks = lanes.action_masks()
        actions = np.array([np.flatnonzero(mask)[step % mask.sum()] for mask in masks])
        observation, rewards, terminated, truncated, info = lanes.step(actions)
        for i, env in enumerate(scalars):
            one, reward, t, u, last = env.step(actions[i])
            assert (rewards[i], terminated[i], truncated[i]) == (reward, t, u)
            ended = t or u
            np.testing.assert_array_equal(info["final_obs"][i] if ended else observation[i], one)
            for name in ("dt_s", "clock_s", "finished_by_agent", "finished_by_fallback", "num_illegal"):
                assert (info["final_info"] if ended else info)[name][i] == last[name] == info[name][i]
    assert truncated.all() and (info["finished_by_agent"] + info["finished_by_fallback"] == 20).all()


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(config=hostile_configs(), seed=st.integers(0, 2**31), most=st.integers(1, 40))
def test_the_fallback_ends_whatever_the_agent_left(config: EnvConfig, seed: int, most: int) -> None:
    """On tiny caches, behind any base policy; every request is finished or rejected and no invariant is broken."""
    env = InferMaxEnv(config, flat=True, max_decisions=most)
    env.reset(seed=seed)
    rng, ended, info = np.random.default_rng(seed), False, {}
    for _ in range(most):
        _, reward, ended, _, info = env.step(any_legal(env, env.action_masks(), rng))
        assert np.isfinite(reward)
        if ended:
            break
    assert ended
    metrics = info["metrics"]
    assert metrics["num_finished"] + metrics["num_rejected"] == len(env.run.episode.workload)
    check_run(env.run)
