"""What tests of "nothing pays but serving" share: contended environments, agents that stall, the rule's returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.cluster import simulate_fleet
from infermax_gym.engine import SimulationResult, meets_slo, simulate
from infermax_gym.envs.fallback import FALLBACK
from infermax_gym.envs.routing.rest import FALLBACK_ROUTER
from infermax_gym.envs.scheduling.layout import Kind

SHAPES: dict[str, dict[str, Any]] = {
    "InferMax-v0": {"num_kv_tokens": 6_000},
    "InferMaxKnobs-v0": {"num_kv_tokens": 6_000},
    "InferMaxRouter-v0": {"num_kv_tokens": 6_000, "num_replicas": 2},
    "InferMaxLongContext-v0": {"num_kv_tokens": 140_000, "backlog": 0},
}
"""What makes memory scarce, so that badly chosen preemptions cost."""

IDS = tuple(SHAPES)
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
    common = {"num_requests": NUM_REQUESTS, "reward": reward, "ttft_slo_s": 2.0, "tpot_slo_s": 0.1}
    return gym.make(env_id, disable_env_checker=True, **{**common, **SHAPES[env_id], **changed}).unwrapped


def value(result: SimulationResult, reward: str) -> float:
    """The return of a run."""
    done = result.finished
    return {
        "latency": -float(result.latency_s[done].sum()),
        "ttft": -float(result.ttft_s[done].sum()),
        "gpu_cost": -result.busy_s,
        "goodput": float(np.sum(meets_slo(result, None))),
    }[reward]


def rule_on(run: Any, reward: str) -> float:
    """The return of `spf-headroom`, or of `sal` before the replicas, on an episode that has begun."""
    if hasattr(run, "fleet"):
        return value(simulate_fleet(run.workload, run.fleet.fleet, FALLBACK_ROUTER).pooled, reward)
    return value(simulate(run.episode.workload, run.episode.engine, FALLBACK), reward)


def served_by_rule(env: Any, reward: str) -> float:
    """`rule_on` the episode of a scalar environment."""
    return rule_on(env.run, reward)


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
