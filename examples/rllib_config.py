"""RLlib's PPO with action masks, on its new API stack; says so and stops where Ray is not installed.

The task is `InferMaxLongContext-v0`, docs/environments.md, "A task that teaches", where the scores of rules are.

python examples/rllib_config.py --steps 40
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.envs import TASKS, TEST_SEEDS, InferMaxEnv

TASK = TASKS["InferMaxLongContext-v0"]
NUM_LANES = 16
DECISIONS_PER_STEP = 2048
REWARD_SCALE = 0.01
"""Returns are minus the total latency, some -1,000 s; networks begin near 0."""


class Masked(gym.Wrapper[Any, Any, Any, Any]):
    """The flat observation and the mask under the names that RLlib's masking module looks for; rewards scaled."""

    def __init__(self, env: InferMaxEnv) -> None:
        super().__init__(env)
        legal = gym.spaces.Box(0.0, 1.0, (env.layout.num_actions,), np.float32)
        self.observation_space = gym.spaces.Dict({"observations": env.observation_space, "action_mask": legal})

    def _masked(self, observation: Any) -> dict[str, Any]:
        mask = self.get_wrapper_attr("action_masks")()
        return {"observations": observation, "action_mask": mask.astype(np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A Dict observation; infos as they are."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._masked(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The same, and the reward times `REWARD_SCALE`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._masked(observation), REWARD_SCALE * float(reward), terminated, truncated, info


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
    config = PPOConfig().environment("InferMax-masked", env_config=settings).debugging(seed=0)
    config = config.env_runners(num_env_runners=0, num_envs_per_env_runner=NUM_LANES, rollout_fragment_length=128)
    config = config.training(
        gamma=0.99, lr=1e-3, train_batch_size_per_learner=DECISIONS_PER_STEP, minibatch_size=512, num_epochs=6,
        use_kl_loss=False, clip_param=0.2, vf_clip_param=float("inf"), grad_clip=0.5,
    )  # fmt: skip
    model = {"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"}
    return config.rl_module(rl_module_spec=RLModuleSpec(module_class=ActionMaskingTorchRLModule, model_config=model))


def latency_s(module: Any, settings: dict[str, Any], seed: int) -> tuple[float, int]:
    """Greedy play of one episode: mean latency in seconds, and requests left to the fallback policy."""
    import torch

    env, done = make_env(settings), False
    observation, info = env.reset(seed=seed)
    while not done:
        batch = {"obs": {name: torch.from_numpy(value[None]) for name, value in observation.items()}}
        with torch.no_grad():
            action = int(module.forward_inference(batch)["action_dist_inputs"].argmax())
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    return info["metrics"]["latency_s"]["mean"], info["finished_by_fallback"]


def main() -> None:
    """Train for some iterations, then play episodes that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help=f"training iterations of {DECISIONS_PER_STEP} decisions")
    parser.add_argument("--episodes", type=int, default=20, help="test episodes")
    options = parser.parse_args()
    if find_spec("ray") is None:
        print("Ray is not installed; pip install 'ray[rllib]' to use this configuration")
        return
    import ray
    import torch

    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    algorithm = configuration(TASK).build_algo()
    for step in range(options.steps):
        mean = algorithm.train()["env_runners"].get("episode_return_mean")
        print(f"{(step + 1) * DECISIONS_PER_STEP:7} decisions, mean return while training {mean}", flush=True)
    played = [latency_s(algorithm.get_module(), TASK, TEST_SEEDS[0] + i) for i in range(options.episodes)]
    latencies, fallback = np.array(played).T
    print(f"mean latency {latencies.mean():.2f} s, by the fallback policy {fallback.mean():.1f} requests")
    algorithm.stop()


if __name__ == "__main__":
    main()
