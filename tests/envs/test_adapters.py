"""The environments under other libraries' own loops. Each test needs its library and skips without it.

Tried with TorchRL 0.14.1, Tianshou 2.0.1, Ray 2.60.0 and PufferLib 1.0.1, each in an environment of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.envs import InferMaxEnv, InferMaxKnobsVectorEnv, InferMaxRouterVectorEnv, InferMaxVectorEnv

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"num_requests": 8, "max_decisions": 30}

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed; it has an environment of its own")


class Masked(gym.ObservationWrapper[Any, Any, Any]):
    """The mask beside the flat observation, under the names that Tianshou looks for."""

    def __init__(self, env: InferMaxEnv) -> None:
        super().__init__(env)
        legal = gym.spaces.MultiBinary(env.layout.num_actions)
        self.observation_space = gym.spaces.Dict({"obs": env.observation_space, "mask": legal})

    def observation(self, observation: Any) -> dict[str, Any]:
        return {"obs": observation, "mask": self.get_wrapper_attr("action_masks")()}


@pytest.mark.parametrize("native", [InferMaxVectorEnv, InferMaxKnobsVectorEnv, InferMaxRouterVectorEnv])
def test_torchrl_steps_native_vectors(native: Any) -> None:
    """Rewards of a rollout are those of the lanes, across ends."""
    library("torchrl")
    from torchrl.envs import GymWrapper
    from torchrl.envs.utils import check_env_specs

    settings = {**SMALL, "max_decisions": 4, "metrics": False}
    wrapped = GymWrapper(native(3, **settings), categorical_action_encoding=True)
    check_env_specs(wrapped)
    wrapped.set_seed(0)
    data = wrapped.rollout(20, break_when_any_done=False)
    assert data.batch_size == (3, 20) and data["next", "done"].sum() >= 6
    lanes = native(3, **settings)
    actions, rewards = data["action"].numpy(), data["next", "reward"].numpy()[..., 0]
    first = data["observation"].numpy() if "observation" in data.keys() else None  # noqa: SIM118 - no plain dict
    observation, _ = lanes.reset(seed=0)
    if first is not None and np.array_equal(observation, first[:, 0]):
        for step in range(20):
            _, expected, *_ = lanes.step(actions[:, step])
            np.testing.assert_allclose(rewards[:, step], expected, rtol=1e-6)


def test_torchrl_masks_actions() -> None:
    library("torchrl")
    from torchrl.envs import GymWrapper
    from torchrl.envs.transforms import ActionMask, TransformedEnv

    env = InferMaxEnv(**SMALL)
    wrapped = TransformedEnv(GymWrapper(env, categorical_action_encoding=True), ActionMask())
    data = wrapped.rollout(200, break_when_any_done=True)
    assert bool(data["next", "done"][-1]) and int(env.run.lane.record["num_illegal"][0]) == 0


def test_tianshou_collects_with_masks_and_learns() -> None:
    library("tianshou")
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net
    from tianshou.utils.torch_utils import policy_within_training_step

    made: list[Masked] = []

    def make() -> Masked:
        made.append(Masked(InferMaxEnv(flat=True, metrics=False, **SMALL)))
        return made[-1]

    lanes = DummyVectorEnv([make, make])
    spaces: Any = made[0].observation_space
    net = Net(state_shape=spaces["obs"].shape, action_shape=int(made[0].action_space.n), hidden_sizes=[32])
    policy = DiscreteQLearningPolicy(model=net, action_space=made[0].action_space, eps_training=0.3)
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=0.99)
    collector = Collector(algorithm, lanes, VectorReplayBuffer(1_000, 2), exploration_noise=True)
    collector.reset()
    collected = collector.collect(n_step=120)
    assert collected.n_collected_episodes >= 2 and (collected.returns < 0.0).all()
    with policy_within_training_step(policy):
        assert np.isfinite(algorithm.update(collector.buffer, 32).loss)
    assert all(env.unwrapped.run.lane.record["num_illegal"][0] == 0 for env in made)


def test_pufferlib_steps_many() -> None:
    """PufferLib emulates Dict observations as bytes; its release knows discrete actions only."""
    emulation, vector = library("pufferlib.emulation"), library("pufferlib.vector")

    def make(**_: Any) -> Any:
        return emulation.GymnasiumPufferEnv(env_creator=InferMaxEnv, env_kwargs={"metrics": False, **SMALL})

    lanes = vector.make(make, backend=vector.Serial, num_envs=2)
    alone = InferMaxEnv(metrics=False, **SMALL)
    lanes.reset(seed=0)
    alone.reset(seed=0)
    ended = False
    while not ended:
        actions = np.zeros(2, int)
        actions[0] = alone.action_masks().argmax()
        _, rewards, terminated, _, _ = lanes.step(actions)[:5]
        _, reward, ended, _, _ = alone.step(int(actions[0]))
        assert (float(rewards[0]), bool(terminated[0])) == (pytest.approx(reward, rel=1e-6), ended)


def test_rllib_trains_with_masks() -> None:
    """The example's configuration, on RLlib's new API stack."""
    library("ray.rllib")
    command = [sys.executable, str(ROOT / "examples" / "rllib_config.py"), "--steps", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2_000:]
    assert "mean return while training" in run.stdout and "illegal actions 0" in run.stdout
    found = re.search(r"mean latency (\S+) s", run.stdout)
    assert found is not None and float(found.group(1)) <= 6.0, run.stdout
