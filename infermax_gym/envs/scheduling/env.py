"""`InferMax-v0`: admit, preempt, run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from infermax_gym.engine.metrics import summarize
from infermax_gym.engine.recorder import result_of
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.guards import whole_action
from infermax_gym.envs.rendering import rendered
from infermax_gym.envs.rewards import Component
from infermax_gym.envs.scalar import ScalarEnv
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import (
    Moment,
    Run,
    begin_run,
    charge_of,
    draw_episode,
    finished_by,
    moment_of,
    settle,
)
from infermax_gym.envs.scheduling.layout import ActionLayout
from infermax_gym.envs.scheduling.spaces import Buffers, Observation, flat_space, observation_space
from infermax_gym.envs.scheduling.step import finish_step, start, step_one
from infermax_gym.envs.status import HANDOVER, LOG_FULL


@dataclass
class State:
    """Everything that `set_state` needs to go on from here, independent of the environment it came from."""

    run: Run
    streams: Streams
    interface: tuple[Any, ...] = ()


def interface_of(config: EnvConfig, name: str = "InferMax-v0") -> tuple[Any, ...]:
    """The layout of an environment's memory, and the algorithm behind it."""
    layout = config.layout
    return name, layout.num_chunk_budgets, layout.num_waiting_slots, layout.num_running_slots, config.base


def episode_metrics(run: Run) -> dict[str, Any]:
    """The figures that `infermax bench` prints, of an episode so far, and the agent's own counters."""
    run.recorder.empty(run.engine)
    result = result_of(run.engine, run.episode.workload, run.recorder.copy(), False)
    metrics = summarize(result, run.episode.engine)
    metrics["num_decisions"] = int(run.lane.record["num_decisions"][0])
    metrics["num_illegal"] = int(run.lane.record["num_illegal"][0])
    return metrics


