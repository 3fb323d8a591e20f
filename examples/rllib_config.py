"""RLlib's PPO with action masks, on its new API stack; says so and stops where Ray is not installed.

python examples/rllib_config.py --steps 10
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.envs import InferMaxEnv

SETTINGS = {"num_requests": 50, "max_decisions_per_request": 20}


class Masked(gym.ObservationWrapper[Any, Any, Any]):
    """The flat observation and the mask under the names that RLlib's masking module looks for."""

    def __init__(self, env: InferMaxEnv) -> None:
        super().__init__(env)
        legal = gym.spaces.Box(0.0, 1.0, (env.layout.num_actions,), np.float32)
        self.observation_space = gym.spaces.Dict({"observations": env.observation_space, "action_mask": legal})

    def observation(self, observation: Any) -> dict[str, Any]:
        """Flat observation in, Dict out."""
        mask = self.get_wrapper_attr("action_masks")()
        return {"observations": observation, "action_mask": mask.astype(np.float32)}


def make_env(settings: dict[str, Any]) -> Masked:
    """What RLlib's `register_env` takes; `settings` are those of `EnvConfig`."""
    return Masked(InferMaxEnv(flat=True, **settings))


def configuration(settings: dict[str, Any]) -> Any:
    """PPO that never tries what is illegal."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
    from ray.tune.registry import register_env

    register_env("InferMax-masked", make_env)
    config = PPOConfig().environment("InferMax-masked", env_config=settings)
    config = config.env_runners(num_env_runners=0, num_envs_per_env_runner=4)
    config = config.training(gamma=0.999, train_batch_size_per_learner=2000, minibatch_size=250, num_epochs=4)
    return config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActionMaskingTorchRLModule))


def play(algorithm: Any, settings: dict[str, Any]) -> None:
    """One episode of what was learned, and what it was worth."""
    import torch

    env, module = make_env(settings), algorithm.get_module()
    observation, info = env.reset(seed=1_000)
    total, done = 0.0, False
    while not done:
        batch = {"obs": {name: torch.from_numpy(value[None]) for name, value in observation.items()}}
        with torch.no_grad():
            action = int(module.forward_inference(batch)["action_dist_inputs"].argmax())
        observation, reward, done, _, info = env.step(action)
        total += float(reward)
    print(f"return {total:.1f}, mean latency {info['metrics']['latency_s']['mean']:.2f} s")
    print(f"finished by the agent {info['finished_by_agent']}, by the fallback policy {info['finished_by_fallback']}")
    print(f"illegal actions {info['num_illegal']}")


def main() -> None:
    """Train for a few iterations, then play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1, help="training iterations")
    options = parser.parse_args()
    if find_spec("ray") is None:
        print("Ray is not installed; pip install 'ray[rllib]' to use this configuration")
        return
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    algorithm = configuration(SETTINGS).build_algo()
    for _ in range(options.steps):
        print(f"mean return while training {algorithm.train()['env_runners'].get('episode_return_mean')}")
    play(algorithm, SETTINGS)
    algorithm.stop()


if __name__ == "__main__":
    main()
