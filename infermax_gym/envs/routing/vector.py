"""`InferMaxRouter-v0` as a native vector environment: every lane steps in one compiled call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from infermax_gym.cluster.layout import FLEET
from infermax_gym.envs.draws import Streams, streams_of_lanes
from infermax_gym.envs.rewards import NUM_COMPONENTS, Component, reward_of
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.env import RouterState, flat_size, flat_space, observation_space, parts_of, settle
from infermax_gym.envs.routing.episode import RoutingRun, begin_routing
from infermax_gym.envs.routing.step import LANE, finish_all, start_all, step_all
from infermax_gym.envs.scheduling.env import RENDER_FPS
from infermax_gym.envs.status import LOG_FULL, TERMINATED, TRUNCATED


class InferMaxRouterVectorEnv(VectorEnv[Any, Any, Any]):
    """Many lanes of `InferMaxRouterEnv`; a lane gives bit for bit what the scalar environment gives.

    Lane i is seeded with seed + i. Autoreset mode SAME_STEP: when a lane's episode ends, the observation returned is
    already the first of its next episode; the last one of the old is in `info["final_obs"]`, its info, with
    `metrics`, in `info["final_info"]`.

    Every step's info has `dt_s`, `clock_s` (n,) float64, `action_mask` (n, N) int8 and `reward_components`
    (n, NUM_COMPONENTS) float64 (see `infermax_gym.envs.rewards.Component`); mask and components are views that the
    next step overwrites.

    Args:
        num_envs: lanes.
        config: where episodes come from; `RouterEnvConfig()` by default.
        flat: observe one vector per lane instead of the Dict.
        copy: return copies of observations; without, they are views that the next step overwrites.
        metrics: put the full metrics of finished episodes into `final_info` (about a millisecond each).
        **settings: settings of `RouterEnvConfig` to change.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        config: RouterEnvConfig | None = None,
        *,
        flat: bool = False,
        copy: bool = True,
        metrics: bool = True,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if render_mode is not None:
            raise ValueError("a vector environment does not render; use the scalar one")
        self.render_mode = None
        self.config = (config or RouterEnvConfig()).changed(**settings)
        self.num_envs = num_envs
        self.flat = flat
        self.copy = copy
        self.metrics = metrics
        count = self.config.num_replicas
        self.single_action_space = gym.spaces.Discrete(count)
        self.single_observation_space = flat_space(self.config) if flat else observation_space(self.config)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._weights = reward_of(self.config).vector
        self._fleets = np.zeros(num_envs, FLEET)
        self._lanes = np.zeros(num_envs, LANE)
        self._status = np.zeros(num_envs, np.int64)
        self._reward_components = np.zeros((num_envs, NUM_COMPONENTS))
        self._flat = np.zeros((num_envs, flat_size(count)), np.float32)
        self._mask = np.zeros((num_envs, count), np.int8)
        self._streams: list[Streams] = []
        self.runs: list[RoutingRun] = []

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes in all lanes; `options` as in the scalar environment, for all or one for each."""
        self._streams = streams_of_lanes(self._streams, seed, self.num_envs)
        self.runs = self.runs or [None] * self.num_envs  # type: ignore[list-item]
        for i in range(self.num_envs):
            self._begin(i, options[i] if isinstance(options, Sequence) else options)
        return self._observation(), self._info()

    def _begin(self, i: int, options: Mapping[str, Any] | None = None) -> None:
        self._install(i, begin_routing(self.config, self._streams[i], options))
        start_all(self._fleets[i : i + 1], self._lanes[i : i + 1])
        self._settle(i)

    def _install(self, i: int, run: RoutingRun) -> None:
        """Put a run into lane i; its records move into the shared arrays."""
        self._fleets[i] = run.fleet.state.record[0]
        self._lanes[i] = run.lane[0]
        run.fleet.state.record = self._fleets[i : i + 1]
        run.lane = self._lanes[i : i + 1]
        self.runs[i] = run

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A duplicate's runs have records of their own: put them into its shared arrays.
        self.__dict__.update(state)
        for i, run in enumerate(self.runs):
            self._install(i, run)

    def _settle(self, i: int) -> None:
        """Bring lane i to its next decision and refresh its buffers."""
        settle(self.runs[i])
        here = slice(i, i + 1)
        finish_all(
            self._fleets[here],
            self._lanes[here],
            self._status[here],
            self._reward_components[here],
            self._flat[here],
            self._mask[here],
        )

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One request in every lane."""
        chosen = np.ascontiguousarray(actions, np.int64)
        if chosen.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {chosen.shape}")
        step_all(self._fleets, self._lanes, chosen, self._status, self._reward_components, self._flat, self._mask)
        for i in np.flatnonzero(self._status == LOG_FULL):
            self._settle(int(i))
        rewards = self._reward_components @ self._weights
        terminated, truncated = self._status == TERMINATED, self._status == TRUNCATED
        info = self._info()
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            self._renew(ended, info)
        return self._observation(), rewards, terminated, truncated, info

    def _renew(self, ended: NDArray[np.intp], info: dict[str, Any]) -> None:
        """Report the episodes that ended and begin new ones in their lanes."""
        mask = np.zeros(self.num_envs, bool)
        mask[ended] = True
        final_obs = np.empty(self.num_envs, object)
        final_info: dict[str, Any] = {"_metrics": mask, "metrics": np.empty(self.num_envs, object)}
        info["reward_components"] = self._reward_components.copy()
        for i in ended:
            final_obs[i] = self._one(int(i))
            if self.metrics:
                final_info["metrics"][i] = self.runs[i].metrics()
            self._begin(int(i))
        info.update(final_obs=final_obs, _final_obs=mask, final_info=final_info, _final_info=mask)

    def action_masks(self) -> NDArray[np.bool_]:
        """(n, N) bool, which replicas can hold the requests."""
        return self._mask.astype(bool)

    def get_state(self) -> list[RouterState]:
        """A copy of every lane; `set_state` goes on from it."""
        return [RouterState(run.copy(), s.copy()) for run, s in zip(self.runs, self._streams, strict=True)]

    def set_state(self, states: Sequence[RouterState]) -> Any:
        """Go on from the states of as many lanes; returns the observation there. The states can be used again."""
        if len(states) != self.num_envs:
            raise ValueError(f"need one state for each of {self.num_envs} lanes, got {len(states)}")
        self._streams = [state.streams.copy() for state in states]
        self.runs = [None] * self.num_envs  # type: ignore[list-item]
        for i, state in enumerate(states):
            self._install(i, state.run.copy())
            self._settle(i)
        return self._observation()

    def _one(self, i: int) -> Any:
        flat = self._flat[i].copy()
        return flat if self.flat else parts_of(flat, self._mask[i].copy())

    def _observation(self) -> Any:
        flat = self._flat.copy() if self.copy else self._flat
        if self.flat:
            return flat
        return parts_of(flat, self._mask.copy() if self.copy else self._mask)

    def _info(self) -> dict[str, Any]:
        return {
            "dt_s": self._reward_components[:, Component.ELAPSED_S].copy(),
            "clock_s": self._lanes["clock_s"].copy(),
            "action_mask": self._mask,
            "reward_components": self._reward_components,
        }
