"""`InferMaxKnobs-v0`: set the knobs of the scheduling algorithm for the next control interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from infermax_gym.engine import Policy
from infermax_gym.engine.session import install_policy, run_to
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.guards import Turnstile, check_state
from infermax_gym.envs.knobs.config import INTERVAL_S, config_of, interval_of
from infermax_gym.envs.knobs.layout import KNOB_NAMES, policy_of
from infermax_gym.envs.knobs.step import look, start
from infermax_gym.envs.rendering import RENDER_FPS, RENDER_MODES, checked_mode, rendered
from infermax_gym.envs.rewards import NUM_COMPONENTS, Component, reward_of
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import State, episode_metrics, interface_of
from infermax_gym.envs.scheduling.episode import (
    Run,
    begin_run,
    charge_of,
    draw_episode,
    finished_by,
    hand_over,
    moment_of,
)
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES


class InferMaxKnobsEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Tune the scheduling algorithm while it runs: the easy rung, for PPO and SAC.

    Action: Box (11,) float32 in [-1, 1]: the queue key's weights, admission headroom, cap on running requests, share of
        prefills and victim key of the next control interval (`infermax_gym.envs.knobs.layout`).
    Observation: Box (20,) float32 in [-1, 1]: the engine as a whole (`ENGINE_FEATURES` of
        `infermax_gym.envs.scheduling.layout`).
    Reward: a `Reward`, as in `InferMax-v0`; `info["dt_s"]` says how long the interval really was (it ends with an
        iteration, and an idle engine jumps to the next arrival).
    Episode end: as in `InferMax-v0`, the bill after a limit included; the last info holds `metrics`.

    Args:
        config: where episodes come from; slots, levels, `decide` and `base` play no part.
        interval_s: control interval in simulated seconds.
        metrics: put `metrics` into the last info (about 15 ms); without, infos always have the same entries.
        render_mode: "human", "ansi", "rgb_array" or None.
        **settings: settings of `EnvConfig` to change.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(
        self,
        config: EnvConfig | None = None,
        *,
        interval_s: float = INTERVAL_S,
        metrics: bool = True,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.config = config_of(config, settings)
        self.interval_s = interval_of(interval_s)
        self.metrics = metrics
        self.render_mode = checked_mode(render_mode)
        self.action_space = spaces.Box(-1.0, 1.0, (len(KNOB_NAMES),), np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, (len(ENGINE_FEATURES),), np.float32)
        self._streams: Streams | None = None
        self._run: Run | None = None
        self._reward_components = np.zeros(NUM_COMPONENTS)
        self._weights = reward_of(self.config).vector
        self._turnstile = Turnstile()
        self._history: list[tuple[float, ...]] = []

    @property
    def interface(self) -> tuple[Any, ...]:
        """What a state must agree with to be set here."""
        return interface_of(self.config, "InferMaxKnobs-v0")

    def close(self) -> None:
        """Let go of the episode; another can be begun."""
        self._run = None

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
        self._history.clear()
        if self.render_mode == "human":
            self.render()
        return self._look(), self._info()

    def step(self, action: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run the engine for one control interval under the action's knobs."""
        policy = policy_of(action, self.config.max_num_seqs)
        with self._turnstile:
            return self._step(policy)

    def _step(self, policy: Policy) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        run = self.run
        lane, core = run.lane.record, run.engine.record
        terminated = truncated = bool(lane["handed_over"][0])
        charged = 0.0
        if not terminated:
            install_policy(run.engine, policy)
            terminated = self._run_interval(run)
            lane["num_decisions"] += 1
            late = core["clock_s"][0] >= lane["time_limit_s"][0]
            truncated = bool(not terminated and (late or lane["num_decisions"][0] >= lane["max_decisions"][0]))
            if truncated:
                hand_over(run)
                charged, terminated = charge_of(run, self._weights), True
        observation = self._look()
        if self.render_mode is not None:
            self._history.append(moment_of(run))
        if self.render_mode == "human":
            self.render()
        info = self._info()
        if terminated and self.metrics:
            info["metrics"] = episode_metrics(run)
        reward = float(self._reward_components.dot(self._weights)) - charged
        return observation, reward, terminated, truncated, info

    def _run_interval(self, run: Run) -> bool:
        """Run to the end of a control interval; whether nothing is left to do."""
        core = run.engine.record
        until_s = min(float(core["clock_s"][0]) + self.interval_s, float(run.lane.record["time_limit_s"][0]))
        return not run_to(run.engine, run.recorder, until_s)

    def _look(self) -> NDArray[np.float32]:
        observation = np.zeros(len(ENGINE_FEATURES), np.float32)
        look(self.run.engine.record, self.run.lane.record, self._reward_components, observation)
        return np.clip(observation, -1.0, 1.0)

    def _info(self) -> dict[str, Any]:
        by_agent, by_fallback = finished_by(self.run)
        return {
            "dt_s": float(self._reward_components[Component.ELAPSED_S]),
            "clock_s": float(self.run.engine.record["clock_s"][0]),
            "finished_by_agent": by_agent,
            "finished_by_fallback": by_fallback,
        }

    def get_state(self) -> State:
        """A copy of everything; `set_state` goes on from it."""
        run = self.run.copy()
        assert self._streams is not None
        return State(run, self._streams.copy(), self.interface)

    def set_state(self, state: State) -> NDArray[np.float32]:
        """Go on from a state; returns the observation there.

        Raises:
            ValueError: it is no state of such an environment.
        """
        check_state(state, State, self.interface)
        self._run = state.run.copy()
        self._history.clear()
        self._streams = state.streams.copy()
        return self._look()

    def render(self) -> Any:
        """The engine now: a few lines of text, printed or returned, or a (640, 900, 3) uint8 picture of the episode."""
        from infermax_gym.envs.scheduling.render import draw_ansi, draw_picture

        run = self.run
        return rendered(self.render_mode, lambda: draw_ansi(run), lambda: draw_picture(run, self._history))
