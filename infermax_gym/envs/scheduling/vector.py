"""`InferMax-v0` as a native vector environment: every lane steps in one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from infermax_gym.engine.layout import CORE
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.native import NativeVectorEnv, Options
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import State, episode_metrics, interface_of
from infermax_gym.envs.scheduling.episode import Run, begin_run, charge_of, draw_episode, settle
from infermax_gym.envs.scheduling.lane import LANE
from infermax_gym.envs.scheduling.layout import FACTS, ActionLayout
from infermax_gym.envs.scheduling.spaces import Buffers, flat_space, observation_space
from infermax_gym.envs.scheduling.step import finish_one, start, step_all
from infermax_gym.envs.threads import Crew


class InferMaxVectorEnv(NativeVectorEnv):
    """Many lanes of `InferMaxEnv`; a lane gives bit for bit what the scalar environment gives.

    Lane i is seeded with seed + i (as Gymnasium's own vector environments do). Autoreset mode SAME_STEP, unless another
    is chosen: when a lane's episode ends, the observation returned is already the first of its next episode; the last
    one of the old is in `info["final_obs"]`, its info, with `metrics`, in `info["final_info"]`. NEXT_STEP and DISABLED
    are Gymnasium's.

    Every step's info has what the scalar environment's has, as arrays, of an ended episode too, and
    `reward_components` (n, NUM_COMPONENTS) float64, see `infermax_gym.envs.rewards.Component`.

    Args:
        num_envs: lanes.
        config: where episodes come from; `EnvConfig()` by default.
        flat: observe one vector per lane instead of the Dict.
        copy: return copies of observations, masks and components; without, they are views that the next step
            overwrites.
        metrics: put the full metrics of finished episodes into `final_info` (about half a millisecond each).
        autoreset_mode: SAME_STEP, NEXT_STEP or DISABLED, the mode or its name.
        num_threads: threads that share the lanes; results are the same. Measure first: few lanes lose by it.
        max_episode_steps: another name of `max_decisions`; the tighter one holds.
        **settings: settings of `EnvConfig` to change.
    """

    def __init__(
        self,
        num_envs: int = 1,
        config: EnvConfig | None = None,
        *,
        flat: bool = False,
        copy: bool = True,
        metrics: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        num_threads: int = 1,
        **settings: Any,
    ) -> None:
        chosen = (config or EnvConfig()).changed(**settings)
        self.layout: ActionLayout = chosen.layout
        self.flat = flat
        super().__init__(
            num_envs,
            chosen,
            flat_space(chosen) if flat else observation_space(chosen),
            spaces.Discrete(self.layout.num_actions),
            interface_of(chosen),
            copy=copy,
            metrics=metrics,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
        )
        self._buffers = Buffers(chosen, self.num_envs)
        self._rewards, self._clocks = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self._counts = np.zeros((len(FACTS), self.num_envs), np.int64)
        self._crew = Crew(num_threads, self.num_envs)
        self._components, self._mask = self._buffers.reward_components, self._buffers.mask
        self._engines = np.zeros(self.num_envs, CORE)
        self._lanes = np.zeros(self.num_envs, LANE)

    @property
    def _clock_s(self) -> NDArray[np.float64]:
        return self._clocks

    @property
    def clock_s(self) -> NDArray[np.float64]:
        """(n,) simulated seconds since the beginning of each lane's episode."""
        return np.asarray(self._engines["clock_s"])

    def _draw(self, streams: Streams, options: Options | None) -> Run:
        return begin_run(self.config, draw_episode(self.config, streams, options))

    def _install(self, i: int, run: Run) -> None:
        self._engines[i] = run.engine.record[0]
        self._lanes[i] = run.lane.record[0]
        run.engine.record = self._engines[i : i + 1]
        run.lane.record = self._lanes[i : i + 1]
        self.runs[i] = run

    def _start(self, i: int) -> None:
        start(self._engines[i], self._lanes[i])

    def _settle(self, i: int) -> float:
        charged = charge_of(self.runs[i], self._weights) if settle(self.runs[i]) else 0.0
        b = self._buffers
        results = self._status, b.reward_components, self._clocks, self._counts, b.flat, b.mask
        finish_one(self._engines, self._lanes, i, *results)
        return charged

    def _act(self, actions: NDArray[np.int64]) -> bool:
        b = self._buffers
        given = self._engines, self._lanes, actions, self._weights
        results = self._status, b.reward_components, self._rewards, self._clocks, self._counts, b.flat, b.mask
        return self._crew.all_of(lambda first, last: step_all(*given, first, last, *results))

    def _paid(self) -> NDArray[np.float64]:
        return self._rewards.copy()

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the episodes and the threads."""
        super().close_extras(**kwargs)
        self._crew.close()

    def _observe(self, lanes: Any) -> Any:
        b = self._buffers
        if self.flat:
            return b.flat[lanes]
        return {
            "waiting": b.waiting[lanes],
            "running": b.running[lanes],
            "engine": b.engine[lanes],
            "action_mask": b.mask[lanes],
        }

    def action_masks(self) -> NDArray[np.bool_]:
        """(n, A) bool, where actions are legal."""
        return self._mask.astype(bool)

    def _facts(self) -> dict[str, NDArray[Any]]:
        return dict(zip(FACTS, self._counts.copy(), strict=True))

    def _metrics_of(self, i: int) -> dict[str, Any]:
        return episode_metrics(self.runs[i])

    def _state(self, i: int) -> State:
        return State(self.runs[i].copy(), self._streams[i].copy(), self.interface)

    def set_state(self, states: Sequence[State]) -> Any:
        """Go on from the states of as many lanes; returns the observation there. The states can be used again.

        Raises:
            ValueError: another number of states, or states of another layout.
        """
        return self._go_on_from(states, State)
