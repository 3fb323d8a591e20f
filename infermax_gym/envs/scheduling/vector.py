"""`InferMax-v0` as a native vector environment: every lane steps in one compiled call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from infermax_gym.engine.layout import CORE
from infermax_gym.envs.draws import Streams, streams_of_lanes
from infermax_gym.envs.rewards import Component, reward_of
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import RENDER_FPS, State, episode_metrics
from infermax_gym.envs.scheduling.episode import Run, begin_run, draw_episode
from infermax_gym.envs.scheduling.lane import LANE
from infermax_gym.envs.scheduling.layout import ActionLayout
from infermax_gym.envs.scheduling.spaces import Buffers, flat_space, observation_space
from infermax_gym.envs.scheduling.step import finish_step, go_on, start, step_all
from infermax_gym.envs.status import LOG_FULL, TERMINATED, TRUNCATED


class InferMaxVectorEnv(VectorEnv[Any, Any, Any]):
    """Many lanes of `InferMaxEnv`; a lane gives bit for bit what the scalar environment gives.

    Lane i is seeded with seed + i (as Gymnasium's own vector environments do). Autoreset mode SAME_STEP: when a
    lane's episode ends, the observation returned is already the first of its next episode; the last one of the
    old is in `info["final_obs"]`, its info, with `metrics`, in `info["final_info"]`.

    Every step's info has `dt_s`, `clock_s` (n,) float64, `action_mask` (n, A) int8 and `reward_components`
    (n, NUM_COMPONENTS) float64 (see `infermax_gym.envs.rewards.Component`); mask and components are views that the
    next step overwrites.

    Args:
        num_envs: lanes.
        config: where episodes come from; `EnvConfig()` by default.
        flat: observe one vector per lane instead of the Dict.
        copy: return copies of observations; without, they are views that the next step overwrites.
        metrics: put the full metrics of finished episodes into `final_info` (about half a millisecond each).
        **settings: settings of `EnvConfig` to change.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        config: EnvConfig | None = None,
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
        self.config = (config or EnvConfig()).changed(**settings)
        self.layout: ActionLayout = self.config.layout
        self.num_envs = num_envs
        self.flat = flat
        self.copy = copy
        self.metrics = metrics
        self.single_action_space = gym.spaces.Discrete(self.layout.num_actions)
        self.single_observation_space = flat_space(self.config) if flat else observation_space(self.config)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._weights = reward_of(self.config).vector
        self._buffers = Buffers(self.config, num_envs)
        self._engines = np.zeros(num_envs, CORE)
        self._lanes = np.zeros(num_envs, LANE)
        self._status = np.zeros(num_envs, np.int64)
        self._streams: list[Streams] = []
        self.runs: list[Run] = []

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every lane.

        Args:
            seed: lane i gets seed + i, or the i-th of a sequence; without one the streams go on.
            options: settings of the next episodes, any of `infermax_gym.envs.scheduling.config.EPISODE_SETTINGS`, for
                all lanes or one mapping per lane.
        """
        self._streams = streams_of_lanes(self._streams, seed, self.num_envs)
        self.runs = self.runs or [None] * self.num_envs  # type: ignore[list-item]
        for i in range(self.num_envs):
            self._begin(i, options[i] if isinstance(options, Sequence) else options)
        return self._observation(), self._info()

    def _begin(self, i: int, options: Mapping[str, Any] | None = None) -> None:
        """Begin an episode in lane i."""
        self._install(i, begin_run(self.config, draw_episode(self.config, self._streams[i], options)))
        start(self._engines[i], self._lanes[i])
        self._settle(i)

    def _install(self, i: int, run: Run) -> None:
        """Put a run into lane i; its records move into the shared arrays."""
        self._engines[i] = run.engine.record[0]
        self._lanes[i] = run.lane.record[0]
        run.engine.record = self._engines[i : i + 1]
        run.lane.record = self._lanes[i : i + 1]
        self.runs[i] = run

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A duplicate's runs have records of their own: put them into its shared arrays.
        self.__dict__.update(state)
        for i, run in enumerate(self.runs):
            self._install(i, run)

    def _settle(self, i: int) -> None:
        """Empty the lane's log until it has something to decide or is done; refresh its buffers."""
        b, engine, lane = self._buffers, self._engines[i], self._lanes[i]
        while self._lanes["status"][i] == LOG_FULL:
            self.runs[i].recorder.empty(self.runs[i].engine)
            go_on(engine, lane)
        self._status[i] = finish_step(engine, lane, b.reward_components[i], b.flat[i], b.mask[i])

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One action in every lane."""
        b = self._buffers
        chosen = np.ascontiguousarray(actions, np.int64)
        if chosen.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {chosen.shape}")
        step_all(self._engines, self._lanes, chosen, self._status, b.reward_components, b.flat, b.mask)
        for i in np.flatnonzero(self._status == LOG_FULL):
            self._settle(int(i))
        rewards = b.reward_components @ self._weights
        terminated = self._status == TERMINATED
        truncated = self._status == TRUNCATED
        if self.config.max_decisions is not None:
            truncated |= ~terminated & (self._lanes["num_decisions"] >= self.config.max_decisions)
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
        info["dt_s"] = info["dt_s"].copy()
        info["reward_components"] = self._buffers.reward_components.copy()
        for i in ended:
            final_obs[i] = self._one(int(i))
            if self.metrics:
                final_info["metrics"][i] = episode_metrics(self.runs[i])
            self._begin(int(i))
        info.update(final_obs=final_obs, _final_obs=mask, final_info=final_info, _final_info=mask)
        info["action_mask"] = self._buffers.mask

    @property
    def clock_s(self) -> NDArray[np.float64]:
        """(n,) simulated seconds since the beginning of each lane's episode."""
        return np.asarray(self._engines["clock_s"])

    def action_masks(self) -> NDArray[np.bool_]:
        """(n, A) bool, where actions are legal."""
        return self._buffers.mask.astype(bool)

    def get_state(self) -> list[State]:
        """A copy of every lane; `set_state` goes on from it."""
        return [State(run.copy(), s.copy()) for run, s in zip(self.runs, self._streams, strict=True)]

    def set_state(self, states: Sequence[State]) -> Any:
        """Go on from the states of as many lanes; returns the observation there. The states can be used again."""
        if len(states) != self.num_envs:
            raise ValueError(f"need one state for each of {self.num_envs} lanes, got {len(states)}")
        self._streams = [state.streams.copy() for state in states]
        self.runs = [None] * self.num_envs  # type: ignore[list-item]
        for i, state in enumerate(states):
            self._install(i, state.run.copy())
            self._settle(i)
        return self._observation()

    def _parts(self, flat: NDArray[np.float32], mask: NDArray[np.int8]) -> dict[str, Any]:
        w, r = self.layout.num_waiting_slots, self.layout.num_running_slots
        g = self._buffers.engine.shape[1]
        f = self._buffers.waiting.shape[2]
        lead = flat.shape[:-1]
        return {
            "waiting": flat[..., g : g + w * f].reshape(*lead, w, f),
            "running": flat[..., g + w * f :].reshape(*lead, r, -1),
            "engine": flat[..., :g],
            "action_mask": mask,
        }

    def _one(self, i: int) -> Any:
        flat = self._buffers.flat[i].copy()
        return flat if self.flat else self._parts(flat, self._buffers.mask[i].copy())

    def _observation(self) -> Any:
        b = self._buffers
        flat = b.flat.copy() if self.copy else b.flat
        if self.flat:
            return flat
        return self._parts(flat, b.mask.copy() if self.copy else b.mask)

    def _info(self) -> dict[str, Any]:
        b = self._buffers
        return {
            "dt_s": b.reward_components[:, Component.ELAPSED_S].copy(),
            "clock_s": self._engines["clock_s"].copy(),
            "action_mask": b.mask,
            "reward_components": b.reward_components,
        }
