"""Plain PPO of stable-baselines3 on the flat observation: the environment replaces illegal actions and counts them.

python examples/sb3_ppo_flat.py --steps 4000
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from stable_baselines3 import PPO

import infermax_gym  # noqa: F401 - registers the environments


def main() -> None:
    """Train for a moment, then play an episode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    env = gym.make("InferMax-v0", flat=True, num_requests=30, max_decisions_per_request=20)
    model = PPO("MlpPolicy", env, n_steps=256, batch_size=64, n_epochs=4, gamma=0.999, seed=0)
    model.learn(options.steps)
    observation, info = env.reset(seed=1)
    total, done = 0.0, False
    while not done:
        action, _ = model.predict(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        done = terminated or truncated
    latency_s = info["metrics"]["latency_s"]["mean"]
    print(
        f"return {total:.1f}, mean latency {latency_s:.2f} s, finished by the agent {info['finished_by_agent']} of 30"
    )
    print(f"{info['metrics']['num_decisions']} decisions, {info['num_illegal']} of them illegal and replaced")


if __name__ == "__main__":
    main()
