"""What a fleet leaves behind: the requests as if one engine had served them, and each replica's share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.fleet import Fleet
from infermax_gym.engine import SimulationResult, Slo, summarize


@dataclass(frozen=True, eq=False)
class FleetResult:
    """One run of a fleet.

    Attributes:
        fleet: the replicas.
        pooled: the records of all requests, in order of arrival; its totals are sums over the replicas, and its
            `kv_utilization` is their capacity-weighted mean.
        replica_of: (n,) int32, where each request was sent; -1 for those that no replica can ever hold.
        num_requests_of: (num_replicas,) int64, how many were sent there.
        busy_s_of: (num_replicas,) float64, sum of iteration durations.
        num_iterations_of: (num_replicas,) int64.
        num_preemptions_of: (num_replicas,) int64.
        num_migrations_of: (n,) int64, how often each request moved to another replica; empty without migration.
        num_aborted_migrations: KV copies that came to nothing.
    """

    fleet: Fleet
    pooled: SimulationResult
    replica_of: NDArray[np.int32]
    num_requests_of: NDArray[np.int64]
    busy_s_of: NDArray[np.float64]
    num_iterations_of: NDArray[np.int64]
    num_preemptions_of: NDArray[np.int64]
    num_migrations_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    num_aborted_migrations: int = 0

    @property
    def request_imbalance(self) -> float:
        """Most requests of a replica over the mean; 1 is even."""
        return imbalance(self.num_requests_of)

    @property
    def busy_imbalance(self) -> float:
        """Most busy seconds of a replica over the mean; 1 is even."""
        return imbalance(self.busy_s_of)


def utilization_of(results: Iterable[FleetResult], makespan_s: float) -> float:
    """Held KV blocks of several fleets, integrated over their iterations, over makespan x capacity."""
    held = capacity = 0.0
    for result in results:
        num_blocks = sum(replica.config.num_blocks for replica in result.fleet.replicas)
        held += result.pooled.kv_utilization * result.pooled.makespan_s * num_blocks
        capacity += makespan_s * num_blocks
    return held / capacity if capacity > 0.0 else 0.0


def imbalance(values: NDArray[Any]) -> float:
    """Largest over mean; 1.0 where all are 0."""
    mean = float(values.mean())
    return float(values.max()) / mean if mean > 0.0 else 1.0


def summarize_fleet(result: FleetResult, slo: Slo | None = None) -> dict[str, Any]:
    """The figures of `summarize` for the fleet as a whole, and how evenly it was loaded.

    Besides: `request_imbalance` and `busy_imbalance`, largest over mean of a replica's requests and busy seconds;
    `fleet_cost_usd_per_h`, the price of all devices for an hour, or None. `gpu_cost_usd` charges busy seconds. Where
    requests move: `num_migrations` and `num_aborted_migrations`.
    """
    configs = [replica.config for replica in result.fleet.replicas]
    figures = summarize(result.pooled, configs[0], slo)
    prices = [config.cost.price_usd_per_device_hour for config in configs]
    figures["gpu_cost_usd"] = (
        None
        if None in prices
        else float(
            sum(b / 3600.0 * c.cost.num_devices * p for b, c, p in zip(result.busy_s_of, configs, prices, strict=True))
        )
    )
    if result.fleet.migration is not None:
        figures["num_migrations"] = int(result.num_migrations_of.sum())
        figures["num_aborted_migrations"] = result.num_aborted_migrations
    return {
        **figures,
        "request_imbalance": result.request_imbalance,
        "busy_imbalance": result.busy_imbalance,
        "fleet_cost_usd_per_h": result.fleet.cost_usd_per_h,
    }
