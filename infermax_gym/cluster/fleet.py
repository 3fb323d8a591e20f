"""A fleet: replicas behind a router, and how fresh the load signals are that the router sees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from infermax_gym.cluster.migration import Migration
from infermax_gym.engine import EngineConfig, Policy


def _default_policy() -> Policy:
    return Policy("fcfs")


@dataclass(frozen=True)
class Replica:
    """One engine of a fleet.

    Attributes:
        config: cost model, memory and caps.
        policy: its scheduler, a policy of the table.
    """

    config: EngineConfig = field(default_factory=EngineConfig)
    policy: Policy = field(default_factory=_default_policy)


@dataclass(frozen=True)
class Fleet:
    """Replicas, which may all differ, and the signals that their router gets.

    Attributes:
        replicas: the engines, in the order of their numbers.
        staleness_s: seconds between two snapshots of the load signals. 0: the router looks at each arrival.
        counts_routed: whether the router adds to a snapshot what it has routed since. A lone router can; one of
            many, each of which sees only its own share, cannot. Without effect at staleness 0, where the replicas
            themselves count what was sent to them.
        migration: how requests move between replicas; None: they stay where they were sent.

    Raises:
        TypeError: the policy of a replica is none of the table.
        ValueError: there is no replica, the staleness is not a time, or a policy has `min_waiting`: it waits for more
            requests until none is to come, and a replica behind a router cannot know that.

    Example:
        >>> Fleet.uniform(3).num_replicas
        3
    """

    replicas: tuple[Replica, ...]
    staleness_s: float = 0.0
    counts_routed: bool = True
    migration: Migration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "replicas", tuple(self.replicas))
        if not self.replicas:
            raise ValueError("a fleet needs at least one replica")
        for replica in self.replicas:
            if not isinstance(replica.policy, Policy):
                kind = type(replica.policy).__name__
                raise TypeError(f"a replica runs a policy of the table, got {kind}; shares have resolve(config)")
            if replica.policy.min_waiting > 0:
                raise ValueError(
                    f"policy {replica.policy.name!r} cannot run in a fleet: it waits for more requests (min_waiting), "
                    "and a replica behind a router does not know whether any will come"
                )
        if not 0.0 <= self.staleness_s < math.inf:
            raise ValueError(f"staleness_s must be a time of at least 0, got {self.staleness_s}")

    @classmethod
    def uniform(
        cls,
        num_replicas: int,
        config: EngineConfig | None = None,
        policy: Policy | None = None,
        *,
        staleness_s: float = 0.0,
        counts_routed: bool = True,
        migration: Migration | None = None,
    ) -> Fleet:
        """A fleet of equal replicas."""
        if num_replicas < 1:
            raise ValueError(f"a fleet needs at least one replica, got {num_replicas}")
        replica = Replica(config or EngineConfig(), policy or _default_policy())
        return cls((replica,) * num_replicas, staleness_s, counts_routed, migration)

    @property
    def num_replicas(self) -> int:
        """How many engines there are."""
        return len(self.replicas)

    @property
    def kinds(self) -> tuple[list[Replica], list[int]]:
        """The distinct replicas, and for each replica the index of its kind."""
        kinds: list[Replica] = []
        number: dict[tuple[int, int], int] = {}
        kind_of = []
        for replica in self.replicas:
            key = (id(replica.config), id(replica.policy))
            if key not in number:
                number[key] = len(kinds)
                kinds.append(replica)
            kind_of.append(number[key])
        return kinds, kind_of

    @property
    def cost_usd_per_h(self) -> float | None:
        """Price of all devices for an hour, or None if a cost model has no price."""
        return hourly_cost_usd(replica.config for replica in self.replicas)


def hourly_cost_usd(configs: Iterable[EngineConfig]) -> float | None:
    """Price of the devices of some engines for an hour, or None if one of their cost models has no price."""
    total = 0.0
    for config in configs:
        price = config.cost.price_usd_per_device_hour
        if price is None:
            return None
        total += price * config.cost.num_devices
    return total
