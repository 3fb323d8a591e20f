"""What the native vector environments share: lanes that step in one compiled call, as Gymnasium's `VectorEnv`.

A vector environment of its own says how lanes are begun, stepped and looked at (`Lanes`); everything that callers meet,
seeds, options, autoreset modes, infos, guards, states, is here once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from infermax_gym.envs.draws import Streams, streams_of_lanes
from infermax_gym.envs.guards import Turnstile, check_open, check_state, whole_actions
from infermax_gym.envs.limits import with_limit
from infermax_gym.envs.rendering import RENDER_FPS
from infermax_gym.envs.rewards import NUM_COMPONENTS, Component, paid_all, reward_of
from infermax_gym.envs.status import HANDOVER, LOG_FULL, TERMINATED, TRUNCATED

Options = Mapping[str, Any]


def chosen_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """An autoreset mode as it was typed.

    Raises:
        ValueError: there is no such mode.
    """
    for known in AutoresetMode:
        if mode in (known, known.name, known.value):
            return known
    raise ValueError(f"autoreset_mode must be one of {', '.join(known.name for known in AutoresetMode)}, got {mode!r}")


class NativeVectorEnv(VectorEnv[Any, Any, Any]):
    """Lanes of one environment in one process; see the classes that fill it in.

    Args:
        num_envs: lanes.
        config: of the episodes.
        observation_space: of a lane.
        action_space: of a lane; actions of a Discrete one have masks.
        interface: what states must agree with.
        copy: return copies of observations, masks and components; without, they are views that the next step
            overwrites.
        metrics: put the full metrics of finished episodes into `final_info`.
        autoreset_mode: SAME_STEP, NEXT_STEP or DISABLED.
        max_episode_steps: most decisions of an episode, if the configuration says no fewer.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        config: Any,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        interface: tuple[Any, ...],
        *,
        copy: bool,
        metrics: bool,
        autoreset_mode: AutoresetMode | str,
        max_episode_steps: int | None,
        render_mode: str | None,
    ) -> None:
        if isinstance(num_envs, bool) or not isinstance(num_envs, int | np.integer) or num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs!r}")
        if render_mode is not None:
            raise ValueError("a vector environment does not render; use the scalar one")
        self.render_mode = None
        self.config = with_limit(config, max_episode_steps)
        self.num_envs = int(num_envs)
        self.copy = copy
        self.metrics = metrics
        self.interface = interface
        self.autoreset_mode = chosen_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space = action_space
        self.single_observation_space = observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.runs: list[Any] = []
        self._weights = reward_of(config).vector
        self._status = np.zeros(self.num_envs, np.int64)
        self._components = np.zeros((self.num_envs, NUM_COMPONENTS))
        self._masked = isinstance(action_space, spaces.Discrete)
        num_actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else 0
        self._mask = np.zeros((self.num_envs, num_actions), np.int8)
        self._ended = np.zeros(self.num_envs, bool)
        self._some_ended = False  # or one may
        self._streams: list[Streams] = []
        self._turnstile = Turnstile()

    # What an environment says of its lanes.

    @property
    @abstractmethod
    def _clock_s(self) -> NDArray[np.float64]:
        """(n,) the clocks."""

    @abstractmethod
    def _draw(self, streams: Streams, options: Options | None) -> Any:
        """A fresh run."""

    @abstractmethod
    def _install(self, i: int, run: Any) -> None:
        """Put a run into lane i; its records move into the shared arrays."""

    @abstractmethod
    def _start(self, i: int) -> None:
        """Bring a fresh run to its first decision."""

    @abstractmethod
    def _settle(self, i: int) -> float:
        """Empty lane i's log, serve the rest after a limit, and refresh its buffers; what a handover is charged."""

    def _checked(self, actions: Any) -> NDArray[Any]:
        """Actions of all lanes in their one form; ValueError where they are none."""
        return whole_actions(actions, self.num_envs)

    @abstractmethod
    def _act(self, actions: NDArray[Any]) -> bool:
        """One action in every lane; whether all of them go on."""

    def _paid(self) -> NDArray[np.float64]:
        """(n,) the rewards of the step, fresh."""
        return paid_all(self._components, self._weights)

    @abstractmethod
    def _observe(self, lanes: Any) -> Any:
        """Views of the observations of some lanes, as an index of arrays."""

    @abstractmethod
    def _facts(self) -> dict[str, NDArray[Any]]:
        """(n,) each: what the scalar environment's info says besides times and mask."""

    @abstractmethod
    def _metrics_of(self, i: int) -> dict[str, Any]:
        """The metrics of lane i's episode."""

    @abstractmethod
    def _state(self, i: int) -> Any:
        """A copy of lane i."""

    # What callers meet.

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Options | Sequence[Options | None] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every lane.

        Args:
            seed: lane i gets seed + i, or the i-th of a sequence; without one the streams go on.
            options: settings of the next episodes, for all lanes or one mapping per lane. One mapping may hold
                `reset_mask`, (n,) bool: only those lanes begin anew.
        """
        check_open(self.closed)
        with self._turnstile:
            lanes, each = self._lanes_to_reset(options)
            fresh = streams_of_lanes(self._streams, seed, self.num_envs)
            self._streams = [fresh[i] if i in lanes else old for i, old in enumerate(self._streams or fresh)]
            runs = {i: self._draw(self._streams[i], each[i]) for i in lanes}
            self.runs = self.runs or [None] * self.num_envs
            for i, run in runs.items():
                self._put(i, run)
            return self._observation(), self._info()

    def _lanes_to_reset(self, options: Any) -> tuple[list[int], list[Options | None]]:
        everybody = list(range(self.num_envs))
        if options is not None and not isinstance(options, Mapping):
            if isinstance(options, str) or not isinstance(options, Sequence) or len(options) != self.num_envs:
                raise ValueError(f"options are one mapping, or one for each of {self.num_envs} lanes, got {options!r}")
            return everybody, list(options)
        given = dict(options or {})
        mask = given.pop("reset_mask", None)
        each: list[Options | None] = [given or None] * self.num_envs
        if mask is None:
            return everybody, each
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(f"reset_mask must be ({self.num_envs},) bool with at least one lane, got {mask!r}")
        if not self.runs and not mask.all():
            raise ValueError("the first reset must be of all lanes")
        return np.flatnonzero(mask).tolist(), each

    def _put(self, i: int, run: Any) -> None:
        """Begin a fresh run in lane i."""
        self._ended[i] = False
        self._install(i, run)
        self._start(i)
        self._settle(i)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One action in every lane."""
        check_open(self.closed)
        chosen = self._checked(actions) if self.runs else np.empty(0)
        with self._turnstile:
            self._check_begun()
            return self._step(chosen)

    def _check_begun(self) -> None:
        if not self.runs:
            raise gym.error.ResetNeeded("call reset() first")

    def _step(
        self, chosen: NDArray[Any]
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        over = self._ended.copy()
        if self._some_ended and over.any() and self.autoreset_mode == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                f"lanes {np.flatnonzero(over).tolist()} have ended; reset them with options={{'reset_mask': mask}}"
            )
        if self._act(chosen) and not self._some_ended:
            nobody = np.zeros((2, self.num_envs), bool)
            return self._observation(), self._paid(), nobody[0], nobody[1], self._info()
        waiting = np.flatnonzero((self._status == LOG_FULL) | (self._status == HANDOVER)).tolist()
        charged = {i: self._settle(i) for i in waiting}
        for i in np.flatnonzero(over):  # NEXT_STEP: this step begins the next episode
            self._put(int(i), self._draw(self._streams[i], None))
        truncated = (self._status == TRUNCATED) & ~over
        terminated = truncated | ((self._status == TERMINATED) & ~over)
        rewards = paid_all(self._components, self._weights)
        rewards[list(charged)] -= list(charged.values())
        rewards[over] = 0.0
        ended = np.flatnonzero(terminated)
        info = self._info()
        if ended.size and self.autoreset_mode == AutoresetMode.SAME_STEP:
            self._renew(ended, info)
        elif ended.size:
            self._ended[ended] = True
            info.update(self._final_metrics(ended))
        self._some_ended = bool(self._ended.any())
        return self._observation(), rewards, terminated, truncated, info

    def _renew(self, ended: NDArray[np.intp], info: dict[str, Any]) -> None:
        """Report the episodes that ended; begin others there."""
        if not self.copy:
            info["reward_components"] = self._components.copy()
        mask = np.zeros(self.num_envs, bool)
        mask[ended] = True
        final_obs = np.empty(self.num_envs, object)
        final_info: dict[str, Any] = {}
        for name in list(info):
            final_info[name] = np.array(info[name], copy=True)
            final_info[f"_{name}"] = mask.copy()
        final_info.update(self._final_metrics(ended))
        for i in ended.tolist():
            final_obs[i] = self._copied(self._observe(i))
            self._put(i, self._draw(self._streams[i], None))
        info.update(final_obs=final_obs, _final_obs=mask, final_info=final_info, _final_info=mask.copy())
        if self._masked:
            info["action_mask"] = self._mask.copy() if self.copy else self._mask

    def _final_metrics(self, ended: NDArray[np.intp]) -> dict[str, Any]:
        if not self.metrics:
            return {}
        metrics, mask = np.empty(self.num_envs, object), np.zeros(self.num_envs, bool)
        mask[ended] = True
        for i in ended.tolist():
            metrics[i] = self._metrics_of(i)
        return {"metrics": metrics, "_metrics": mask}

    def get_state(self) -> list[Any]:
        """A copy of every lane; `set_state` goes on from it."""
        with self._turnstile:
            self._check_begun()
            return [self._state(i) for i in range(self.num_envs)]

    def streams(self) -> list[Streams]:
        """Copies of the lanes' random streams as they stand: the next episodes are drawn from them."""
        return [streams.copy() for streams in self._streams]

    def _go_on_from(self, states: Any, kind: type) -> Any:
        check_open(self.closed)
        if not isinstance(states, Sequence) or len(states) != self.num_envs:
            count = len(states) if isinstance(states, Sequence) else 0
            raise ValueError(f"need one state for each of {self.num_envs} lanes, got {count}")
        for state in states:
            check_state(state, kind, self.interface)
        with self._turnstile:
            return self._resume(states)

    def _resume(self, states: Sequence[Any]) -> Any:
        self._streams = [state.streams.copy() for state in states]
        self.runs = [None] * self.num_envs
        for i, state in enumerate(states):
            self._install(i, state.run.copy())
            self._settle(i)
        self._ended = (self._status == TERMINATED) | (self._status == TRUNCATED)
        self._some_ended = bool(self._ended.any())
        return self._observation()

    def __getstate__(self) -> dict[str, Any]:
        # Lanes are copied while no thread steps them, so that a duplicate is never half of a step.
        with self._turnstile:
            return {**self.__dict__, "runs": [run.copy() for run in self.runs]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A duplicate's runs have records of their own: put them into its shared arrays.
        self.__dict__.update(state)
        for i, run in enumerate(self.runs):
            self._install(i, run)

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the episodes."""
        with self._turnstile:
            self.runs = []

    def _copied(self, observation: Any) -> Any:
        if isinstance(observation, dict):
            return {name: value.copy() for name, value in observation.items()}
        return observation.copy()

    def _observation(self) -> Any:
        observation = self._observe(slice(None))
        return self._copied(observation) if self.copy else observation

    def _info(self) -> dict[str, Any]:
        shown: dict[str, NDArray[Any]] = {"action_mask": self._mask} if self._masked else {}
        shown["reward_components"] = self._components
        if self.copy:
            shown = {name: value.copy() for name, value in shown.items()}
        times = {"dt_s": self._components[:, Component.ELAPSED_S].copy(), "clock_s": self._clock_s.copy()}
        return {**times, **shown, **self._facts()}
