"""Arrivals exactly on the grid of snapshots."""

from __future__ import annotations

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, simulate_fleet
from infermax_gym.cluster.kernel.events import snapshot_at
from infermax_gym.compile import compiled
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload
from tests.cluster.reference import simulate_fleet_reference


@compiled
def numbers_at(at_s, staleness_s, out):
    for i in range(len(at_s)):
        out[i] = snapshot_at(at_s[i], staleness_s)


def numbers(at_s: np.ndarray, staleness_s: float) -> list[float]:
    out = np.empty(len(at_s))
    numbers_at(at_s, staleness_s, out)
    return out.tolist()


@pytest.mark.parametrize(("staleness_s", "per_s"), [(0.1, 10), (0.05, 20), (0.7, None), (1 / 3, 3), (0.001, 1000)])
def test_the_snapshot_of_a_moment_on_the_grid_is_its_own(staleness_s: float, per_s: int | None) -> None:
    k = np.arange(200_000.0)
    assert numbers(k * staleness_s, staleness_s) == k.tolist()
    if per_s is not None:  # as written in a trace: 0.3, not 3 x 0.1
        assert numbers(k / per_s, staleness_s) == k.tolist()


def test_a_moment_before_and_after_the_grid() -> None:
    k = np.arange(1.0, 1000.0)
    assert numbers(k * 0.1 - 1e-9, 0.1) == (k - 1).tolist()
    assert numbers(k * 0.1 + 1e-9, 0.1) == k.tolist()


def test_the_router_sees_what_was_sent_before_the_moment() -> None:
    arrival_s = np.array([0.0, 0.25, 0.3])
    workload = Workload(arrival_s, np.full(3, 100), np.full(3, 500))
    config = EngineConfig(num_kv_tokens=5_000)
    fleet = Fleet.uniform(2, config, POLICIES["vllm-v1"], staleness_s=0.1, counts_routed=False)
    router = ROUTERS["least-outstanding"]
    # At 0.25 the snapshot of 0.2 shows one request at replica 0; at 0.3 one at each, so the next in line is 0.
    expected = [0, 1, 0]
    assert simulate_fleet(workload, fleet, router).replica_of.tolist() == expected
    assert simulate_fleet_reference(workload, fleet, router)[0] == expected
