"""Small workloads and plain loops that the tests of the environments share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.testing import random_legal
from infermax_gym.workload import Workload

Chooser = Callable[[InferMaxEnv], int]


def small_workload(n: int = 24, seed: int = 0, rate: float = 20.0) -> Workload:
    """Requests of up to 60 + 30 tokens, quick arrivals, TTFT limits on some."""
    rng = np.random.default_rng(seed)
    return Workload(
        np.cumsum(rng.exponential(1.0 / rate, n)),
        rng.integers(1, 60, n),
        rng.integers(1, 30, n),
        ttft_slo_s=np.where(rng.random(n) < 0.5, 0.4, np.inf),
        tpot_slo_s=np.where(rng.random(n) < 0.5, 0.02, np.inf),
    )


def tight_env(workload: Workload | None = None, **settings: Any) -> InferMaxEnv:
    """An environment whose memory is contended."""
    chosen = small_workload() if workload is None else workload
    defaults: dict[str, Any] = {
        "workloads": (chosen,),
        "num_requests": len(chosen),
        "num_kv_tokens": (240, 240),
        "block_size": 4,
        "max_num_batched_tokens": 32,
    }
    return InferMaxEnv(**{**defaults, **settings})


def randomly(seed: int) -> Chooser:
    """Random legal actions."""
    rng = np.random.default_rng(seed)
    return lambda env: random_legal(env.action_masks(), env.layout, rng)


def play(env: InferMaxEnv, choose: Chooser, most: int = 100_000) -> tuple[list[float], dict[str, Any]]:
    """From the present to the end of the episode: the rewards and the last info."""
    rewards = []
    for _ in range(most):
        _, reward, terminated, truncated, info = env.step(choose(env))
        rewards.append(reward)
        if terminated or truncated:
            return rewards, info
    raise AssertionError(f"no end in {most} steps")


def same_observation(a: Any, b: Any) -> bool:
    """Whether two observations are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b)
