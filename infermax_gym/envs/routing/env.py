"""`InferMaxRouter-v0`: send the arriving request to a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from infermax_gym.envs.draws import Streams
from infermax_gym.envs.guards import whole_action
from infermax_gym.envs.rendering import rendered
from infermax_gym.envs.rewards import Component
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.episode import RoutingRun, begin_routing
from infermax_gym.envs.routing.layout import REPLICA_FEATURES, REQUEST_FEATURES
from infermax_gym.envs.routing.rest import charge_of, routed_by, settle
from infermax_gym.envs.routing.step import finish_all, start_all, step_all
from infermax_gym.envs.scalar import ScalarEnv
from infermax_gym.envs.status import HANDOVER, LOG_FULL


@dataclass
class RouterState:
    """Everything that `set_state` needs to go on from here, independent of the environment it came from."""

    run: RoutingRun
    streams: Streams
    interface: tuple[Any, ...] = ()


def flat_size(num_replicas: int) -> int:
    """Length of the flat observation."""
    return len(REQUEST_FEATURES) + num_replicas * len(REPLICA_FEATURES)


def flat_space(config: RouterEnvConfig) -> spaces.Box:
    """Box (N,): request features, then replica after replica."""
    return spaces.Box(-1.0, 1.0, (flat_size(config.num_replicas),), np.float32)


def observation_space(config: RouterEnvConfig) -> spaces.Dict:
    """Dict {request (G,), replicas (N, F), action_mask (N,)}."""
    count = config.num_replicas
    return spaces.Dict(
        {
            "request": spaces.Box(-1.0, 1.0, (len(REQUEST_FEATURES),), np.float32),
            "replicas": spaces.Box(-1.0, 1.0, (count, len(REPLICA_FEATURES)), np.float32),
            "action_mask": spaces.Box(0, 1, (count,), np.int8),
        }
    )


def parts_of(flat: NDArray[np.float32], mask: NDArray[np.int8]) -> dict[str, NDArray[Any]]:
    """The Dict observation of flat ones, as views; leading dimensions stay."""
    first = len(REQUEST_FEATURES)
    replicas = flat[..., first:].reshape(*flat.shape[:-1], -1, len(REPLICA_FEATURES))
    return {"request": flat[..., :first], "replicas": replicas, "action_mask": mask}


def interface_of(config: RouterEnvConfig) -> tuple[Any, ...]:
    """The layout of an environment's memory."""
    return "InferMaxRouter-v0", config.num_replicas


