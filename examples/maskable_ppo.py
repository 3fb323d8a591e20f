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
    env = InferMaxVecEnv(16, num_requests=50, max_decisions=1000, seed=0)
    model = MaskablePPO("MlpPolicy", env, n_steps=64, batch_size=256, n_epochs=4, gamma=0.999, seed=0)
    model.learn(options.steps)
    observation = env.reset()
    action, _ = model.predict(observation, action_masks=env.action_masks(), deterministic=True)
    print(f"{model.num_timesteps} decisions; first actions of the trained policy: {action[:8].tolist()}")


if __name__ == "__main__":
    main()
