"""Dual feasible functions: how many batches the memory forces at least.

Every output token is an item: the pass that emits it needs `size` blocks of the `capacity`. Items that share a
batch fit together, so emitting all of them takes at least as many batches as packing them into bins. A dual
feasible function f maps sizes so that items that fit together keep a total of at most f(capacity); then
ceil(sum f(size) / f(capacity)) is a lower bound on the bins, often far above the plain one with f(x) = x.
Families: the identity, thresholds, and those of Fekete and Schepers (2001) and of Carlier, Clautiaux and Moukrim
(2007), here in integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_MAX_CAPACITY = 2**20  # beyond that the families with a threshold are sampled and sizes stay below 2^60


def identity(capacity: int) -> Ints:
    """f(x) = x, as a table over 0..capacity."""
    return np.arange(capacity + 1, dtype=np.int64)


def threshold(capacity: int, cut: int) -> Ints:
    """Sizes below `cut` count nothing, sizes above capacity - cut a whole bin (cut <= capacity / 2)."""
    table = identity(capacity)
    table[:cut] = 0
    table[capacity - cut + 1 :] = capacity
    return table


def fekete_schepers(capacity: int, k: int) -> Ints:
    """u^(k): x stays where (k + 1) x / capacity is whole, else it is rounded down to a k-th."""
    x = identity(capacity)
    scaled = (k + 1) * x
    return np.where(scaled % capacity == 0, k * (scaled // capacity), (k + 1) * (scaled // capacity))


def carlier(capacity: int, k: int) -> Ints:
    """Counts whole multiples of k (1 <= k <= capacity / 2), rounded up for sizes above one half."""
    x = identity(capacity)
    whole = capacity // k
    table = np.where(2 * x < capacity, 2 * (x // k), 2 * (whole - (capacity - x) // k))
    return np.where(2 * x == capacity, whole, table)


def all_tables(capacity: int, limit: int = 256) -> list[Ints]:
    """Tables of all families, at most about `limit` of them; the identity comes first.

    Args:
        capacity: blocks of one bin.
        limit: how many.
    """
    tables = [identity(capacity)]
    each = max(limit // 3, 1)
    cuts = np.unique(np.linspace(2, max(capacity // 2, 2), each).astype(int))
    tables += [threshold(capacity, int(c)) for c in cuts if 2 <= c <= capacity // 2]
    tables += [fekete_schepers(capacity, k) for k in range(1, min(each, max(capacity, 2)))]
    tables += [carlier(capacity, int(c)) for c in cuts if 2 <= c <= capacity // 2]
    return tables
