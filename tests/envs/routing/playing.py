"""Episodes of `InferMaxRouter-v0` that the tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from infermax_gym.engine import EngineConfig
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.workload import Workload, make_workload

WORKLOAD = make_workload("azure-conv", 200, seed=3)
SETTINGS: dict[str, Any] = {
    "workloads": (WORKLOAD,),
    "num_requests": len(WORKLOAD),
    "num_replicas": 5,
    "rate_per_replica": (5.0, 5.0),
    "num_kv_tokens": (9_000, 9_000),
}


def make(**settings: Any) -> InferMaxRouterEnv:
    return InferMaxRouterEnv(**{**SETTINGS, **settings})


def play(env: InferMaxRouterEnv, choose: Callable[[InferMaxRouterEnv], int]) -> tuple[list[float], dict[str, Any]]:
    """From the present to the end of the episode: the rewards and the last info."""
    rewards = []
    while True:
        _, reward, terminated, truncated, info = env.step(choose(env))
        rewards.append(reward)
        if terminated or truncated:
            return rewards, info


def randomly(seed: int) -> Callable[[InferMaxRouterEnv], int]:
    rng = np.random.default_rng(seed)
    return lambda env: int(rng.choice(np.flatnonzero(env.action_masks())))


def routed(rate: float = 25.0) -> Workload:
    """The requests as `make` spaces them."""
    return WORKLOAD.with_rate(rate)


CONFIG = EngineConfig(num_kv_tokens=9_000)
