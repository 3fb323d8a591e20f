"""MaskablePPO of sb3-contrib on the native vector environment.

Its discount is a constant per decision; for training in earnest use `train.py --algo ppo`, which discounts in time.

python examples/maskable_ppo.py --steps 20000
"""

from __future__ import annotations

import argparse

import torch
from sb3_contrib import MaskablePPO

from infermax_gym.agents.vec_env import InferMaxVecEnv


def main() -> None:
    """Train for a moment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"num_requests": 50, "max_decisions_per_request": 20}
    env = InferMaxVecEnv(16, seed=0, **settings)
    model = MaskablePPO("MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=4, gamma=0.999, seed=0)
    model.learn(options.steps)
    test = InferMaxVecEnv(1, seed=1_000, metrics=True, **settings)
    observation, done = test.reset(), [False]
    while not done[0]:
        action, _ = model.predict(observation, action_masks=test.action_masks(), deterministic=True)
        observation, _, done, infos = test.step(action)
    last, metrics = infos[0], infos[0]["metrics"]
    print(f"{model.num_timesteps} decisions learned from; on requests that were not:")
    print(f"return {last['episode']['r']:.1f}, mean latency {metrics['latency_s']['mean']:.2f} s")
    print(f"finished by the agent {last['finished_by_agent']}, by the fallback policy {last['finished_by_fallback']}")


if __name__ == "__main__":
    main()
