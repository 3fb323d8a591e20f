"""Random legal play: the smallest loop over `InferMax-v0`.

python examples/random_agent.py --steps 2000
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np

import infermax_gym  # noqa: F401 - registers the environments


def main() -> None:
    """Play and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    env = gym.make("InferMax-v0", num_requests=50, max_decisions=options.steps)
    rng = np.random.default_rng(options.seed)
    observation, info = env.reset(seed=options.seed)
    total, done = 0.0, False
    while not done:
        action = rng.choice(np.flatnonzero(observation["action_mask"]))
        observation, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        done = terminated or truncated
    metrics = info["metrics"]
    by_agent, by_fallback = info["finished_by_agent"], info["finished_by_fallback"]
    print(f"return {total:.1f} (minus request-seconds), mean latency {metrics['latency_s']['mean']:.2f} s")
    print(f"finished by the agent {by_agent}, by the fallback policy after {options.steps} decisions {by_fallback}")
    print(f"{info['clock_s']:.1f} s simulated, {metrics['num_preemptions']} preemptions")


if __name__ == "__main__":
    main()
