"""Load or compile what most tests run: `python -m tests.warm`."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from infermax_gym.agents import load_agent
from infermax_gym.baselines.catalogue import SCHEDULERS
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cluster import Fleet, Router, simulate_fleet
from infermax_gym.engine import EngineConfig
from infermax_gym.envs import ENTRY_POINTS
from infermax_gym.evaluation import warm_up
from infermax_gym.workload import make_workload


def main() -> None:
    """One small run of each kind."""
    kinds = [*(SCHEDULERS[name] for name in ("rollout", "nested-wait", "sglang-lpm")), load_agent("generalist")]
    for prefix_caching in (False, True):
        warm_up(kinds, EngineConfig(prefix_caching=prefix_caching))
    few = make_workload("azure-conv", 5, seed=0)
    simulate_fleet(few, Fleet.uniform(2, EngineConfig(), POLICIES["sarathi"]), Router("round-robin"))
    for name in ENTRY_POINTS:
        env = gym.make(name, num_requests=3, disable_env_checker=True)
        env.action_space.seed(0)
        env.reset(seed=0)
        env.step(env.action_space.sample())
    lanes = gym.make_vec("InferMax-v0", num_envs=2, vectorization_mode="vector_entry_point", num_requests=3)
    lanes.reset(seed=0)
    lanes.step(np.zeros(2, np.int64))


if __name__ == "__main__":
    main()
