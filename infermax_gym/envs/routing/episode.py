"""Drawing an episode of `InferMaxRouter-v0`: requests, load and replicas, all fixed before the first decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import Fleet, FleetRun, Replica, summarize_fleet
from infermax_gym.engine import EngineConfig
from infermax_gym.envs.episode import Streams, draw, noisy_lengths, trace_slice_of, with_slos
from infermax_gym.envs.routing.config import RouterEnvConfig
from infermax_gym.envs.routing.kernel import LANE
from infermax_gym.workload import Workload

OPTIONS = ("workload", "start", "num_requests", "rate_per_replica", "num_kv_tokens", "cost")
"""What `reset(options=...)` may pin: a workload, preset name or path; its first request (not for presets);
and single values of the settings of the same name."""


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
    """Draw an episode and lay out its memory; `options` pins any of `OPTIONS`.

    Raises:
        ValueError: an option is unknown or out of range.
        WorkloadError: a workload cannot be read or is shorter than an episode.
    """
    pinned = dict(options or {})
    unknown = sorted(set(pinned) - set(OPTIONS))
    if unknown:
        raise ValueError(f"unknown reset option {unknown[0]!r}; known: {', '.join(OPTIONS)}")
    rng = streams.workload
    # Every draw happens whether or not it is pinned, so that pinning one thing does not change another.
    source: str | Workload = config.workloads[int(rng.integers(len(config.workloads)))]
    rate = draw(config.rate_per_replica, rng)
    slice_seed = int(rng.integers(2**63))
    replicas = _replicas(config, rng, pinned)
    count = int(pinned.get("num_requests", config.num_requests))
    if count < 2:
        raise ValueError(f"an episode needs num_requests >= 2, got {count}")
    workload = trace_slice_of(pinned.get("workload", source), count, slice_seed, pinned.get("start"))
    rate = float(pinned.get("rate_per_replica", rate)) * config.num_replicas
    if np.isfinite(workload.mean_rate_per_s):
        workload = workload.with_rate(rate)
    workload = with_slos(workload, config.slo_ttft_s, config.slo_tpot_s)
    predicted = noisy_lengths(workload, config.information, config.prediction_sigma, streams)
    fleet = Fleet(replicas, config.staleness_s, config.counts_routed)
    run = FleetRun(workload, fleet, None)
    run.state.lay_out(np.zeros((count, 0)), predicted)
    lane = np.zeros(1, LANE)
    lane["action"] = -1
    lane["time_limit_s"] = config.time_limit_s
    return RoutingRun(run, lane, predicted)


def _replicas(config: RouterEnvConfig, rng: np.random.Generator, pinned: Mapping[str, Any]) -> tuple[Replica, ...]:
    drawn = []
    for _ in range(1 if config.alike else config.num_replicas):
        num_kv_tokens = round(draw(config.num_kv_tokens, rng))
        cost = config.costs[int(rng.integers(len(config.costs)))]
        engine = EngineConfig(
            cost=config.cost_model(pinned.get("cost", cost)),
            num_kv_tokens=int(pinned.get("num_kv_tokens", num_kv_tokens)),
            block_size=config.block_size,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_num_seqs=config.max_num_seqs,
            prefix_caching=config.prefix_caching,
        )
        drawn.append(Replica(engine, config.policy))
    return tuple(drawn) if not config.alike else tuple(drawn) * config.num_replicas
