"""PPO on sb3-contrib's MaskablePPO: the factored scorer, discounting in simulated time, evaluation on fixed slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO

from infermax_gym.agents.base_rollout import BaseRollout
from infermax_gym.agents.buffers import TimeDiscountBuffer
from infermax_gym.agents.imitation import demonstrate
from infermax_gym.agents.networks import ScorerNetwork
from infermax_gym.agents.play import play_network
from infermax_gym.agents.policies_sb3 import ScorerPolicy
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.streams import stream


def _require(holds: bool, name: str, what: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}, got {got}")


@dataclass(frozen=True)
class PpoSettings:
    """How to train.

    Attributes:
        num_lanes: environments side by side.
        num_steps: decisions of each lane between two updates.
        batch_size: decisions of a gradient step.
        epochs: passes over a rollout.
        learning_rate: of Adam at the beginning; it falls linearly to a twentieth.
        entropy: weight of the entropy bonus.
        clip: of the probability ratio.
        target_kl: ends an update early.
        tau_s: horizon of the discount in simulated seconds; None: constant `gamma` per decision (for comparison).
        lambda_tau_s: see `TimeDiscountBuffer`.
        base_rollout: rewards are what an action gains over leaving the rest of the episode to the environment's policy,
            see `infermax_gym.agents.base_rollout`; `tau_s` may then be as long as an episode. Needs `tau_s`; else
        plain. ahead_s: with a base-policy rollout: how far beyond a decision's own gain the learner looks, in simulated
            seconds. 0: not at all, so that an update is a step of policy improvement over the policy, with little
            noise; 10 s see what decisions gain together, which one alone, with the policy deciding again after it, does
            not (Cheng, Kolobov & Swaminathan, "Heuristic-Guided Reinforcement Learning", 2021, has the whole range).
        gamma: per decision, used only where tau_s is None.
        value_s: rewards are divided by so many request-seconds, so that values are about one.
        width: units of a hidden layer.

    Raises:
        ValueError: a number is out of its range.
    """

    num_lanes: int = 32
    num_steps: int = 256
    batch_size: int = 512
    epochs: int = 4
    learning_rate: float = 7.5e-4
    entropy: float = 1e-3
    clip: float = 0.2
    target_kl: float | None = 0.03
    tau_s: float | None = 5_000.0
    lambda_tau_s: float = 5.0
    base_rollout: bool = True
    ahead_s: float = 10.0
    gamma: float = 0.99
    value_s: float = 150.0
    width: int = 32

    def __post_init__(self) -> None:
        for name in ("num_lanes", "num_steps", "batch_size", "epochs", "width"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("learning_rate", "clip", "target_kl", "tau_s", "lambda_tau_s", "value_s"):
            value = getattr(self, name)
            may_be_none = name in ("target_kl", "tau_s")
            _require((value is None and may_be_none) or 0.0 < value < math.inf, name, "positive and finite", value)
        for name in ("entropy", "ahead_s"):
            _require(0.0 <= getattr(self, name) < math.inf, name, "0 or more and finite", getattr(self, name))
        _require(0.0 <= self.gamma <= 1.0, "gamma", "in [0, 1]", self.gamma)

    def shaping(self) -> BaseRollout | None:
        """What shapes the rewards of the lanes to train in."""
        return BaseRollout(self.tau_s) if self.base_rollout and self.tau_s is not None else None

    def horizon_s(self) -> float | None:
        """Of the rollout buffer: how far beyond a decision's own reward the learner looks."""
        return self.tau_s if self.shaping() is None else self.ahead_s


PLAIN = PpoSettings(tau_s=20.0, base_rollout=False, value_s=400.0, learning_rate=3e-4)
"""Without a base-policy rollout the noise of the traffic allows no longer a horizon and no larger steps."""


_LOOKED_AT = 8_000


