"""Service of tenants: the paragraph "Tenants"."""

from __future__ import annotations

from tests.reference.request import Request
from tests.reference.state import Engine


def lift_tenant(engine: Engine, request: Request) -> None:
    """A tenant that had nobody waiting keeps no credit from then."""
    waiting = {other.tenant for other in engine.queue}
    if waiting and request.tenant not in waiting:
        least = min(engine.service[tenant] for tenant in waiting)
        engine.service[request.tenant] = max(engine.service[request.tenant], least)


def charge(engine: Engine, request: Request, amount: float) -> None:
    """Count service of the request's tenant."""
    weights = engine.policy.tenant_weights
    weight = weights[request.tenant] if request.tenant < len(weights) else 1.0
    engine.service[request.tenant] += amount / weight
