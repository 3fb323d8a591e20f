"""What an engine knows of each tenant."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.engine.policy import Policy
from infermax_gym.workload.workload import Workload

TENANT = np.dtype(
    [
        ("first", "i8"),  # its earliest arrival in the queue, -1 if nobody waits
        ("last", "i8"),  # its latest arrival, -1 if nobody has come
        ("num_waiting", "i8"),
        ("service", "f8"),  # weighted tokens charged so far
        ("weight", "f8"),
    ],
    align=True,
)


def fresh_tenants(workload: Workload, policy: Policy) -> Any:
    """(num_tenants,) TENANT before the first arrival, by tenant number."""
    tenants = np.zeros(int(workload.tenant.max(initial=0)) + 1, TENANT)
    tenants["first"] = tenants["last"] = -1
    set_weights(tenants, policy)
    return tenants


def set_weights(tenants: Any, policy: Policy) -> None:
    """Give (num_tenants,) TENANT the policy's weights, 1 where it has none."""
    tenants["weight"] = 1.0
    known = min(len(tenants), len(policy.tenant_weights))
    tenants["weight"][:known] = policy.tenant_weights[:known]