class TimedPPO(MaskablePPO):  # type: ignore[misc]
    """MaskablePPO whose rollouts record how long every decision took.

    `gamma` plays no part unless the buffer has no `tau_s`. Its environment is an `InferMaxVecEnv`.
    """

    rollout_buffer: TimeDiscountBuffer
    reward_scale: float = 1.0
    share_left: Callable[[], float] | None = None  # of the training, for the learning rate; None: as SB3 has it
    _last_obs: Any
    _last_episode_starts: Any

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        if self.share_left is not None:
            self._current_progress_remaining = self.share_left()

    def collect_rollouts(
        self, env: InferMaxVecEnv, callback: Any, rollout_buffer: Any, n_rollout_steps: int, use_masking: bool = True
    ) -> bool:
        """Play `n_rollout_steps` decisions in every lane; False if the callback wants to stop."""
        assert self._last_obs is not None
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        for _ in range(n_rollout_steps):
            masks = env.action_masks()
            with torch.no_grad():
                actions, values, log_probs = self.policy(torch.from_numpy(self._last_obs), action_masks=masks)
            chosen = actions.numpy()
            observations, rewards, dones, infos = env.step(chosen)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            dt_s = env.dt_s
            rewards = rewards * self.reward_scale
            for i in np.flatnonzero(dones):
                self._update_info_buffer([infos[i]])
                if infos[i].get("TimeLimit.truncated", False):
                    final = torch.from_numpy(infos[i]["terminal_observation"][None])
                    with torch.no_grad():
                        rewards[i] += rollout_buffer.discount(dt_s[i]) * float(self.policy.predict_values(final))
            rollout_buffer.add_timed(
                self._last_obs,
                chosen.reshape(-1, 1),
                rewards,
                self._last_episode_starts,
                values,
                log_probs,
                action_masks=masks,
                dt_s=dt_s,
            )
            self._last_obs = observations
            self._last_episode_starts = dones
        with torch.no_grad():
            last_values = self.policy.predict_values(torch.from_numpy(observations))
        rollout_buffer.compute_returns_and_advantage(last_values=last_values, dones=dones)
        callback.on_rollout_end()
        return True


def make_ppo(
    env: InferMaxVecEnv,
    settings: PpoSettings,
    *,
    seed: int = 0,
    network: ScorerNetwork | None = None,
    tensorboard: str | None = None,
) -> TimedPPO:
    """A model ready to train.

    Args:
        env: the lanes, flat observations.
        settings: how to train.
        seed: of weights, exploration and batches.
        network: warm start: its weights are copied. A fresh network's gains are fitted to typical observations.
        tensorboard: folder of logs, or None.
    """
    seed_of_torch = int(stream(seed, "policy").integers(2**31))
    model = TimedPPO(
        ScorerPolicy,
        env,
        learning_rate=lambda left: settings.learning_rate * max(left, 0.05),
        n_steps=settings.num_steps,
        batch_size=settings.batch_size,
        n_epochs=settings.epochs,
        gamma=settings.gamma,
        clip_range=settings.clip,
        ent_coef=settings.entropy,
        target_kl=settings.target_kl,
        rollout_buffer_class=TimeDiscountBuffer,
        rollout_buffer_kwargs={"tau_s": settings.horizon_s(), "lambda_tau_s": settings.lambda_tau_s},
        policy_kwargs={"config": env.lanes.config, "width": settings.width},
        tensorboard_log=tensorboard,
        seed=seed_of_torch,
        device="cpu",
    )
    model.reward_scale = 1.0 / settings.value_s
    if network is None:
        network_of(model).adapt(typical_observations(env.lanes.config, seed))
    else:
        network_of(model).load_state_dict(network.state_dict())
    return model


def typical_observations(config: EnvConfig, seed: int) -> torch.Tensor:
    """(B, N) float32, what the environment's own policy comes across; episodes as in the lanes with the same seed."""
    asked = config.changed(decide="event", admit_within_budget=False)  # wherever the policy may want to decide
    return torch.from_numpy(demonstrate(config.base, asked, _LOOKED_AT, seed=seed).observations)


def network_of(model: TimedPPO) -> ScorerNetwork:
    """The network that a model trains."""
    network: ScorerNetwork = model.policy.network  # type: ignore[assignment]
    return network


def mean_latency_s(network: ScorerNetwork, config: EnvConfig, trace_slices: Sequence[TraceSlice]) -> list[float]:
    """Mean latency on each trace slice, greedily, in seconds."""
    results = [play_network(network, config, trace_slice.workload, trace_slice.engine) for trace_slice in trace_slices]
    return [float(np.nanmean(result.latency_s)) for result in results]
