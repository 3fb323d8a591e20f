"""`InferMaxRouter-v0` as a native vector environment: every lane steps in one compiled call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from infermax_gym.cluster.layout import FLEET
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.native import NativeVectorEnv, Options
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.env import (
    RouterState,
    flat_size,
    flat_space,
    interface_of,
    observation_space,
    parts_of,
)
from infermax_gym.envs.routing.episode import RoutingRun, begin_routing
from infermax_gym.envs.routing.rest import charge_of, routed_by, settle
from infermax_gym.envs.routing.step import LANE, finish_all, start_all, step_all


class InferMaxRouterVectorEnv(NativeVectorEnv):
    """Many lanes of `InferMaxRouterEnv`; a lane gives bit for bit what the scalar environment gives.

    Lane i is seeded with seed + i. Autoreset mode SAME_STEP, unless another is chosen: when a lane's episode ends, the
    observation returned is already the first of its next episode; the last one of the old is in `info["final_obs"]`,
    its info, with `metrics`, in `info["final_info"]`. NEXT_STEP and DISABLED are Gymnasium's.

    Every step's info has what the scalar environment's has, as arrays, of an ended episode too, and
    `reward_components` (n, NUM_COMPONENTS) float64, see `infermax_gym.envs.rewards.Component`.

    Args:
        num_envs: lanes.
        config: where episodes come from; `RouterEnvConfig()` by default.
        flat: observe one vector per lane instead of the Dict.
        copy: return copies of observations, masks and components; without, they are views that the next step
            overwrites.
        metrics: put the full metrics of finished episodes into `final_info` (about a millisecond each).
        autoreset_mode: SAME_STEP, NEXT_STEP or DISABLED, the mode or its name.
        max_episode_steps: another name of `max_decisions`; the tighter one holds.
        **settings: settings of `RouterEnvConfig` to change.
    """

    def __init__(
        self,
        num_envs: int = 1,
        config: RouterEnvConfig | None = None,
        *,
        flat: bool = False,
        copy: bool = True,
        metrics: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        chosen = (config or RouterEnvConfig()).changed(**settings)
        self.flat = flat
        super().__init__(
            num_envs,
            chosen,
            flat_space(chosen) if flat else observation_space(chosen),
            spaces.Discrete(chosen.num_replicas),
            interface_of(chosen),
            copy=copy,
            metrics=metrics,
            autoreset_mode=autoreset_mode,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
        )
        self._fleets = np.zeros(self.num_envs, FLEET)
        self._lanes = np.zeros(self.num_envs, LANE)
        self._flat = np.zeros((self.num_envs, flat_size(chosen.num_replicas)), np.float32)

    @property
    def _clock_s(self) -> NDArray[np.float64]:
        return np.asarray(self._lanes["clock_s"])

    def _draw(self, streams: Streams, options: Options | None) -> RoutingRun:
        return begin_routing(self.config, streams, options)

    def _install(self, i: int, run: RoutingRun) -> None:
        self._fleets[i] = run.fleet.state.record[0]
        self._lanes[i] = run.lane[0]
        run.fleet.state.record = self._fleets[i : i + 1]
        run.lane = self._lanes[i : i + 1]
        self.runs[i] = run

    def _start(self, i: int) -> None:
        start_all(self._fleets[i : i + 1], self._lanes[i : i + 1])

    def _settle(self, i: int) -> float:
        charged = charge_of(self.runs[i], self._weights) if settle(self.runs[i]) else 0.0
        here = slice(i, i + 1)
        finish_all(
            self._fleets[here],
            self._lanes[here],
            self._status[here],
            self._components[here],
            self._flat[here],
            self._mask[here],
        )
        return charged

    def _act(self, actions: NDArray[np.int64]) -> bool:
        step_all(self._fleets, self._lanes, actions, self._status, self._components, self._flat, self._mask)
        return not self._status.any()

    def _observe(self, lanes: Any) -> Any:
        flat = self._flat[lanes]
        return flat if self.flat else parts_of(flat, self._mask[lanes])

    def action_masks(self) -> NDArray[np.bool_]:
        """(n, A) bool, where actions are legal."""
        return self._mask.astype(bool)

    def _facts(self) -> dict[str, NDArray[Any]]:
        by_agent, by_fallback = np.array([routed_by(run) for run in self.runs], np.int64).reshape(-1, 2).T
        return {
            "num_illegal": self._lanes["num_illegal"].copy(),
            "routed_by_agent": by_agent,
            "routed_by_fallback": by_fallback,
        }

    def _metrics_of(self, i: int) -> dict[str, Any]:
        return self.runs[i].metrics()  # type: ignore[no-any-return]

    def _state(self, i: int) -> RouterState:
        return RouterState(self.runs[i].copy(), self._streams[i].copy(), self.interface)

    def set_state(self, states: Sequence[RouterState]) -> Any:
        """Go on from the states of as many lanes; returns the observation there. The states can be used again.

        Raises:
            ValueError: another number of states, or states of another number of replicas.
        """
        return self._go_on_from(states, RouterState)
