"""`InferMaxKnobs-v0`: set the knobs of the scheduling algorithm for the next control interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Policy
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.knobs.config import INTERVAL_S, config_of, interval_of
from infermax_gym.envs.knobs.episode import begin, observe_run, run_interval, serve_the_rest
from infermax_gym.envs.knobs.layout import policy_of
from infermax_gym.envs.knobs.spaces import action_space, observation_space
from infermax_gym.envs.rendering import rendered
from infermax_gym.envs.rewards import Component
from infermax_gym.envs.scalar import ScalarEnv
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import State, episode_metrics, interface_of
from infermax_gym.envs.scheduling.episode import Moment, Run, finished_by, moment_of
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES
from infermax_gym.envs.status import HANDOVER, TRUNCATED


class InferMaxKnobsEnv(ScalarEnv):
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
        max_episode_steps: another name of `max_decisions`; the tighter one holds.
        **settings: settings of `EnvConfig` to change.
    """

    config: EnvConfig

    def __init__(
        self,
        config: EnvConfig | None = None,
        *,
        interval_s: float = INTERVAL_S,
        metrics: bool = True,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        chosen = config_of(config, settings)
        super().__init__(chosen, State, metrics=metrics, render_mode=render_mode, max_episode_steps=max_episode_steps)
        self.interval_s = interval_of(interval_s)
        self.action_space = action_space()
        self.observation_space = observation_space()
        self._seen = np.zeros(len(ENGINE_FEATURES), np.float32)
        self._history: list[Moment] = []

    @property
    def interface(self) -> tuple[Any, ...]:
        """What a state must agree with to be set here."""
        return interface_of(self.config, "InferMaxKnobs-v0")

    def _checked(self, action: Any) -> Policy:
        return policy_of(action, self.config.max_num_seqs)

    def _begin(self, streams: Streams, options: Mapping[str, Any] | None) -> Run:
        return begin(self.config, streams, options)

    def _act(self, run: Run, action: Policy) -> tuple[int, float]:
        status, charged = run_interval(run, action, self.interval_s), 0.0
        if status == HANDOVER:
            status, charged = TRUNCATED, serve_the_rest(run, self._weights)
        observe_run(run, self._components[0], self._seen)
        return status, charged

    def _look(self, run: Run) -> None:
        self._history.clear()
        observe_run(run, self._components[0], self._seen)

    def _observation(self) -> NDArray[np.float32]:
        return self._seen.copy()

    def _info(self) -> dict[str, Any]:
        run = self.run
        by_agent, by_fallback = finished_by(run)
        return {
            "dt_s": float(self._components[0, Component.ELAPSED_S]),
            "clock_s": run.engine.clock_s,
            "finished_by_agent": by_agent,
            "finished_by_fallback": by_fallback,
        }

    def _metrics(self, run: Run) -> dict[str, Any]:
        return episode_metrics(run)

    def _show(self, run: Run, begun: bool) -> None:
        if not begun:
            self._history.append(moment_of(run.engine))
        super()._show(run, begun)

    def render(self) -> Any:
        """The engine now: shown in the terminal, as a few lines, or as a (640, 900, 3) uint8 picture of the episode."""
        from infermax_gym.envs.scheduling.render import draw_ansi, draw_picture, draw_view

        run, past = self.run, self._history
        return rendered(
            self.render_mode,
            lambda: draw_ansi(run),
            lambda: draw_picture(run, past),
            lambda width, height: draw_view(run, past, width, height),
        )
