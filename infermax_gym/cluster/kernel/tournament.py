"""A tournament over the replicas: whose next boundary, the start of its next iteration, comes first."""

from __future__ import annotations

from typing import Any

from infermax_gym.cluster.kernel.memory import events_of
from infermax_gym.compile import inlined


@inlined
def next_boundary(f: Any, i: int) -> Any:
    """When replica i starts its next iteration; inf if it has nothing to do and its signals say so."""
    return events_of(f)[f.num_leaves + i]


@inlined
def set_boundary(f: Any, i: int, at_s: float) -> None:
    """Set when replica i starts its next iteration."""
    events = events_of(f)
    node = f.num_leaves + i
    events[node] = at_s
    node >>= 1
    while node >= 1:
        earliest = min(events[2 * node], events[2 * node + 1])
        if events[node] == earliest:
            return
        events[node] = earliest
        node >>= 1


@inlined
def earliest(f: Any) -> Any:
    """The replica with the earliest boundary, the smallest number on ties."""
    events = events_of(f)
    node = 1
    while node < f.num_leaves:
        node = 2 * node if events[2 * node] <= events[2 * node + 1] else 2 * node + 1
    return node - f.num_leaves
