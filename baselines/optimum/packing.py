"""Dual feasible functions: how many batches the memory forces at least.

Every output token is an item: the pass that emits it needs `size` blocks of the `capacity`. Items that share a
batch fit together, so emitting all of them takes at least as many batches as packing them into bins. A dual
feasible function f maps sizes so that items that fit together keep a total of at most f(capacity); then
ceil(sum f(size) / f(capacity)) is a lower bound on the bins, often far above the plain one with f(x) = x.
Families: the identity, thresholds, and those of Fekete and Schepers (2001) and of Carlier, Clautiaux and Moukrim
(2007), here in integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DualFeasible:
    """One function of a family.

    Attributes:
        family: "identity", "threshold", "fekete-schepers" or "carlier".
        capacity: size of a bin.
        parameter: the family's parameter.
    """

    family: str
    capacity: int
    parameter: int = 1

    def __call__(self, x: Ints) -> Ints:
        """F of each size (0 <= x <= capacity)."""
        capacity, k = self.capacity, self.parameter
        if self.family == "threshold":  # below k nothing, above capacity - k a whole bin
            return np.where(x < k, 0, np.where(x > capacity - k, capacity, x))
        if self.family == "fekete-schepers":  # whole k + 1-ths stay, the rest is rounded down to k-ths
            whole = (k + 1) * x // capacity
            return np.where((k + 1) * x % capacity == 0, k * whole, (k + 1) * whole)
        if self.family == "carlier":  # multiples of k, rounded up above one half
            bins = capacity // k
            above = np.where(2 * x == capacity, bins, 2 * (bins - (capacity - x) // k))
            return np.where(2 * x < capacity, 2 * (x // k), above)
        return np.asarray(x, dtype=np.int64)

    @property
    def bin(self) -> int:
        """f(capacity)."""
        return int(self(np.array([self.capacity], dtype=np.int64))[0])


def family(capacity: int, limit: int = 256) -> Iterator[DualFeasible]:
    """At most about `limit` functions of all families for bins of `capacity`; the identity comes first."""
    yield DualFeasible("identity", capacity)
    each = max(limit // 3, 1)
    cuts = [int(c) for c in np.unique(np.linspace(2, max(capacity // 2, 2), each).astype(int))]
    for name in ("threshold", "carlier"):
        for cut in cuts:
            if cut <= capacity // 2:
                yield DualFeasible(name, capacity, cut)
    for k in range(1, min(each, max(capacity, 2))):
        yield DualFeasible("fekete-schepers", capacity, k)
