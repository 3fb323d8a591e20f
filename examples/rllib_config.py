"""An RLlib configuration for the flat environment; says so and stops where Ray is not installed.

python examples/rllib_config.py
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any


def make_env(settings: dict[str, Any]) -> Any:
    """What RLlib's `register_env` takes; `settings` are those of `EnvConfig`."""
    from infermax_gym.envs import InferMaxEnv

    return InferMaxEnv(flat=True, **settings)


def main() -> None:
    """Build the configuration, and train for a few iterations if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=0, help="training iterations")
    options = parser.parse_args()
    if find_spec("ray") is None:
        print("Ray is not installed; pip install 'ray[rllib]' to use this configuration")
        return
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.tune.registry import register_env

    register_env("InferMax-flat", make_env)
    config = PPOConfig().environment("InferMax-flat", env_config={"num_requests": 50, "max_decisions_per_request": 20})
    config = config.training(gamma=0.999, train_batch_size=2000)
    print("configuration built")
    if options.steps:
        algorithm = config.build()
        for _ in range(options.steps):
            print(algorithm.train()["env_runners"].get("episode_return_mean"))


if __name__ == "__main__":
    main()
