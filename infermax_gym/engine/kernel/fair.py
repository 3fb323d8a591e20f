"""Service per tenant, and the queue order that evens it out (virtual token counters)."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import requests, tenants_of
from infermax_gym.engine.layout import WAITING


@compiled
def note_push(s: Any, r: int) -> None:
    """Request r has joined the queue."""
    tenant = tenants_of(s)[requests(s)[r].tenant]
    tenant.num_waiting += 1
    if tenant.first < 0 or r < tenant.first:
        tenant.first = r


@compiled
def note_remove(s: Any, r: int) -> None:
    """Request r, the first of its tenant, has left the queue."""
    req = requests(s)
    tenant = tenants_of(s)[req[r].tenant]
    tenant.num_waiting -= 1
    if tenant.first != r:
        return
    following = req[r].next_of_tenant
    while following >= 0 and req[following].place != WAITING:
        following = req[following].next_of_tenant
    tenant.first = following


@compiled
def fair_head(s: Any) -> Any:
    """The earliest waiting request of the tenant with the least service, or -1."""
    tenants = tenants_of(s)
    best = -1
    for u in range(tenants.size):
        if tenants[u].first >= 0 and (best < 0 or tenants[u].service < tenants[best].service):
            best = u
    return tenants[best].first if best >= 0 else -1


@compiled
def link_arrival(s: Any, r: int) -> None:
    """Request r is its tenant's latest arrival."""
    req = requests(s)
    tenant = tenants_of(s)[req[r].tenant]
    req[r].next_of_tenant = -1
    if tenant.last >= 0:
        req[tenant.last].next_of_tenant = r
    tenant.last = r


@compiled
def note_arrival(s: Any, r: int) -> None:
    """Request r, its tenant's latest arrival, is about to join the queue.

    A tenant without waiting requests keeps no credit: it is lifted to the least served of those with some.
    """
    link_arrival(s, r)
    req = requests(s)
    tenants = tenants_of(s)
    tenant = tenants[req[r].tenant]
    if tenant.num_waiting > 0 or s.num_waiting == 0:
        return
    least = np.inf
    for u in range(tenants.size):
        if tenants[u].num_waiting > 0:
            least = min(least, tenants[u].service)
    tenant.service = max(tenant.service, least)


@inlined
def charge(s: Any, r: int, amount: float) -> None:
    """Count `amount` as service of request r's tenant."""
    tenant = tenants_of(s)[requests(s)[r].tenant]
    tenant.service += amount / tenant.weight
