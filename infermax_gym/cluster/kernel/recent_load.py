"""What went where in the last seconds, and what tenants are charged: a router's own books, besides its map of prefixes.

Both count new prompt tokens: those that matched nothing where the request went.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.cluster.kernel.memory import (
    arrival_seconds_of,
    charged_to,
    new_tokens_of,
    num_forgotten_of,
    recent_tokens_of,
    replica_of,
    routed_of,
)
from infermax_gym.compile import compiled, inlined


@inlined
def note(f: Any, i: int, tenant: int, num_new_tokens: int) -> None:
    """The next request, one of a tenant, goes to replica i."""
    if f.num_recent > 0:
        new_tokens_of(f)[f.next_request] = num_new_tokens
        recent_tokens_of(f)[i] += num_new_tokens
    if f.num_tenants > 0:
        charged_to(f)[tenant, i] += num_new_tokens


@compiled
def forget_before(f: Any, at_s: float) -> None:
    """Take out of the recent load what arrived at or before `at_s`."""
    arrival_s = arrival_seconds_of(f)
    new_tokens = new_tokens_of(f)
    recent_tokens = recent_tokens_of(f)
    routed = routed_of(f)
    went = replica_of(f)
    num_forgotten = num_forgotten_of(f)
    k = num_forgotten[0]
    while k < f.next_request and arrival_s[k] <= at_s:
        i = went[routed[k]]
        if i >= 0:
            recent_tokens[i] -= new_tokens[k]
        k += 1
    num_forgotten[0] = k
