"""Learn to route: a weight for each feature of a replica, by the cross-entropy method, in seconds.

The policy sends each request to the replica whose features weigh most. Every candidate plays in a lane of the native
vector environment; all lanes face the same requests. Replicas differ in memory, and signals are half a second old.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np

import infermax_gym  # noqa: F401 - registers the environments
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.envs.rewards import Component
from infermax_gym.envs.routing.layout import REPLICA_FEATURES
from infermax_gym.envs.routing.teacher import RouterTeacher

SETTINGS = {
    "num_replicas": 4,
    "num_requests": 300,
    "rate_per_replica": (4.0, 4.0),
    "alike": False,
    "num_kv_tokens": (6_000, 60_000),
    "staleness_s": 0.5,
    "counts_routed": False,
}
NUM_CANDIDATES = 48
TEST_SEEDS = range(1_000, 1_008)


def total_latency(weights: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) each: total latency in seconds and requests finished, of n weight vectors (n, num_features) on one seed."""
    count = len(weights)
    env = gym.make_vec("InferMaxRouter-v0", num_envs=count, metrics=False, **SETTINGS)
    observation, _ = env.reset(seed=[seed] * count)
    total, finished = np.zeros(count), np.zeros(count)
    for _ in range(SETTINGS["num_requests"]):
        scores = np.einsum("nrf,nf->nr", observation["replicas"], weights)
        scores[observation["action_mask"] == 0] = -np.inf
        observation, reward, _, _, info = env.step(scores.argmax(axis=1))
        total -= reward
        finished += info["reward_components"][:, Component.NUM_FINISHED]
    return total, finished


def latency_of_router(name: str, seed: int) -> float:
    """The same for a router of the table."""
    env = gym.make("InferMaxRouter-v0", **SETTINGS)
    env.reset(seed=seed)
    teacher, total, done = RouterTeacher(ROUTERS[name]), 0.0, False
    while not done:
        _, reward, done, _, _ = env.step(teacher.action(env.unwrapped.run))
        total -= float(reward)
    return total


def main() -> None:
    """Evolve, then compare on requests that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=216_000, help="decisions to learn from")
    options = parser.parse_args()
    num_generations = max(1, options.steps // (NUM_CANDIDATES * SETTINGS["num_requests"]))
    rng = np.random.default_rng(0)
    mean, spread = np.zeros(len(REPLICA_FEATURES)), np.ones(len(REPLICA_FEATURES))
    for generation in range(num_generations):
        weights = rng.normal(mean, spread, (NUM_CANDIDATES, len(mean)))
        cost, _ = total_latency(weights, generation)
        best = weights[cost.argsort()[:8]]
        mean, spread = best.mean(axis=0), best.std(axis=0) + 0.05
    per_request = len(TEST_SEEDS) * SETTINGS["num_requests"]
    total, finished = np.sum([total_latency(mean[None], seed) for seed in TEST_SEEDS], axis=0)[:, 0]
    print(f"return {-total:.1f}, {finished:.0f} requests finished of {per_request}")
    print(f"{'learned':20} {total / per_request:6.2f} s mean latency")
    for name in ("round-robin", "least-outstanding", "kv-share", "sal"):
        latency = sum(latency_of_router(name, seed) for seed in TEST_SEEDS) / per_request
        print(f"{name:20} {latency:6.2f} s mean latency")


if __name__ == "__main__":
    main()
