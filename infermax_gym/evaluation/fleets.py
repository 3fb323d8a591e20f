"""A fleet as a contender: a policy on every replica, a router in front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import Fleet, FleetResult, PythonRouter, Router, simulate_fleet
from infermax_gym.engine import EngineConfig, Information, Policy
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class FleetContender:
    """Equal replicas of a cell's engine behind a router.

    Attributes:
        policy: the scheduler of every replica.
        router: who distributes the requests.
        num_replicas: how many engines there are.
        staleness_s: age of the router's signals, see `Fleet`.
        counts_routed: see `Fleet`.
    """

    policy: Policy
    router: Router | PythonRouter
    num_replicas: int
    staleness_s: float = 0.0
    counts_routed: bool = True

    @property
    def name(self) -> str:
        """Policy and router."""
        return f"{self.policy.name} + {self.router.name}"

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        return self.policy.information

    def fleet(self, config: EngineConfig) -> Fleet:
        """The fleet, given the engine of its replicas."""
        return Fleet.uniform(
            self.num_replicas,
            config,
            self.policy,
            staleness_s=self.staleness_s,
            counts_routed=self.counts_routed,
        )

    def serve(
        self, workload: Workload, config: EngineConfig, *, seed: int = 0, predicted: NDArray[np.float64] | None = None
    ) -> FleetResult:
        """Serve a workload to its end; arguments as in `simulate_fleet`."""
        return simulate_fleet(workload, self.fleet(config), self.router, seed=seed, predicted=predicted)
