"""A fleet as a contender: a policy on every replica, a router in front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import (
    DisaggregatedFleet,
    DisaggregatedResult,
    Fleet,
    FleetResult,
    KvTransfer,
    Migration,
    PythonRouter,
    Replica,
    Router,
    simulate_disaggregated,
    simulate_fleet,
    summarize_disaggregated,
    summarize_fleet,
)
from infermax_gym.cluster.simulate import Predicted
from infermax_gym.engine import EngineConfig, Information, Policy, Slo
from infermax_gym.workload import Workload

Predict = Callable[[Any, Workload, int], NDArray[np.float64] | None]
"""A predictor: output tokens of each request for a policy and a seed, or None where the policy uses none."""


@runtime_checkable
class Sized(Protocol):
    """A policy whose sizes are shares of what an engine can do: a policy of the table, once the engine is known."""

    @property
    def name(self) -> str:
        """Of the policy that it stands for."""
        ...

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""
        ...

    def resolve(self, engine: EngineConfig) -> Policy:
        """The policy of the table that it is on an engine."""
        ...


def on_engine(policy: Policy | Sized, engine: EngineConfig) -> Policy:
    """What runs on a replica."""
    return policy if isinstance(policy, Policy) else policy.resolve(engine)


@dataclass(frozen=True)
class PrefillPool:
    """Replicas that compute prompts for a fleet that only decodes.

    Attributes:
        num_replicas: how many there are, with the scenario's engine and the contender's policy.
        router: who distributes the prompts.
        transfer: how their KV reaches the decoding replicas.
    """

    num_replicas: int
    router: Router | PythonRouter
    transfer: KvTransfer = field(default_factory=KvTransfer)


@dataclass(frozen=True)
class FleetPart:
    """Equal replicas of a mixed fleet.

    Attributes:
        count: how many there are.
        config: their engine.
        policy: their scheduler; None: the contender's.
    """

    count: int
    config: EngineConfig
    policy: Policy | Sized | None = None


@dataclass(frozen=True)
class FleetContender:
    """Replicas behind a router: equal ones of a scenario's engine, or those of a mixed fleet.

    Attributes:
        policy: the scheduler of every replica that has no other.
        router: who distributes the requests.
        num_replicas: how many engines there are; with `parts`, their sum.
        staleness_s: age of the router's signals, see `Fleet`.
        counts_routed: see `Fleet`.
        prefill: further replicas that compute the prompts, if these only decode.
        migration: how requests move between the replicas, see `Fleet`.
        parts: the replicas of a mixed fleet, in order; none: equal ones.
        label: stands for the policy in its name, where every part has its own.
    """

    policy: Policy | Sized
    router: Router | PythonRouter
    num_replicas: int
    staleness_s: float = 0.0
    counts_routed: bool = True
    prefill: PrefillPool | None = None
    migration: Migration | None = None
    parts: tuple[FleetPart, ...] = ()
    label: str = ""

    @property
    def name(self) -> str:
        """Policy and router, and how requests move, if they do."""
        name = f"{self.label or self.policy.name} + {self.router.name}"
        return name if self.migration is None else f"{name} + {self.migration.pairing.name.lower()}"

    @property
    def policies(self) -> tuple[Policy | Sized, ...]:
        """The different schedulers of its replicas."""
        each = (part.policy or self.policy for part in self.parts)
        return tuple({policy.name: policy for policy in each}.values()) or (self.policy,)

    @property
    def information(self) -> Information:
        """The most that its router or one of its replicas knows about output lengths."""
        known = [policy.information for policy in self.policies]
        return max(*known, self.router.information) if isinstance(self.router, Router) else max(known)

    def alone(self, engine: EngineConfig) -> Policy | None:
        """The policy of a single replica behind a router that can change nothing; None of any other fleet."""
        plain = isinstance(self.router, Router) and self.prefill is None and self.migration is None and not self.parts
        return on_engine(self.policy, engine) if plain and self.num_replicas == 1 else None

    def predicted(self, predict: Predict, workload: Workload, seed: int) -> Predicted | None:
        """What its router and its replicas are told about output lengths."""
        asks = isinstance(self.router, Router) and self.router.uses_predictions
        if not self.parts and not asks:
            return predict(self.policy, workload, seed)
        predicted_lengths = {policy.name: predict(policy, workload, seed) for policy in self.policies}
        if isinstance(self.router, Router) and asks:
            predicted_lengths[self.router.name] = predict(self.router.predictor, workload, seed)
        return {name: lengths for name, lengths in predicted_lengths.items() if lengths is not None}

    def fleet(self, config: EngineConfig) -> Fleet:
        """The fleet, given the engine of its replicas where they are equal."""
        parts = self.parts or (FleetPart(self.num_replicas, config),)
        replicas = [Replica(part.config, on_engine(part.policy or self.policy, part.config)) for part in parts]
        return Fleet(
            tuple(replica for replica, part in zip(replicas, parts, strict=True) for _ in range(part.count)),
            self.staleness_s,
            self.counts_routed,
            self.migration,
        )

    def serve(
        self, workload: Workload, config: EngineConfig, *, seed: int = 0, predicted: Predicted | None = None
    ) -> FleetResult | DisaggregatedResult:
        """Serve a workload to its end; arguments as in `simulate_fleet`."""
        if self.prefill is None:
            return simulate_fleet(workload, self.fleet(config), self.router, seed=seed, predicted=predicted)
        prompts = replace(self, num_replicas=self.prefill.num_replicas, migration=None, prefill=None, parts=())
        pools = DisaggregatedFleet(prompts.fleet(config), self.fleet(config), self.prefill.transfer)
        return simulate_disaggregated(workload, pools, self.prefill.router, self.router, seed=seed, predicted=predicted)


def figures_of(result: FleetResult | DisaggregatedResult, slo: Slo | None = None) -> dict[str, Any]:
    """What `summarize_fleet` or `summarize_disaggregated` says."""
    if isinstance(result, DisaggregatedResult):
        return summarize_disaggregated(result, slo)
    return summarize_fleet(result, slo)
