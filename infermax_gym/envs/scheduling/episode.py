"""Drawing an episode: requests, load, memory and cost model, all fixed before the first decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.policy import NO_LIMIT, Victim, victim_weights
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.envs.draws import (
    Draws,
    Streams,
    model_of,
    predicted_lengths,
    trace_slice_of,
    traffic_of,
    with_limits,
)
from infermax_gym.envs.fallback import alone, charge, serve_rest, totals_of
from infermax_gym.envs.rewards import reward_of
from infermax_gym.envs.scheduling.config import EPISODE_SETTINGS, EnvConfig
from infermax_gym.envs.scheduling.lane import LANE, Lane
from infermax_gym.envs.scheduling.step import go_on, new_turn, show
from infermax_gym.envs.settings import pinned
from infermax_gym.envs.status import LOG_FULL, TRUNCATED
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class Episode:
    """An episode before its first decision.

    Attributes:
        workload: the requests.
        engine: the replica.
        predicted: (n,) predicted output tokens, or None.
        time_limit_s: simulated seconds after which it is cut short; None: as the environment says.
    """

    workload: Workload
    engine: EngineConfig
    predicted: NDArray[np.float64] | None
    time_limit_s: float | None = None


def draw_episode(config: EnvConfig, streams: Streams, options: Mapping[str, Any] | None = None) -> Episode:
    """Draw an episode.

    Args:
        config: the ranges.
        streams: where chance comes from; they move on.
        options: settings that this episode alone has, any of `EPISODE_SETTINGS`.

    Raises:
        SettingError: an option is unknown or out of range.
        WorkloadError: a workload cannot be read or is shorter than an episode.
    """
    draws = Draws(config, pinned(config, options, EPISODE_SETTINGS), streams.workload)
    source = draws.one("workloads")
    time_scale = draws.number("time_scale")
    num_kv_tokens = round(draws.number("num_kv_tokens"))
    backlog = round(draws.number("backlog"))
    cost = draws.one("costs")
    count = round(draws.number("num_requests")) + backlog
    workload = _paced(trace_slice_of(source, count, draws.seed(), draws.setting("start")), backlog, time_scale)
    workload = traffic_of(draws)(workload)
    workload = with_limits(workload, draws.setting("ttft_slo_s"), draws.setting("tpot_slo_s"), reward_of(config))
    engine = EngineConfig(
        cost=model_of(cost),
        num_kv_tokens=num_kv_tokens,
        block_size=config.block_size,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_num_seqs=config.max_num_seqs,
    )
    predicted = predicted_lengths(workload, config.information, config.prediction_sigma, streams)
    return Episode(workload, engine, predicted, draws.setting("time_limit_s"))


def _paced(workload: Workload, backlog: int, time_scale: float) -> Workload:
    """Scale arrivals; the first `backlog` requests are there at 0 and the others follow from there."""
    workload = workload.scaled(time_scale)
    if backlog == 0:
        return workload
    return replace(workload, arrival_s=np.maximum(workload.arrival_s - workload.arrival_s[backlog - 1], 0.0))


@dataclass
class Run:
    """An episode under way.

    Attributes:
        episode: what was drawn.
        engine: the engine's state.
        lane: the agent's side of it.
        recorder: what the engine's log held whenever it was emptied.
    """

    episode: Episode
    engine: Engine
    lane: Lane
    recorder: Recorder

    def copy(self) -> Run:
        """An independent copy."""
        return Run(self.episode, self.engine.copy(), self.lane.copy(), self.recorder.copy())


def begin_run(config: EnvConfig, episode: Episode, *, record_schedule: bool = False) -> Run:
    """Lay out the memory of an episode; the engine stands before its first arrival."""
    engine = allocate(episode.workload, episode.engine, config.base, episode.predicted, record_schedule=record_schedule)
    record = np.zeros(1, LANE)
    record["num_chunk_budgets"] = len(config.level_shares)
    record["num_waiting_slots"] = config.num_waiting_slots
    record["num_running_slots"] = config.num_running_slots
    record["every_iteration"] = config.decide == "iteration"
    record["on_change"] = config.decide == "change"
    record["within_budget"] = config.admit_within_budget
    record["only_forced"] = config.preempt == "forced"
    record["by_victim_key"] = int(config.base.victim) and not _is_least_processed(config.base)
    record["time_limit_s"] = config.time_limit_s if episode.time_limit_s is None else episode.time_limit_s
    record["max_decisions"] = most_decisions(config, episode.workload)
    levels = np.array(config.levels, np.int64)
    max_num_seqs = int(engine.record["max_num_seqs"][0])
    record["most_turn_actions"] = 2 * max_num_seqs + 8
    return Run(episode, engine, Lane(record, levels, 4 * max_num_seqs + 8), Recorder())


def _is_least_processed(base: Policy) -> bool:
    """Whether the largest victim key is that of the fewest processed tokens, which need no key."""
    return base.victim == Victim.KEY and base.victim_weights == victim_weights(num_processed_tokens=-1.0)


def most_decisions(config: EnvConfig, workload: Workload) -> int:
    """The limit on decisions of an episode; one more per output token where every iteration is a decision."""
    limit = NO_LIMIT if config.max_decisions is None else config.max_decisions
    if config.max_decisions_per_request is not None:
        share = math.ceil(config.max_decisions_per_request * len(workload))
        if config.decide == "iteration":
            share += int(workload.num_output_tokens.sum())
        limit = min(limit, share)
    return limit


def settle(run: Run) -> bool:
    """Bring an episode to its next decision or its end: empty full logs, and let the fallback policy serve the rest.

    Returns:
        Whether it has served the rest just now.
    """
    record = run.lane.record
    while record["status"][0] == LOG_FULL:
        run.recorder.empty(run.engine)
        go_on(run.engine.core, run.lane.core)
    if record["status"][0] == TRUNCATED and not record["handed_over"][0]:
        new_turn(run.engine.core, run.lane.core)
        hand_over(run)
        show(run.engine.core, run.lane.core)
        return True
    return False


def charge_of(run: Run, weights: NDArray[np.float64]) -> float:
    """What an episode that was handed over is charged in its last reward, see `infermax_gym.envs.fallback`."""
    return charge(weights, totals_of(run.engine.record), alone(run.episode.workload, run.episode.engine))


def hand_over(run: Run) -> None:
    """Let the fallback policy serve the rest of an episode."""
    record = run.lane.record
    record["num_by_agent"] = run.engine.record["num_finished"]
    record["handed_over"] = 1
    serve_rest(run.engine, run.recorder)


class Moment(NamedTuple):
    """What pictures remember of a decision.

    Attributes:
        clock_s: the engine's clock, seconds.
        num_waiting: waiting requests.
        num_decodes: running decodes.
        num_prefills: running prefills.
        used: share of KV blocks that are held.
    """

    clock_s: float
    num_waiting: int
    num_decodes: int
    num_prefills: int
    used: float


def moment_of(engine: Engine) -> Moment:
    """An engine now."""
    core = engine.record[0]
    prefills = int(core["num_running_prefills"])
    used = 1.0 - float(core["free_blocks"]) / float(core["num_blocks"])
    return Moment(float(core["clock_s"]), int(core["num_waiting"]), int(core["num_running"]) - prefills, prefills, used)


def finished_by(run: Run) -> tuple[int, int]:
    """How many requests the agent has finished, and how many the fallback policy after a limit."""
    finished = int(run.engine.record["num_finished"][0])
    by_agent = int(run.lane.record["num_by_agent"][0]) if run.lane.record["handed_over"][0] else finished
    return by_agent, finished - by_agent
