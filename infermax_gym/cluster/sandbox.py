"""Engines without contents, one per kind of replica, for routers that run copies of replicas ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from infermax_gym.cluster.fleet import Replica
from infermax_gym.engine.layout import REQUEST
from infermax_gym.engine.state import Engine, allocate, power_of_two_at_least
from infermax_gym.workload import Workload


def make_sandboxes(workload: Workload, kinds: Sequence[Replica], num_slots: int) -> list[Engine]:
    """One engine per kind, with room for all that a replica with `num_slots` may hold, and one request more.

    None of them caches prefixes. Nothing in them outlasts a choice, so copies of a fleet may share them.
    """
    return [
        allocate(workload, replace(kind.config, prefix_caching=False), kind.policy, num_slots=2 * num_slots)
        for kind in kinds
    ]


def widen(sandbox: Engine, num_slots: int) -> None:
    """Make room for all that a replica with `num_slots` may hold, and one request more."""
    if len(sandbox.arrays["req"]) > num_slots:
        return
    leaves = power_of_two_at_least(2 * num_slots)
    sandbox.arrays["req"] = np.zeros(2 * num_slots, REQUEST)
    sandbox.arrays["tree"] = np.full(2 * leaves, -1, np.int32)
    if sandbox.record["kinetic"][0]:
        sandbox.arrays["valid"] = np.empty((2, 2 * leaves))
    for name in ("req", "tree", "valid"):
        sandbox.record[f"{name}_address"] = sandbox.arrays[name].ctypes.data