class InferMaxEnv(ScalarEnv):
    """Decide for an LLM inference engine which requests to admit, which to preempt and how to chunk prefills.

    One episode serves one workload. Between two iterations of the engine it is the agent's turn: any number of
    ADMIT and PREEMPT actions, which take no time, then a RUN.

    Action: Discrete(L + W + R), masked. Kinds in this order (`ActionLayout` encodes and decodes):
        RUN l (L chunk budgets, tokens): every running decode gets one token, running prefills share the budget in
            list order, the clock advances. Illegal while the decodes' next tokens do not fit the KV cache (a
            victim must be named) or while nothing could run.
        ADMIT i (W waiting slots): the request joins the running list. Illegal without a sequence, without the blocks
            of its known tokens, or if it was admitted in this turn already.
        PREEMPT j (R running slots): the request loses its KV and waits again. Illegal if it was admitted in this
            turn.
        An illegal action does not end the episode: it is counted in `info["num_illegal"]` and replaced by RUN at
        full budget, or by the first legal PREEMPT, or by the first legal ADMIT. With `decide="event"` the engine
        repeats the last RUN until a visible waiting request could be admitted, memory is short, a prefill waits
        at chunk budget 0, or nothing can run.

    Observation: Dict, all float32 in [-1, 1] on a fixed scale; feature names in `infermax_gym.envs.scheduling.layout`.
        waiting: (W, 12) the smallest queue keys first, then the oldest; zeros in empty slots.
        running: (R, 11) the end of the running list, last first, then the best victims.
        engine: (20,) the engine as a whole.
        action_mask: (A,) int8, 1 where the action is legal. Never all zero.
        With `flat=True`: Box (20 + 12 W + 11 R,) of the same, without the mask, which `action_masks()` gives.

    Reward: a `Reward`; by default minus request-seconds in the system, whose sum over an episode is minus the total
        latency in seconds. Every step's info has `dt_s`, the simulated seconds it took: discount by
        exp(-dt_s / tau), not by a constant per decision.

    Episode end: terminated when every request is finished or rejected (a request that can never fit is rejected on
        arrival). Where the clock passes `time_limit_s`, or after `max_decisions` or `max_decisions_per_request`, the
        fallback policy (`infermax_gym.envs.fallback.FALLBACK`) serves the rest within the last step, whose reward
        holds what that costs: so latency rewards always sum to minus the total latency of all requests, or to that of
        the fallback alone if that is less (an agent that leaves requests to it has at most its return).
        Such an end is terminated, as nothing is left to come (do not bootstrap from its observation), and truncated.
        Every info says how many requests were `finished_by_agent` and `finished_by_fallback`; the last one holds
        `metrics`, the figures that `infermax bench` prints. The id is registered with 60 decisions per request; the
        `max_episode_steps` of `gym.make` is one more `max_decisions`.

    Args:
        config: where episodes come from; `EnvConfig()` by default.
        flat: observe one vector instead of the Dict.
        metrics: put `metrics` into the last info; without, infos always have the same entries.
        render_mode: "human", "ansi", "rgb_array" or None.
        max_episode_steps: another name of `max_decisions`; the tighter one holds.
        **settings: settings of `EnvConfig` to change.

    Example:
        >>> import gymnasium as gym, infermax_gym
        >>> env = gym.make("InferMax-v0", num_requests=20)
        >>> observation, info = env.reset(seed=0)
        >>> done = False
        >>> while not done:
        ...     action = observation["action_mask"].argmax()
        ...     observation, reward, terminated, truncated, info = env.step(action)
        ...     done = terminated or truncated
        >>> info["metrics"]["num_finished"]
        20
    """

    config: EnvConfig

    def __init__(
        self,
        config: EnvConfig | None = None,
        *,
        flat: bool = False,
        metrics: bool = True,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        chosen = (config or EnvConfig()).changed(**settings)
        super().__init__(chosen, State, metrics=metrics, render_mode=render_mode, max_episode_steps=max_episode_steps)
        self.flat = flat
        self.layout: ActionLayout = self.config.layout
        self.action_space = spaces.Discrete(self.layout.num_actions)
        self.observation_space = flat_space(self.config) if flat else observation_space(self.config)
        self._buffers = Buffers(self.config, 1)
        self._components = self._buffers.reward_components
        self._history: list[Moment] = []

    @property
    def interface(self) -> tuple[Any, ...]:
        """What a state must agree with to be set here."""
        return interface_of(self.config)

    def _checked(self, action: Any) -> int:
        return whole_action(action)

    def _begin(self, streams: Streams, options: Mapping[str, Any] | None) -> Run:
        run = begin_run(self.config, draw_episode(self.config, streams, options))
        start(run.engine.core, run.lane.core)
        settle(run)
        return run

    def _act(self, run: Run, action: int) -> tuple[int, float]:
        b = self._buffers
        status = step_one(run.engine.record, run.lane.record, action, b.reward_components, b.flat, b.mask)
        if status not in (LOG_FULL, HANDOVER):
            return status, 0.0
        charged = charge_of(run, self._weights) if settle(run) else 0.0
        return self._finish(run), charged

    def _finish(self, run: Run) -> int:
        """Refresh the buffers; returns the lane's status."""
        b = self._buffers
        return int(finish_step(run.engine.core, run.lane.core, b.reward_components[0], b.flat[0], b.mask[0]))

    def _look(self, run: Run) -> None:
        self._history.clear()
        self._finish(run)

    def _metrics(self, run: Run) -> dict[str, Any]:
        return episode_metrics(run)

    def action_masks(self) -> NDArray[np.bool_]:
        """(A,) bool, where the action is legal: what sb3-contrib's MaskablePPO asks for."""
        return np.asarray(self._buffers.mask[0], np.bool_)

    def _observation(self) -> Any:
        b = self._buffers
        flat = b.flat[0].copy()
        if self.flat:
            return flat
        w, r = self.layout.num_waiting_slots, self.layout.num_running_slots
        g = b.engine.shape[1]
        f = b.waiting.shape[2]
        observation: Observation = {
            "waiting": flat[g : g + w * f].reshape(w, f),
            "running": flat[g + w * f :].reshape(r, -1),
            "engine": flat[:g],
            "action_mask": b.mask[0].copy(),
        }
        return observation

    def _info(self) -> dict[str, Any]:
        run = self.run
        by_agent, by_fallback = finished_by(run)
        return {
            "dt_s": float(self._components[0, Component.ELAPSED_S]),
            "clock_s": float(run.engine.record["clock_s"][0]),
            "num_illegal": int(run.lane.record["num_illegal"][0]),
            "finished_by_agent": by_agent,
            "finished_by_fallback": by_fallback,
            "action_mask": self._buffers.mask[0].copy(),
        }

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
