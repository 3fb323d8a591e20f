"""`InferMaxVectorEnv` as a stable-baselines3 `VecEnv`, with action masks for all lanes at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from agents.shadow import SHADOW_FEATURES, Shadow
from infermax_gym.engine import Policy
from infermax_gym.envs.config import EnvConfig
from infermax_gym.envs.env import State
from infermax_gym.envs.rewards import LATENCY
from infermax_gym.envs.vector import InferMaxVectorEnv


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
        shadow: a row that serves every episode beside the agent. Rewards become how many request-seconds fewer the
            agent has than the row, and observations end with `agents.shadow.SHADOW_FEATURES`, for the critic alone.
            Needs flat observations and the reward `latency`.
        **settings: settings of `EnvConfig` to change.

    Example:
        >>> from agents.vec_env import InferMaxVecEnv
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
        shadow: Policy | None = None,
        **settings: Any,
    ) -> None:
        self.lanes = InferMaxVectorEnv(num_envs, config, flat=flat, metrics=metrics, **settings)
        space: gym.Space[Any] = self.lanes.single_observation_space
        if shadow is not None:
            if not flat or self.lanes.config.reward != LATENCY:
                raise ValueError("a shadow needs flat observations and the reward 'latency'")
            space = gym.spaces.Box(-np.inf, np.inf, (space.shape[0] + len(SHADOW_FEATURES),), np.float32)  # type: ignore[index]
        super().__init__(num_envs, space, self.lanes.single_action_space)
        self.shadow = shadow
        self._shadows: list[Shadow] = []
        self._shadow_s = np.zeros(num_envs)  # request-seconds of the shadows so far
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
        observation, _ = self.lanes.reset(seed=seeds, options=self._options if any(self._options) else None)
        self._reset_seeds()
        self._reset_options()
        self.dt_s = np.zeros(self.num_envs)
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._begun_s[:] = time.perf_counter()
        self._begin_shadows(range(self.num_envs))
        return self._shown(observation)

    def set_state(self, states: Sequence[State]) -> VecEnvObs:
        """Go on from the states of `lanes.get_state()`; returns the observation there."""
        observation = self.lanes.set_state(states)
        self._begin_shadows(range(self.num_envs))
        return self._shown(observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Note the actions of the next `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One action in every lane."""
        observation, rewards, terminated, truncated, info = self.lanes.step(self._actions)
        self.dt_s = info["dt_s"]
        if self.shadow is not None:
            rewards = rewards + self._shadow_rewards(info["clock_s"], terminated)
        self._returns += rewards
        self._lengths += 1
        for lane, dt_s in zip(self._infos, self.dt_s.tolist(), strict=True):
            lane["dt_s"] = dt_s
        infos = self._infos.copy()
        dones = terminated | truncated
        ended = np.flatnonzero(dones).tolist()
        for i in ended:
            infos[i] = self._end(i, info, bool(truncated[i]))
        self._begin_shadows(ended)
        return self._shown(observation), rewards.astype(np.float32), dones, infos

    def _begin_shadows(self, lanes: Iterable[int]) -> None:
        """The shadows of lanes whose episodes are new here."""
        if self.shadow is not None:
            self._shadows = self._shadows or [None] * self.num_envs  # type: ignore[list-item]
            for i in lanes:
                self._shadows[i] = Shadow.of(self.lanes.runs[i].episode, self.shadow)
                self._shadow_s[i] = self._shadows[i].request_seconds(float(self.lanes.clock_s[i]))

    def _shadow_rewards(self, clock_s: NDArray[np.float64], terminated: NDArray[np.bool_]) -> NDArray[np.float64]:
        """(n,) request-seconds of the shadows since the last step; all that are left where an episode is over."""
        until_s = np.where(terminated, np.inf, clock_s)
        now = np.array([s.request_seconds(t) for s, t in zip(self._shadows, until_s, strict=True)])
        since, self._shadow_s = now - self._shadow_s, now
        return since

    def _shown(self, observation: VecEnvObs) -> VecEnvObs:
        """The observation, with the features of the shadows behind it."""
        if self.shadow is None:
            return observation
        assert isinstance(observation, np.ndarray)
        clock_s, own = self.lanes.clock_s.tolist(), self.lanes.num_in_system.tolist()
        features = [self._shadows[i].features(clock_s[i], own[i]) for i in range(self.num_envs)]
        return np.concatenate((observation, np.array(features, np.float32)), axis=1)

    def _end(self, i: int, info: dict[str, Any], truncated: bool) -> dict[str, Any]:
        now_s = time.perf_counter()
        last = {
            "dt_s": float(self.dt_s[i]),
            "TimeLimit.truncated": truncated,
            "terminal_observation": self._last_shown(i, info),
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

    def _last_shown(self, i: int, info: dict[str, Any]) -> Any:
        """What lane i saw at the end of its episode; nobody is in the system any more unless it was cut short."""
        last = info["final_obs"][i]
        if self.shadow is None:
            return last
        features = self._shadows[i].features(float(info["clock_s"][i]), int(info["num_in_system"][i]))
        return np.concatenate((last, np.array(features, np.float32)))

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
