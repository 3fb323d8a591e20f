"""A fleet as a contender: a policy on every replica, a router in front."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import (
    DisaggregatedFleet,
    DisaggregatedResult,
    Fleet,
    FleetResult,
    KvTransfer,
    PythonRouter,
    Router,
    simulate_disaggregated,
    simulate_fleet,
    summarize_disaggregated,
    summarize_fleet,
)
from infermax_gym.engine import EngineConfig, Information, Policy, Slo
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class PrefillPool:
    """Replicas that compute prompts for a fleet that only decodes.

    Attributes:
        num_replicas: how many there are, with the cell's engine and the contender's policy.
        router: who distributes the prompts.
        transfer: how their KV reaches the decoding replicas.
    """

    num_replicas: int
    router: Router
    transfer: KvTransfer = field(default_factory=KvTransfer)


@dataclass(frozen=True)
class FleetContender:
    """Equal replicas of a cell's engine behind a router.

    Attributes:
        policy: the scheduler of every replica.
        router: who distributes the requests.
        num_replicas: how many engines there are.
        staleness_s: age of the router's signals, see `Fleet`.
        counts_routed: see `Fleet`.
        prefill: further replicas that compute the prompts, if these only decode.
    """

    policy: Policy
    router: Router | PythonRouter
    num_replicas: int
    staleness_s: float = 0.0
    counts_routed: bool = True
    prefill: PrefillPool | None = None

    @property
    def name(self) -> str:
        """Policy and router."""
        return f"{self.policy.name} + {self.router.name}"

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        return self.policy.information

    def fleet(self, config: EngineConfig, num_replicas: int | None = None) -> Fleet:
        """The fleet, given the engine of its replicas; by default as many as it has."""
        return Fleet.uniform(
            num_replicas or self.num_replicas,
            config,
            self.policy,
            staleness_s=self.staleness_s,
            counts_routed=self.counts_routed,
        )

    def serve(
        self, workload: Workload, config: EngineConfig, *, seed: int = 0, predicted: NDArray[np.float64] | None = None
    ) -> FleetResult | DisaggregatedResult:
        """Serve a workload to its end; arguments as in `simulate_fleet`."""
        if self.prefill is None:
            return simulate_fleet(workload, self.fleet(config), self.router, seed=seed, predicted=predicted)
        pools = DisaggregatedFleet(
            self.fleet(config, self.prefill.num_replicas), self.fleet(config), self.prefill.transfer
        )
        return simulate_disaggregated(workload, pools, self.prefill.router, self.router, seed=seed, predicted=predicted)


def figures_of(result: FleetResult | DisaggregatedResult, slo: Slo | None = None) -> dict[str, Any]:
    """What `summarize_fleet` or `summarize_disaggregated` says."""
    if isinstance(result, DisaggregatedResult):
        return summarize_disaggregated(result, slo)
    return summarize_fleet(result, slo)
