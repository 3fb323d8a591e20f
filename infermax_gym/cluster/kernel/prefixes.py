"""The router's map of prefixes: what it has sent where, and what of it is presumably still cached there.

It is the router's own bookkeeping, and approximate: a run of blocks that went to a replica is taken to be cached there
until as many new prompt tokens have been sent after it as the replica has room for.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.cluster.kernel.memory import (
    constants_of,
    cores_of,
    ends_of,
    matched_of,
    parents_of,
    sent_to,
    touched_of,
)
from infermax_gym.cluster.kernel.recent_load import note
from infermax_gym.cluster.router import CONSTANTS
from infermax_gym.compile import compiled

KV_TOKENS = CONSTANTS.index("kv_tokens")


@compiled
def match(f: Any, r: int, prompt: int) -> None:
    """Fill `matched_of` for request r, the next one."""
    cores = cores_of(f)
    parents = parents_of(f)
    ends = ends_of(f)
    touched = touched_of(f)
    sent = sent_to(f)
    matched = matched_of(f)
    capacity = constants_of(f)[KV_TOKENS]
    matched[:] = 0
    node = parents[r]
    while node >= 0:
        run = node - f.num_requests
        for i in range(f.num_replicas):
            known = touched[run, i] > 0 and sent[i] - touched[run, i] <= capacity[i] and cores[i].prefix_caching
            if known and matched[i] == 0:
                matched[i] = min(ends[run], prompt - 1)
        node = parents[node]


@compiled
def remember(f: Any, i: int, r: int, tenant: int, prompt: int) -> None:
    """Request r of a tenant, whose matches are known, goes to replica i."""
    sent = sent_to(f)
    num_new_tokens = prompt - matched_of(f)[i]
    sent[i] += num_new_tokens
    note(f, i, tenant, num_new_tokens)
    if f.num_shared == 0:
        return
    parents = parents_of(f)
    touched = touched_of(f)
    node = parents[r]
    while node >= 0:
        touched[node - f.num_requests, i] = sent[i]
        node = parents[node]
