"""What the scalar environments share: an episode under way, begun, stepped, looked at, saved and drawn.

An environment of its own says how an episode is begun, how an action is carried out and what is seen of it
(`ScalarEnv`); seeds, endings, rewards, guards, states and copies are here once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from infermax_gym.envs.draws import Streams
from infermax_gym.envs.guards import Turnstile, check_state
from infermax_gym.envs.limits import limit_of_make, with_limit
from infermax_gym.envs.rendering import RENDER_FPS, RENDER_MODES, checked_mode
from infermax_gym.envs.rewards import NUM_COMPONENTS, paid, reward_of
from infermax_gym.envs.status import TERMINATED, TRUNCATED


class ScalarEnv(gym.Env[Any, Any]):
    """One episode at a time; see the classes that fill it in.

    Args:
        config: of the episodes.
        state_kind: class of the states, built of a run, the streams and the interface.
        metrics: put the full metrics of a finished episode into its last info.
        render_mode: "human", "ansi", "rgb_array" or None.
        max_episode_steps: most decisions of an episode; None: what `gymnasium.make` was given, if it builds this one.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(
        self,
        config: Any,
        state_kind: type[Any],
        *,
        metrics: bool,
        render_mode: str | None,
        max_episode_steps: int | None,
    ) -> None:
        self.config = with_limit(config, limit_of_make(self) if max_episode_steps is None else max_episode_steps)
        self.metrics = metrics
        self.render_mode = checked_mode(render_mode)
        self._components = np.zeros((1, NUM_COMPONENTS))
        self._weights = reward_of(self.config).vector
        self._state_kind = state_kind
        self._streams: Streams | None = None
        self._run: Any = None
        self._turnstile = Turnstile()

    # What an environment says of its episode.

    @property
    @abstractmethod
    def interface(self) -> tuple[Any, ...]:
        """What a state must agree with to be set here."""

    @abstractmethod
    def _checked(self, action: Any) -> Any:
        """An action in its one form; ValueError where it is none."""

    @abstractmethod
    def _begin(self, streams: Streams, options: Mapping[str, Any] | None) -> Any:
        """Draw an episode and bring it to its first decision."""

    @abstractmethod
    def _act(self, run: Any, action: Any) -> tuple[int, float]:
        """Carry out an action, refresh what is seen; the lane's status, and what a handover is charged."""

    @abstractmethod
    def _look(self, run: Any) -> None:
        """Refresh what is seen of an episode that has just been begun or set."""

    @abstractmethod
    def _observation(self) -> Any:
        """A copy of the observation now."""

    @abstractmethod
    def _info(self) -> dict[str, Any]:
        """The info of a step, less metrics."""

    @abstractmethod
    def _metrics(self, run: Any) -> dict[str, Any]:
        """The metrics of an episode that is over."""

    def _show(self, run: Any, begun: bool) -> None:
        """After a reset or a step where there is a render mode."""
        if self.render_mode == "human":
            self.render()

    # What callers meet.

    @property
    def run(self) -> Any:
        """The episode under way.

        Raises:
            gymnasium.error.ResetNeeded: there is none.
        """
        if self._run is None:
            raise gym.error.ResetNeeded("call reset() first")
        return self._run

    def close(self) -> None:
        """Let go of the episode; another can be begun."""
        with self._turnstile:
            self._run = None

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a new episode and go to its first decision.

        Args:
            seed: restarts the random streams; without one they go on.
            options: settings of this episode, any of `EPISODE_SETTINGS` beside the environment's configuration.
        """
        with self._turnstile:
            super().reset(seed=seed)
            if seed is not None or self._streams is None:
                self._streams = Streams(int(self.np_random.integers(2**62)) if seed is None else seed)
            self._run = self._begin(self._streams, options)
            self._look(self._run)
            if self.render_mode is not None:
                self._show(self._run, True)
            return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out one action and go to the next decision."""
        chosen = self._checked(action)
        with self._turnstile:
            run = self.run
            status, charged = self._act(run, chosen)
            truncated = bool(status == TRUNCATED)
            terminated = truncated or bool(status == TERMINATED)
            if self.render_mode is not None:
                self._show(run, False)
            info = self._info()
            if terminated and self.metrics:
                info["metrics"] = self._metrics(run)
            reward = paid(self._components[0], self._weights) - charged
            return self._observation(), reward, terminated, truncated, info

    def get_state(self) -> Any:
        """A copy of everything: `set_state` on this or another environment of the same interface goes on from it."""
        with self._turnstile:
            run = self.run.copy()
            assert self._streams is not None
            return self._state_kind(run, self._streams.copy(), self.interface)

    def set_state(self, state: Any) -> Any:
        """Go on from a state; returns the observation there. The state can be used again.

        Raises:
            ValueError: it is no state of an environment of this interface.
        """
        check_state(state, self._state_kind, self.interface)
        with self._turnstile:
            self._run = state.run.copy()
            self._streams = state.streams.copy()
            self._look(self._run)
            return self._observation()

    def __getstate__(self) -> dict[str, Any]:
        # The episode is copied while no thread steps it, so that a duplicate is never half of a step.
        with self._turnstile:
            run = None if self._run is None else self._run.copy()
            return {**self.__dict__, "_run": run}