class InferMaxRouterEnv(ScalarEnv):
    """Decide for a fleet of LLM inference engines which of them gets each request.

    One episode serves one workload; one step routes one request, at its arrival. Every replica runs a scheduler of
    its own (`RouterEnvConfig.policy`) between the arrivals. docs/cluster.md says what exactly happens.

    Action: Discrete(N): the replica. One that can never hold the request is illegal: it is counted in
        `info["num_illegal"]` and replaced by the next one, around, that can. Requests that no replica can hold are
        rejected without asking.

    Observation: Dict, all float32 in [-1, 1] on a fixed scale; feature names in `infermax_gym.envs.routing.layout`.
        request: (7,) the arriving request and the traffic.
        replicas: (N, 14) what each replica tells, as fresh as `staleness_s` says; row i is replica i, and renaming the
            replicas permutes the rows and nothing else.
        action_mask: (N,) int8, 1 where the replica can hold the request. Never all zero.
        With `flat=True`: Box (7 + 14 N,) of the same, without the mask, which `action_masks()` gives.

    Reward: a `Reward`, as in `InferMax-v0`; by default minus request-seconds in the system, whose sum over an episode
        is minus the total latency in seconds. What an iteration brings is paid with the first arrival after its start.
        Every step's info has `dt_s`, the simulated seconds to the next decision: discount by exp(-dt_s / tau).

    Episode end: terminated when every request is routed, after all replicas have run to their ends (the last reward
        holds all of that). At the first arrival from `time_limit_s` on, or after `max_decisions` or
        `max_decisions_per_request`, the fallback router (`infermax_gym.envs.routing.rest.FALLBACK_ROUTER`) has the
        rest within the last step, which is terminated and truncated. Every info says how many requests were
        `routed_by_agent` and `routed_by_fallback`; the last one holds `metrics`, the figures that
        `infermax bench --replicas` prints.

    Args:
        config: where episodes come from; `RouterEnvConfig()` by default.
        flat: observe one vector instead of the Dict.
        metrics: put `metrics` into the last info; without, infos always have the same entries.
        render_mode: "human", "ansi", "rgb_array" or None.
        max_episode_steps: another name of `max_decisions`; the tighter one holds.
        **settings: settings of `RouterEnvConfig` to change.

    Example:
        >>> import gymnasium as gym, infermax_gym
        >>> env = gym.make("InferMaxRouter-v0", num_requests=20, num_replicas=3)
        >>> observation, info = env.reset(seed=0)
        >>> done = False
        >>> while not done:
        ...     action = observation["replicas"][:, 6].argmin()  # least start_delay
        ...     observation, reward, terminated, truncated, info = env.step(action)
        ...     done = terminated or truncated
        >>> info["metrics"]["num_finished"]
        20
    """

    config: RouterEnvConfig

    def __init__(
        self,
        config: RouterEnvConfig | None = None,
        *,
        flat: bool = False,
        metrics: bool = True,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        chosen = (config or RouterEnvConfig()).changed(**settings)
        super().__init__(
            chosen, RouterState, metrics=metrics, render_mode=render_mode, max_episode_steps=max_episode_steps
        )
        self.flat = flat
        count = self.config.num_replicas
        self.action_space = spaces.Discrete(count)
        self.observation_space = flat_space(self.config) if flat else observation_space(self.config)
        self._flat = np.zeros((1, flat_size(count)), np.float32)
        self._mask = np.zeros((1, count), np.int8)
        self._status = np.zeros(1, np.int64)
        self._action = np.zeros(1, np.int64)

    @property
    def interface(self) -> tuple[Any, ...]:
        """What a state must agree with to be set here."""
        return interface_of(self.config)

    def _checked(self, action: Any) -> int:
        return whole_action(action)

    def _begin(self, streams: Streams, options: Mapping[str, Any] | None) -> RoutingRun:
        run = begin_routing(self.config, streams, options)
        start_all(run.fleet.state.record, run.lane)
        return run

    def _act(self, run: RoutingRun, action: int) -> tuple[int, float]:
        self._action[0] = action
        record, charged = run.fleet.state.record, 0.0
        step_all(record, run.lane, self._action, self._status, self._components, self._flat, self._mask)
        if self._status[0] in (LOG_FULL, HANDOVER):
            if settle(run):
                charged = charge_of(run, self._weights)
            self._look(run)
        return int(self._status[0]), charged

    def _look(self, run: RoutingRun) -> None:
        settle(run)
        finish_all(run.fleet.state.record, run.lane, self._status, self._components, self._flat, self._mask)

    def _metrics(self, run: RoutingRun) -> dict[str, Any]:
        return run.metrics()

    def action_masks(self) -> NDArray[np.bool_]:
        """(N,) bool, which replicas can hold the request: what sb3-contrib's MaskablePPO asks for."""
        return np.asarray(self._mask[0], np.bool_)

    def _observation(self) -> Any:
        flat = self._flat[0].copy()
        return flat if self.flat else parts_of(flat, self._mask[0].copy())

    def _info(self) -> dict[str, Any]:
        lane = self.run.lane
        by_agent, by_fallback = routed_by(self.run)
        return {
            "dt_s": float(self._components[0, Component.ELAPSED_S]),
            "clock_s": float(lane["clock_s"][0]),
            "num_illegal": int(lane["num_illegal"][0]),
            "routed_by_agent": by_agent,
            "routed_by_fallback": by_fallback,
            "action_mask": self._mask[0].copy(),
        }

    def render(self) -> Any:
        """The fleet now: a line of text per replica, printed or returned, or an (height, 900, 3) uint8 picture."""
        from infermax_gym.envs.routing.render import draw_ansi, draw_picture

        run = self.run
        return rendered(self.render_mode, lambda: draw_ansi(run), lambda: draw_picture(run))
