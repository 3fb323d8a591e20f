"""`InferMaxKnobs-v0`: set the knobs of the scheduling algorithm for the next control interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from infermax_gym.engine.session import install_policy, run_to
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.knobs.config import INTERVAL_S, config_of, interval_of
from infermax_gym.envs.knobs.layout import KNOB_NAMES, policy_of
from infermax_gym.envs.knobs.step import look, start
from infermax_gym.envs.rewards import NUM_COMPONENTS, Component, reward_of
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import RENDER_FPS, State, episode_metrics
from infermax_gym.envs.scheduling.episode import Run, begin_run, draw_episode
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES


class InferMaxKnobsEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Tune the scheduling algorithm while it runs: the easy rung, for PPO and SAC.

    Action: Box (11,) float32 in [-1, 1]: the queue key's weights, admission headroom, cap on running requests, share of
        prefills and victim key of the next control interval (`infermax_gym.envs.knobs.layout`).
    Observation: Box (20,) float32 in [-1, 1]: the engine as a whole (`ENGINE_FEATURES` of
        `infermax_gym.envs.scheduling.layout`).
    Reward: a `Reward`, as in `InferMax-v0`; `info["dt_s"]` says how long the interval really was (it ends with an
        iteration, and an idle engine jumps to the next arrival).
    Episode end: as in `InferMax-v0`; the last info holds `metrics`.

    Args:
        config: where episodes come from; slots, levels, `decide` and `base` play no part.
        interval_s: control interval in simulated seconds.
        render_mode: "ansi" or None.
        **settings: settings of `EnvConfig` to change.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(
        self,
        config: EnvConfig | None = None,
        *,
        interval_s: float = INTERVAL_S,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be ansi or None, got {render_mode!r}")
        self.config = config_of(config, settings)
        self.interval_s = interval_of(interval_s)
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (len(KNOB_NAMES),), np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, (len(ENGINE_FEATURES),), np.float32)
        self._streams: Streams | None = None
        self._run: Run | None = None
        self._reward_components = np.zeros(NUM_COMPONENTS)
        self._weights = reward_of(self.config).vector

    @property
    def run(self) -> Run:
        """The episode under way.

        Raises:
            gymnasium.error.ResetNeeded: there is none.
        """
        if self._run is None:
            raise gym.error.ResetNeeded("call reset() first")
        return self._run

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw a new episode and go to its first arrival; arguments as in `InferMaxEnv.reset`."""
        super().reset(seed=seed)
        if seed is not None or self._streams is None:
            self._streams = Streams(int(self.np_random.integers(2**62)) if seed is None else seed)
        self._run = begin_run(self.config, draw_episode(self.config, self._streams, options))
        self._run.lane.record["level"] = len(self.config.level_shares) - 1
        start(self._run.engine.record)
        return self._look(), self._info()

    def step(self, action: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run the engine for one control interval under the action's knobs."""
        run_now = self.run
        core = run_now.engine.record
        install_policy(run_now.engine, policy_of(action, self.config.max_num_seqs))
        until_s = min(float(core["clock_s"][0]) + self.interval_s, float(run_now.lane.record["time_limit_s"][0]))
        terminated = not run_to(run_now.engine, run_now.recorder, until_s)
        run_now.lane.record["num_decisions"] += 1
        observation = self._look()
        limit = self.config.max_decisions
        late = core["clock_s"][0] >= run_now.lane.record["time_limit_s"][0]
        truncated = not terminated and bool(
            late or (limit is not None and run_now.lane.record["num_decisions"][0] >= limit)
        )
        info = self._info()
        if terminated or truncated:
            info["metrics"] = episode_metrics(run_now)
        return observation, float(self._reward_components.dot(self._weights)), terminated, truncated, info

    def _look(self) -> NDArray[np.float32]:
        observation = np.zeros(len(ENGINE_FEATURES), np.float32)
        look(self.run.engine.record, self.run.lane.record, self._reward_components, observation)
        return np.clip(observation, -1.0, 1.0)

    def _info(self) -> dict[str, Any]:
        return {
            "dt_s": float(self._reward_components[Component.ELAPSED_S]),
            "clock_s": float(self.run.engine.record["clock_s"][0]),
        }

    def get_state(self) -> State:
        """A copy of everything; `set_state` goes on from it."""
        run = self.run.copy()
        assert self._streams is not None
        return State(run, self._streams.copy())

    def set_state(self, state: State) -> NDArray[np.float32]:
        """Go on from a state; returns the observation there."""
        self._run = state.run.copy()
        self._streams = state.streams.copy()
        return self._look()

    def render(self) -> Any:
        """The engine now, as a few lines of text."""
        from infermax_gym.envs.scheduling.render import draw_ansi

        return draw_ansi(self.run) if self.render_mode == "ansi" else None
