"""`InferMaxVectorEnv` as a stable-baselines3 `VecEnv`, with action masks for all lanes at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from infermax_gym.agents.base_rollout import BaseRollout
from infermax_gym.agents.lane_history import LaneHistory
from infermax_gym.envs.rewards import LATENCY
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import State
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv


class InferMaxVecEnv(VecEnv):
    """Many lanes of `InferMax-v0` for PPO, MaskablePPO, DQN and whatever else takes a `VecEnv`.

    A lane's info is one small dict that the next step overwrites: `dt_s` and `TimeLimit.truncated`. Where an episode
    ended it is a new dict that also holds `terminal_observation`, `episode` (return `r`, length `l`, wall seconds
    `t`, as SB3's `Monitor` has them, so none is needed) and `metrics`. Learners that want no dicts at all read
    `dt_s` and `action_masks()` of this object.

    Args:
        num_envs: lanes.
        config: where episodes come from; `EnvConfig()` by default.
        flat: observe one vector per lane (for "MlpPolicy"); else the Dict (for "MultiInputPolicy").
        metrics: put the full metrics of finished episodes into their infos (about half a millisecond each).
        seed: of lane 0; lane i gets seed + i. None: fresh randomness, or what `seed()` sets before `reset()`.
        base_rollout: rewards become what an action gains over leaving it to the environment's policy, see
            `infermax_gym.agents.base_rollout`; returns are reported as they are without. Needs the reward `latency`,
            and episodes that nothing cuts short.
        **settings: settings of `EnvConfig` to change.

    Example:
        >>> from infermax_gym.agents.vec_env import InferMaxVecEnv
        >>> env = InferMaxVecEnv(4, num_requests=10, seed=0)
        >>> env.reset().shape[0]
        4
    """

    dt_s: NDArray[np.float64]
    """(n,) simulated seconds that the last step took: discount by exp(-dt_s / tau)."""

    def __init__(
        self,
        num_envs: int = 1,
        config: EnvConfig | None = None,
        *,
        flat: bool = True,
        metrics: bool = False,
        seed: int | None = None,
        base_rollout: BaseRollout | None = None,
        **settings: Any,
    ) -> None:
        self.lanes = InferMaxVectorEnv(num_envs, config, flat=flat, metrics=metrics, **settings)
        space: gym.Space[Any] = self.lanes.single_observation_space
        if base_rollout is not None:
            drawn = self.lanes.config
            limits = (drawn.max_decisions, drawn.max_decisions_per_request)
            if drawn.reward != LATENCY or limits != (None, None) or drawn.time_limit_s < np.inf:
                raise ValueError(
                    "a base-policy rollout needs the reward 'latency', and no time_limit_s or max_decisions"
                )
        super().__init__(num_envs, space, self.lanes.single_action_space)
        self.base_rollout = base_rollout
        self.history = LaneHistory()  # what a checkpoint of these lanes holds
        if seed is not None:
            self.seed(seed)
        self.dt_s = np.zeros(num_envs)
        self._actions = np.zeros(num_envs, np.int64)
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)
        self._begun_s = np.zeros(num_envs)
        self._infos: list[dict[str, Any]] = [{"dt_s": 0.0, "TimeLimit.truncated": False} for _ in range(num_envs)]

    def reset(self) -> VecEnvObs:
        """Begin an episode in every lane, with the seeds and options set for it."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        options = self._options if any(self._options) else None
        before = self.lanes.streams() if seeds is None else []
        observation: VecEnvObs
        observation, _ = self.lanes.reset(seed=seeds, options=options)
        self.history.begin(before, self.lanes, options is None)
        self._reset_seeds()
        self._reset_options()
        self.dt_s = np.zeros(self.num_envs)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._begun_s[:] = time.perf_counter()
        if self.base_rollout is not None:
            self.base_rollout.begin(self.lanes.runs)
        return observation

    def set_state(self, states: Sequence[State]) -> VecEnvObs:
        """Go on from the states of `lanes.get_state()`; returns the observation there."""
        observation: VecEnvObs = self.lanes.set_state(states)
        if self.base_rollout is not None:
            self.base_rollout.begin(self.lanes.runs)
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Note the actions of the next `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One action in every lane."""
        observation, rewards, terminated, truncated, info = self.lanes.step(self._actions)
        self.dt_s = info["dt_s"]
        self._returns += rewards
        self._lengths += 1
        for lane, dt_s in zip(self._infos, self.dt_s.tolist(), strict=True):
            lane["dt_s"] = dt_s
        infos = self._infos.copy()
        dones = terminated | truncated
        ended = np.flatnonzero(dones).tolist()
        self.history.note(self._actions, ended, self.lanes)
        for i in ended:
            infos[i] = self._end(i, info, bool(truncated[i] and not terminated[i]))
        if self.base_rollout is not None:
            rewards = self.base_rollout.shaped(rewards, self.dt_s, dones, self.lanes.runs)
        return observation, rewards.astype(np.float32), dones, infos

    def _end(self, i: int, info: dict[str, Any], truncated: bool) -> dict[str, Any]:
        now_s = time.perf_counter()
        last = {
            "dt_s": float(self.dt_s[i]),
            "TimeLimit.truncated": truncated,
            "finished_by_agent": int(info["finished_by_agent"][i]),
            "finished_by_fallback": int(info["finished_by_fallback"][i]),
            "terminal_observation": info["final_obs"][i],
            "episode": {
                "r": round(float(self._returns[i]), 6),
                "l": int(self._lengths[i]),
                "t": round(now_s - float(self._begun_s[i]), 6),
            },
        }
        if self.lanes.metrics:
            last["metrics"] = info["final_info"]["metrics"][i]
        self._returns[i] = 0.0
        self._lengths[i] = 0
        self._begun_s[i] = now_s
        return last

    def action_masks(self) -> NDArray[np.bool_]:
        """(n, A) bool, where actions are legal."""
        return self.lanes.action_masks()

    def close(self) -> None:
        """Nothing is held that needs closing."""
        self.lanes.close()

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """`action_masks` of some lanes; there are no single environments whose methods could be called.

        Raises:
            AttributeError: another method is asked for.
        """
        if method_name != "action_masks":
            raise AttributeError(f"lanes of InferMaxVecEnv have no method {method_name!r}, only 'action_masks'")
        masks = self.action_masks()
        return [masks[i] for i in self._get_indices(indices)]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, once for each lane; `run` is the lane's own episode.

        Raises:
            AttributeError: there is no such attribute.
        """
        lanes = self._get_indices(indices)
        if attr_name == "action_masks":
            return [partial(self._mask_of, i) for i in lanes]
        if attr_name == "run":
            return [self.lanes.runs[i] for i in lanes]
        return [getattr(self.lanes, attr_name) for _ in lanes]

    def _mask_of(self, i: int) -> NDArray[np.bool_]:
        return np.asarray(self.action_masks()[i])

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector environment.

        Raises:
            ValueError: only some lanes are named; they share their attributes.
        """
        if len(set(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"lanes share their attributes: set {attr_name!r} for all of them")
        setattr(self.lanes, attr_name, value)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's `Monitor`, whose work is done here, so that evaluation trusts the episodes' returns."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """No pictures: use the scalar environment for them."""
        return [None] * self.num_envs
