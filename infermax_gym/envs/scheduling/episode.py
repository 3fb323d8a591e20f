"""Drawing an episode: requests, load, memory and cost model, all fixed before the first decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.envs.draws import Draws, Streams, model_of, predicted_lengths, trace_slice_of, with_limits
from infermax_gym.envs.rewards import reward_of
from infermax_gym.envs.scheduling.config import EPISODE_SETTINGS, EnvConfig
from infermax_gym.envs.scheduling.lane import LANE, Lane
from infermax_gym.envs.settings import pinned
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
    record["by_victim_key"] = int(config.base.victim)
    record["time_limit_s"] = config.time_limit_s if episode.time_limit_s is None else episode.time_limit_s
    levels = np.array(config.levels, np.int64)
    max_num_seqs = int(engine.record["max_num_seqs"][0])
    return Run(episode, engine, Lane(record, levels, 4 * max_num_seqs + 8), Recorder())
