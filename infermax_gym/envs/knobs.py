"""`InferMaxKnobs-v0`: set the knobs of the scheduling algorithm for the next control interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from infermax_gym.compile import compiled
from infermax_gym.engine import Policy
from infermax_gym.engine.kernel.advance import arrive
from infermax_gym.engine.kernel.group import decode_demand
from infermax_gym.engine.kernel.run import jump_to_next_arrival
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights
from infermax_gym.engine.session import install_policy, run_to
from infermax_gym.envs.config import EnvConfig
from infermax_gym.envs.env import RENDER_FPS, State, copy_streams, episode_metrics
from infermax_gym.envs.episode import Run, Streams, begin_run, draw_episode
from infermax_gym.envs.kernel import take_components
from infermax_gym.envs.layout import ENGINE_FEATURES
from infermax_gym.envs.observe import observe_engine
from infermax_gym.envs.rewards import Reward

KNOB_NAMES = (
    "aging",  # queue key: arrival, per 10 s (positive: the longest waiting first)
    "known_tokens",  # queue key: known tokens, per 1,000 (positive: the shortest first)
    "log_known_tokens",  # queue key: ln(known tokens), per 7
    "generated_tokens",  # queue key: generated tokens, per 100
    "predicted_remaining",  # queue key: predicted remaining tokens, per 100; nothing without predictions
    "headroom",  # KV tokens per running request that admission leaves free: 0 .. 1,000, cubic
    "max_running",  # cap on running requests: 1 .. sequences, geometric
    "prefill_share",  # share of the token budget for prefills beside decodes: 0.05 .. 1
    "victim_processed",  # victim key: processed tokens, per 1,000
    "victim_generated",  # victim key: generated tokens, per 100
    "victim_arrival",  # victim key: arrival, per 10 s (positive: the newest first)
)
"""The entries of an action, each in [-1, 1]."""

_ROW = Policy(
    "knobs",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    victim=Victim.KEY,
    victim_weights=victim_weights(num_processed_tokens=-1.0),
)


@compiled
def _look(engines: Any, lanes: Any, reward_components: Any, out: Any) -> None:
    """What happened, and the engine features; arrays of one element each."""
    lanes[0].demand = decode_demand(engines[0])
    take_components(engines[0], lanes[0], reward_components)
    observe_engine(engines[0], lanes[0], out)


@compiled
def _first_arrival(engines: Any) -> None:
    """Bring a fresh engine to its first arrival that is not rejected."""
    s = engines[0]
    arrive(s)
    while s.num_waiting == 0 and s.num_rejected < s.num_requests:
        jump_to_next_arrival(s)
        arrive(s)


def policy_of(action: NDArray[np.floating[Any]], max_num_seqs: int, name: str = "knobs") -> Policy:
    """The policy that an action of `InferMaxKnobs-v0` stands for.

    Args:
        action: (11,) in [-1, 1], order of `KNOB_NAMES`; values outside are clipped.
        max_num_seqs: the engine's `max_num_seqs`.
        name: of the policy.

    Raises:
        ValueError: the shape is wrong or a number is not finite.
    """
    a = np.asarray(action, np.float64)
    if a.shape != (len(KNOB_NAMES),) or not np.isfinite(a).all():
        raise ValueError(f"an action is {len(KNOB_NAMES)} finite numbers ({', '.join(KNOB_NAMES)}), got {action!r}")
    a = np.clip(a, -1.0, 1.0)
    unit = (a + 1.0) / 2.0
    return Policy(
        name,
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(
            arrival_s=a[0] / 10.0,
            num_known_tokens=a[1] / 1000.0,
            log_known_tokens=a[2] / 7.0,
            num_generated_tokens=a[3] / 100.0,
            predicted_remaining_tokens=a[4] / 100.0,
        ),
        headroom_tokens=1000.0 * float(unit[5]) ** 3,
        max_running=max(1, round(max_num_seqs ** float(unit[6]))),
        prefill_share=0.05 + 0.95 * float(unit[7]),
        victim=Victim.KEY,
        victim_weights=victim_weights(
            num_processed_tokens=a[8] / 1000.0, num_generated_tokens=a[9] / 100.0, arrival_s=a[10] / 10.0
        ),
    )


class InferMaxKnobsEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Tune the scheduling algorithm while it runs: the easy rung, for PPO and SAC.

    Action: Box (11,) float32 in [-1, 1]: the queue key's weights, admission headroom, cap on running requests, share of
        prefills and victim key of the next control interval (`KNOB_NAMES`, `policy_of`).
    Observation: Box (20,) float32 in [-1, 1]: the engine as a whole (`infermax_gym.envs.layout.ENGINE_FEATURES`).
    Reward: a `Reward`, as in `InferMax-v0`; `info["dt_s"]` says how long the interval really was (it ends with an
        iteration, and an idle engine jumps to the next arrival).
    Episode end: as in `InferMax-v0`; the last info holds `metrics`.

    Args:
        config: where episodes come from; trace slices, levels, `decide` and `base` play no part.
        interval_s: control interval in simulated seconds.
        render_mode: "ansi" or None.
        **settings: settings of `EnvConfig` to change.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(
        self,
        config: EnvConfig | None = None,
        *,
        interval_s: float = 5.0,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if not 0.0 < interval_s < math.inf:
            raise ValueError(f"interval_s must be positive and finite, got {interval_s}")
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode must be ansi or None, got {render_mode!r}")
        self.config = (config or EnvConfig()).changed(**settings).changed(base=_ROW)
        self.interval_s = interval_s
        self.render_mode = render_mode
        self.action_space = spaces.Box(-1.0, 1.0, (len(KNOB_NAMES),), np.float32)
        self.observation_space = spaces.Box(-1.0, 1.0, (len(ENGINE_FEATURES),), np.float32)
        self._streams: Streams | None = None
        self._run: Run | None = None
        self._happened = np.zeros(6)
        assert isinstance(self.config.reward, Reward)
        self._weights = self.config.reward.vector

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
        _first_arrival(self._run.engine.record)
        return self._look(), self._info()

    def step(self, action: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run the engine for one control interval under the action's knobs."""
        run_now = self.run
        core = run_now.engine.record
        install_policy(run_now.engine, policy_of(action, self.config.max_num_seqs))
        until_s = min(float(core["clock_s"][0]) + self.interval_s, self.config.time_limit_s)
        terminated = not run_to(run_now.engine, run_now.recorder, until_s)
        run_now.lane.record["num_decisions"] += 1
        observation = self._look()
        limit = self.config.max_decisions
        late = core["clock_s"][0] >= self.config.time_limit_s
        truncated = not terminated and bool(
            late or (limit is not None and run_now.lane.record["num_decisions"][0] >= limit)
        )
        info = self._info()
        if terminated or truncated:
            info["metrics"] = episode_metrics(run_now)
        return observation, float(self._happened.dot(self._weights)), terminated, truncated, info

    def _look(self) -> NDArray[np.float32]:
        observation = np.zeros(len(ENGINE_FEATURES), np.float32)
        _look(self.run.engine.record, self.run.lane.record, self._happened, observation)
        return np.clip(observation, -1.0, 1.0)

    def _info(self) -> dict[str, Any]:
        return {"dt_s": float(self._happened[0]), "clock_s": float(self.run.engine.record["clock_s"][0])}

    def get_state(self) -> State:
        """A copy of everything; `set_state` goes on from it."""
        run = self.run.copy()
        assert self._streams is not None
        return State(run, copy_streams(self._streams))

    def set_state(self, state: State) -> NDArray[np.float32]:
        """Go on from a state; returns the observation there."""
        self._run = state.run.copy()
        self._streams = copy_streams(state.streams)
        return self._look()

    def render(self) -> Any:
        """The engine now, as a few lines of text."""
        from infermax_gym.envs.render import draw_ansi

        return draw_ansi(self.run) if self.render_mode == "ansi" else None
