"""Requests that move from one replica to another while they decode, after Llumnix (2406.03243)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

from infermax_gym.cluster.transfer import KvTransfer


class Pairing(IntEnum):
    """When a pair of replicas moves a request."""

    DEFRAG = 0  # always: memory is gathered where there is most of it
    BALANCED = 1  # only if their loads come closer and keep their order


class Mover(IntEnum):
    """Which running decode moves."""

    SHORTEST = 0  # the fewest tokens of KV
    LONGEST = 1  # the most
    LAST = 2  # the last of the running list


@dataclass(frozen=True)
class Migration:
    """Requests move between the replicas of a fleet. docs/cluster.md says what exactly happens.

    The load of a replica is minus its free KV blocks, less those that waiting requests will need, for each request
    there: minus the tokens, in blocks, that each of them may still grow. An empty replica has load -inf.

    Attributes:
        period_s: every so many seconds replicas are paired, the most loaded with the least loaded.
        pairing: when a pair moves a request. Default: Llumnix's own.
        mover: which request that is.
        threshold: load above which a replica gives requests away, and below which it takes them.
        transfer: what it takes to move KV; its latency is also how long a request stands still at least.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Migration(period_s=0.5).threshold
        -3.0
    """

    period_s: float = 0.05
    pairing: Pairing = Pairing.DEFRAG
    mover: Mover = Mover.SHORTEST
    threshold: float = -3.0
    transfer: KvTransfer = field(default_factory=KvTransfer)

    def __post_init__(self) -> None:
        if not 0.0 < self.period_s < math.inf:
            raise ValueError(f"Migration: period_s must be a time above 0, got {self.period_s}")
        if math.isnan(self.threshold):
            raise ValueError("Migration: threshold must be a number, got nan")
