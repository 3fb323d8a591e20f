"""`InferMaxKnobs-v0` as a native vector environment: the lanes of one process, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from infermax_gym.envs.draws import Streams
from infermax_gym.envs.knobs.config import INTERVAL_S, config_of, interval_of
from infermax_gym.envs.knobs.episode import begin, observe_run, run_interval, serve_the_rest, status_of
from infermax_gym.envs.knobs.layout import KNOB_NAMES, checked, policy_of
from infermax_gym.envs.knobs.spaces import action_space, observation_space
from infermax_gym.envs.native import NativeVectorEnv, Options
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import State, episode_metrics, interface_of
from infermax_gym.envs.scheduling.episode import Run, finished_by
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES
from infermax_gym.envs.status import HANDOVER, TRUNCATED


class InferMaxKnobsVectorEnv(NativeVectorEnv):
    """Many lanes of `InferMaxKnobsEnv`; a lane gives bit for bit what the scalar environment gives.

    Seeds, autoreset modes, infos and states as in `InferMaxVectorEnv`; there are no masks.

    Args:
        num_envs: lanes.
        config: where episodes come from; `EnvConfig()` by default.
        interval_s: control interval in simulated seconds.
        copy: return copies of observations and components; without, they are views that the next step overwrites.
        metrics: put the full metrics of finished episodes into `final_info` (about half a millisecond each).
        autoreset_mode: SAME_STEP, NEXT_STEP or DISABLED, the mode or its name.
        max_episode_steps: another name of `max_decisions`; the tighter one holds.
        **settings: settings of `EnvConfig` to change.
    """

    def __init__(
        self,
        num_envs: int = 1,
        config: EnvConfig | None = None,
        *,
        interval_s: float = INTERVAL_S,
        copy: bool = True,
        metrics: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        chosen = config_of(config, settings)
        self.interval_s = interval_of(interval_s)
        super().__init__(
            num_envs,
            chosen,
            observation_space(),
            action_space(),
            interface_of(chosen, "InferMaxKnobs-v0"),
            copy=copy,
            metrics=metrics,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
        )
        self._seen = np.zeros((self.num_envs, len(ENGINE_FEATURES)), np.float32)

    @property
    def _clock_s(self) -> NDArray[np.float64]:
        return np.array([run.engine.clock_s for run in self.runs])

    def _draw(self, streams: Streams, options: Options | None) -> Run:
        return begin(self.config, streams, options)

    def _install(self, i: int, run: Run) -> None:
        self.runs[i] = run

    def _start(self, i: int) -> None:
        """A run that is drawn stands at its first arrival already."""

    def _settle(self, i: int) -> float:
        run, charged = self.runs[i], 0.0
        if self._status[i] == HANDOVER and status_of(run) != TRUNCATED:
            charged = serve_the_rest(run, self._weights)
        self._status[i] = status_of(run)
        observe_run(run, self._components[i], self._seen[i])
        return charged

    def _checked(self, actions: Any) -> NDArray[np.float64]:
        try:
            given = np.asarray(actions, np.float64)
        except (TypeError, ValueError):
            given = np.empty(0)
        shape = (self.num_envs, len(KNOB_NAMES))
        if given.shape != shape:
            raise ValueError(f"actions must be {shape} numbers, a line of knobs for each lane, got {actions!r}")
        return np.array([checked(action) for action in given])

    def _act(self, actions: NDArray[np.float64]) -> bool:
        for i, run in enumerate(self.runs):
            policy = policy_of(actions[i], self.config.max_num_seqs)
            self._status[i] = run_interval(run, policy, self.interval_s)
            if self._status[i] != HANDOVER:
                observe_run(run, self._components[i], self._seen[i])
        return not self._status.any()

    def _observe(self, lanes: Any) -> Any:
        return self._seen[lanes]

    def _facts(self) -> dict[str, NDArray[Any]]:
        by_agent, by_fallback = np.array([finished_by(run) for run in self.runs], np.int64).reshape(-1, 2).T
        return {"finished_by_agent": by_agent, "finished_by_fallback": by_fallback}

    def _metrics_of(self, i: int) -> dict[str, Any]:
        return episode_metrics(self.runs[i])

    def _state(self, i: int) -> State:
        return State(self.runs[i].copy(), self._streams[i].copy(), self.interface)

    def set_state(self, states: Sequence[State]) -> Any:
        """Go on from the states of as many lanes; returns the observation there. The states can be used again.

        Raises:
            ValueError: another number of states, or states of another environment.
        """
        return self._go_on_from(states, State)
