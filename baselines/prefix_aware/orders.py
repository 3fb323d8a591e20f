"""Who is next: first come first served, longest prefix match, and longest prefix match with a bound on unfairness.

An order is asked again after every admission, since k-LPM counts them and DLPM charges for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Candidate:
    """A waiting request as an order sees it.

    Attributes:
        request: its number.
        tenant: whose it is.
        cached: tokens that it would find in the prefix cache.
        extend: known tokens that it would have to compute.
        extend_blocks: the same in whole blocks, rounded up.
        waited_s: seconds since it arrived.
        has_begun: whether it has generated tokens, and was preempted since.
    """

    request: int
    tenant: int
    cached: int
    extend: int
    extend_blocks: int = 0
    waited_s: float = 0.0
    has_begun: bool = False


class Order(Protocol):
    """The choice of the next waiting request, with whatever it remembers of earlier ones."""

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """Index of the next among the candidates (at least one), who stand in the order in which they came."""
        ...

    def admitted(self, candidate: Candidate) -> None:
        """The candidate joins."""
        ...

    def decoded(self, tenant: int) -> None:
        """A request of a tenant gets an output token."""
        ...


class Fcfs:
    """Who came first; retracted requests come again."""

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """See `Order.choose`."""
        return 0

    def admitted(self, candidate: Candidate) -> None:
        """See `Order.admitted`."""

    def decoded(self, tenant: int) -> None:
        """See `Order.decoded`."""


LPM_LIMIT = 128
"""Above so many waiting requests SGLang takes them as they came: matching all of them takes too long."""


def longest_match(waiting: Sequence[Candidate]) -> int:
    """The candidate with most cached tokens, the first of them on ties."""
    if len(waiting) > LPM_LIMIT:
        return 0
    return max(range(len(waiting)), key=lambda i: waiting[i].cached)


class ShortestExtend(Fcfs):
    """Who has the fewest tokens to compute, the first of them on ties."""

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """See `Order.choose`."""
        return min(range(len(waiting)), key=lambda i: waiting[i].extend)


class AgedShortest(Fcfs):
    """Who has the fewest tokens to compute, less `aging` tokens for each second since the arrival."""

    def __init__(self, aging: float) -> None:
        self.aging = aging

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """See `Order.choose`."""
        return min(range(len(waiting)), key=lambda i: waiting[i].extend - self.aging * waiting[i].waited_s)


class ResidualShortest(Fcfs):
    """Preempted requests, then those that arrived `max_wait_s` ago, then who has the fewest blocks to compute.

    The first in the queue on ties.
    """

    def __init__(self, max_wait_s: float) -> None:
        self.max_wait_s = max_wait_s

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """See `Order.choose`."""
        return min(range(len(waiting)), key=lambda i: self._key(waiting[i]))

    def _key(self, candidate: Candidate) -> tuple[int, float]:
        if candidate.has_begun:
            return 0, 0.0
        if candidate.waited_s >= self.max_wait_s:
            return 1, -candidate.waited_s
        return 2, float(candidate.extend_blocks)


class KLpm(Fcfs):
    """k-LPM: k - 1 longest matches, then the one that came first, and so on; never the latter for k = inf (LPM)."""

    def __init__(self, k: float) -> None:
        self.k = k
        self.num_admitted = 0

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """See `Order.choose`."""
        oldest_is_due = math.isfinite(self.k) and (self.num_admitted + 1) % self.k == 0
        return 0 if oldest_is_due else longest_match(waiting)

    def admitted(self, candidate: Candidate) -> None:
        """See `Order.admitted`."""
        self.num_admitted += 1


class Deficit:
    """DLPM: longest matches among the tenants with credit, which computed and output tokens use up.

    A tenant gets a quantum with its first request, and every waiting one another when none of them has credit left.
    """

    def __init__(self, quantum: float, prompt_weight: float = 1.0, output_weight: float = 2.0) -> None:
        self.quantum = quantum
        self.prompt_weight, self.output_weight = prompt_weight, output_weight
        self.credit: dict[int, float] = {}

    def choose(self, waiting: Sequence[Candidate]) -> int:
        """See `Order.choose`."""
        tenants = {candidate.tenant for candidate in waiting}
        for tenant in tenants:
            self.credit.setdefault(tenant, self.quantum)
        most = max(self.credit[tenant] for tenant in tenants)
        if most <= 0.0:
            rounds = math.floor(-most / self.quantum) + 1
            for tenant in tenants:
                self.credit[tenant] += rounds * self.quantum
        served = [i for i, candidate in enumerate(waiting) if self.credit[candidate.tenant] > 0.0]
        if len(waiting) > LPM_LIMIT:
            return served[0]
        return max(served, key=lambda i: waiting[i].cached)

    def admitted(self, candidate: Candidate) -> None:
        """See `Order.admitted`."""
        self.credit[candidate.tenant] -= self.prompt_weight * candidate.extend

    def decoded(self, tenant: int) -> None:
        """See `Order.decoded`."""
        self.credit[tenant] -= self.output_weight
