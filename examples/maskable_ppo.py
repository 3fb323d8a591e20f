"""MaskablePPO of sb3-contrib, as it comes, on `InferMaxLongContext-v0`: it passes every rule of the table.

Rules, ten training seeds and their curves: docs/environments.md, "A task that teaches".

python examples/maskable_ppo.py --steps 200000
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecNormalize

from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs import TASKS, TEST_SEEDS

TASK = TASKS["InferMaxLongContext-v0"]
NUM_LANES = 16
FIRST_TEST_SEED = TEST_SEEDS[0]
"""Lanes train on episodes drawn from seeds below it."""


def learner(
    seed: int, settings: dict[str, Any] = TASK, *, gamma: float = 0.99, scale_rewards: bool = True
) -> MaskablePPO:
    """An untrained learner; rewards are divided by the running spread of returns, observations are not touched."""
    lanes = InferMaxVecEnv(NUM_LANES, seed=100 * seed, **settings)
    env = VecNormalize(lanes, norm_obs=False, norm_reward=scale_rewards, gamma=gamma)
    return MaskablePPO(
        "MlpPolicy", env, n_steps=128, batch_size=512, n_epochs=6, gamma=gamma, learning_rate=1e-3, seed=seed
    )


def test_scores(model: MaskablePPO, num_episodes: int = 50, settings: dict[str, Any] = TASK) -> dict[str, float]:
    """Greedy play on the first episode of each test seed, means over episodes."""
    env = InferMaxVecEnv(num_episodes, seed=FIRST_TEST_SEED, metrics=True, **settings)
    observation = env.reset()
    first: dict[int, tuple[float, ...]] = {}
    while len(first) < num_episodes:
        actions, _ = model.predict(observation, action_masks=env.action_masks(), deterministic=True)
        observation, _, dones, infos = env.step(np.asarray(actions))
        for i in np.flatnonzero(dones).tolist():
            latency_s = infos[i]["metrics"]["latency_s"]["mean"]
            served = (infos[i]["finished_by_agent"], infos[i]["finished_by_fallback"])
            first.setdefault(i, (infos[i]["episode"]["r"], latency_s, *served))
    names = ("return", "mean_latency_s", "finished_by_agent", "finished_by_fallback")
    return dict(zip(names, np.mean(list(first.values()), axis=0).tolist(), strict=True))


def main() -> None:
    """Train, then play requests that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000, help="decisions to learn from")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = learner(options.seed)
    model.verbose = 1  # a table every 20,480 decisions; ep_rew_mean is what to watch
    model.learn(options.steps, log_interval=10)
    scores = test_scores(model)
    print(f"{model.num_timesteps} decisions learned from; means over 50 test episodes:")
    print(f"return {scores['return']:.1f}, mean latency {scores['mean_latency_s']:.2f} s")
    print(
        f"finished by the agent {scores['finished_by_agent']:.1f},"
        f" by the fallback policy {scores['finished_by_fallback']:.1f}"
    )


if __name__ == "__main__":
    main()
