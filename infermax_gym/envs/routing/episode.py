"""Drawing an episode of `InferMaxRouter-v0`: requests, load and replicas, all fixed before the first decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import Fleet, FleetRun, Replica, summarize_fleet
from infermax_gym.engine import EngineConfig
from infermax_gym.engine.policy import NO_LIMIT
from infermax_gym.envs.draws import (
    Draws,
    Streams,
    model_of,
    predicted_lengths,
    trace_slice_of,
    traffic_of,
    with_limits,
)
from infermax_gym.envs.rewards import reward_of
from infermax_gym.envs.routing.config import EPISODE_SETTINGS, RouterEnvConfig
from infermax_gym.envs.routing.step import LANE
from infermax_gym.envs.settings import pinned
from infermax_gym.workload import Workload


@dataclass
class RoutingRun:
    """An episode under way.

    Attributes:
        fleet: the replicas and what was routed to them.
        lane: (1,) LANE, the agent's side.
        predicted: (n,) predicted output tokens, or None.
    """

    fleet: FleetRun
    lane: Any
    predicted: NDArray[np.float64] | None

    @property
    def workload(self) -> Workload:
        """The requests."""
        return self.fleet.workload

    def copy(self) -> RoutingRun:
        """An independent copy."""
        return RoutingRun(self.fleet.copy(), self.lane.copy(), self.predicted)

    def metrics(self) -> dict[str, Any]:
        """The figures that `infermax bench --replicas` prints, so far, and the agent's own counters."""
        figures = summarize_fleet(self.fleet.result(keep=True))
        for name in ("num_decisions", "num_illegal"):
            figures[name] = int(self.lane[name][0])
        return figures


def begin_routing(config: RouterEnvConfig, streams: Streams, options: Mapping[str, Any] | None = None) -> RoutingRun:
    """Draw an episode and lay out its memory.

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
    rate_per_s = draws.number("rate_per_replica") * config.num_replicas
    slice_seed = draws.seed()
    replicas = _replicas(config, draws)
    count = round(draws.number("num_requests"))
    workload = trace_slice_of(source, count, slice_seed, draws.setting("start"))
    if np.isfinite(workload.mean_rate_per_s):
        workload = workload.with_rate(rate_per_s)
    workload = traffic_of(draws)(workload)
    workload = with_limits(workload, draws.setting("ttft_slo_s"), draws.setting("tpot_slo_s"), reward_of(config))
    predicted = predicted_lengths(workload, config.information, config.prediction_sigma, streams)
    fleet = Fleet(replicas, config.staleness_s, config.counts_routed)
    run = FleetRun(workload, fleet, None)
    run.state.lay_out(np.zeros((count, 0)), predicted)
    lane = np.zeros(1, LANE)
    lane["action"] = -1
    lane["time_limit_s"] = draws.setting("time_limit_s")
    lane["max_decisions"] = _most_decisions(config, count)
    return RoutingRun(run, lane, predicted)


def _most_decisions(config: RouterEnvConfig, count: int) -> int:
    limits = [NO_LIMIT if config.max_decisions is None else config.max_decisions]
    if config.max_decisions_per_request is not None:
        limits.append(math.ceil(config.max_decisions_per_request * count))
    return min(limits)


def _replicas(config: RouterEnvConfig, draws: Draws) -> tuple[Replica, ...]:
    drawn = []
    for _ in range(1 if config.alike else config.num_replicas):
        num_kv_tokens = round(draws.number("num_kv_tokens"))
        engine = EngineConfig(
            cost=model_of(draws.one("costs")),
            num_kv_tokens=num_kv_tokens,
            block_size=config.block_size,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_seqs=config.max_num_seqs,
            prefix_caching=config.prefix_caching,
        )
        drawn.append(Replica(engine, config.policy))
    return tuple(drawn) if not config.alike else tuple(drawn) * config.num_replicas
