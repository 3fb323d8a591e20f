"""An episode of `InferMaxKnobs-v0` under way: begun, run for a control interval, ended, looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Policy
from infermax_gym.engine.session import install_policy, run_to
from infermax_gym.envs.draws import Streams
from infermax_gym.envs.knobs.step import look, start
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.episode import Run, begin_run, charge_of, draw_episode, hand_over
from infermax_gym.envs.status import HANDOVER, RUNNING_ON, TERMINATED, TRUNCATED


def begin(config: EnvConfig, streams: Streams, options: Mapping[str, Any] | None) -> Run:
    """Draw an episode and go to its first arrival; arguments as in `draw_episode`."""
    run = begin_run(config, draw_episode(config, streams, options))
    run.lane.record["level"] = len(config.level_shares) - 1
    start(run.engine.record)
    return run


def status_of(run: Run) -> int:
    """Where an episode stands between two steps."""
    core = run.engine.record
    if run.lane.record["handed_over"][0]:
        return TRUNCATED
    over = core["num_finished"][0] + core["num_rejected"][0] == core["num_requests"][0]
    return TERMINATED if over else RUNNING_ON


def run_interval(run: Run, policy: Policy, interval_s: float) -> int:
    """Run the engine for one control interval under a policy; HANDOVER where a limit is reached.

    Args:
        run: the episode; nothing happens once the fallback policy has served its rest.
        policy: of an action.
        interval_s: simulated seconds; the limit on time may shorten them.
    """
    lane, core = run.lane.record, run.engine.record
    if lane["handed_over"][0]:
        return TRUNCATED
    install_policy(run.engine, policy)
    until_s = min(float(core["clock_s"][0]) + interval_s, float(lane["time_limit_s"][0]))
    goes_on = run_to(run.engine, run.recorder, until_s)
    lane["num_decisions"] += 1
    if not goes_on:
        return TERMINATED
    late = core["clock_s"][0] >= lane["time_limit_s"][0]
    return HANDOVER if late or lane["num_decisions"][0] >= lane["max_decisions"][0] else RUNNING_ON


def serve_the_rest(run: Run, weights: NDArray[np.float64]) -> float:
    """The fallback policy serves what is left; what the last reward is charged, see `infermax_gym.envs.fallback`."""
    hand_over(run)
    return charge_of(run, weights)


def observe_run(run: Run, reward_components: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """What happened since the last look, and the observation now.

    Args:
        run: the episode.
        reward_components: (NUM_COMPONENTS,) float64, out.
        out: (len(ENGINE_FEATURES),) float32, out.
    """
    look(run.engine.record, run.lane.record, reward_components, out)
    np.clip(out, -1.0, 1.0, out=out)
