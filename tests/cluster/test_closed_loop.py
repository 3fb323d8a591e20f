"""Closed-loop traffic before a fleet: against the plain-Python fleet, and where it must be the single engine's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import (
    Arrival,
    DisaggregatedFleet,
    Fleet,
    FleetRun,
    Migration,
    Router,
    simulate_disaggregated,
    simulate_fleet,
)
from infermax_gym.engine import EngineConfig, Information, Policy, simulate
from infermax_gym.workload import Workload, closed_loop, make_workload
from tests.cluster.reference import simulate_fleet_reference
from tests.cluster.strategies import fleet_policies, fleets, migrations, routers
from tests.cluster.test_against_reference import assert_same
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, predictions, with_prefixes, workloads
from tests.engine.strategies_closed import closed_loops

REQUESTS = closed_loops(st.one_of(workloads(max_requests=25, max_output=60), with_prefixes(25)))


@examples(100)
@given(data=st.data(), workload=REQUESTS, fleet=fleets(), router=routers())
def test_random_fleets(data: st.DataObject, workload: Workload, fleet: Fleet, router: Router) -> None:
    predicted = data.draw(predictions(workload))
    seed = data.draw(st.integers(0, 5))
    went, served, reference = simulate_fleet_reference(workload, fleet, router, seed, predicted)
    result = simulate_fleet(workload, fleet, router, seed=seed, predicted=predicted)
    assert result.replica_of.tolist() == went
    assert result.pooled.arrival_s.tolist() == [request.arrival_s for request in served]
    assert_same(result, served, reference)
    assert (result.pooled.status != 2).all()
    event(f"rejected: {-1 in went}")


@examples(100)
@given(data=st.data(), workload=REQUESTS, fleet=fleets(min_replicas=2), router=routers(), migration=migrations())
def test_random_fleets_whose_requests_move(
    data: st.DataObject, workload: Workload, fleet: Fleet, router: Router, migration: Migration
) -> None:
    predicted = data.draw(predictions(workload))
    fleet = replace(fleet, migration=migration)
    went, served, reference = simulate_fleet_reference(workload, fleet, router, 0, predicted)
    result = simulate_fleet(workload, fleet, router, predicted=predicted)
    assert reference.migrations is not None
    event(f"{min(sum(reference.migrations.count.values()), 3)} migrations")
    assert result.replica_of.tolist() == went
    assert result.pooled.arrival_s.tolist() == [request.arrival_s for request in served]
    assert_same(result, served, reference)


@examples(50)
@given(data=st.data(), workload=REQUESTS, config=configs(), policy=fleet_policies(), router=routers())
def test_one_replica_is_the_engine(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy, router: Router
) -> None:
    """Where nobody is rejected; a router rejects at the arrival, an engine at its next boundary."""
    longest = int((workload.num_prompt_tokens + workload.num_output_tokens).max())
    config = replace(config, num_kv_tokens=max(config.num_kv_tokens, longest + config.block_size), max_model_len=None)
    predicted = data.draw(predictions(workload))
    alone = simulate(workload, config, policy, predicted=predicted)
    fleet = simulate_fleet(workload, Fleet.uniform(1, config, policy), router, predicted=predicted)
    same_result(fleet.pooled, alone)
    np.testing.assert_array_equal(fleet.pooled.arrival_s, alone.arrival_s)


class _Shortest:
    """A router in Python that knows requests by their numbers."""

    name = "python"
    information = Information.NONE

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def choose(self, arrival: Arrival) -> int:
        self.seen.append((arrival.request, arrival.arrival_s))
        return int(arrival.signals[0].argmin())


def test_a_router_in_python() -> None:
    workload = closed_loop(make_workload("uniform:64,32,0.5", 60, seed=1), 7, think_s=0.25, ramp_up_s=1.0)
    router = _Shortest()
    result = simulate_fleet(workload, Fleet.uniform(3), router)
    assert sorted(number for number, _ in router.seen) == list(range(60))
    assert [at_s for _, at_s in router.seen] == sorted(result.pooled.arrival_s.tolist())
    assert all(result.pooled.arrival_s[number] == at_s for number, at_s in router.seen)


@pytest.mark.parametrize("name", ["least-outstanding", "sal", "block", "preble"])
def test_a_copy_goes_on_alike(name: str) -> None:
    workload = closed_loop(make_workload("uniform:64,32,0.5", 60, seed=1), 7, think_s=0.25)
    router = ROUTERS[name]
    run = FleetRun(workload, Fleet.uniform(3), router)
    run.state.lay_out(np.zeros((60, router.num_choices)))
    candidates = np.zeros(3, bool)
    for k in range(30):
        run.show(candidates)
        run.send(k % 3)
    twin = run.copy()
    results = []
    for each in (run, twin):
        for k in range(30):
            each.show(candidates)
            each.send(k % 2)
        each.finish()
        results.append(each.result())
    same_result(results[0].pooled, results[1].pooled)
    assert results[0].pooled.arrival_s.tolist() == results[1].pooled.arrival_s.tolist()


def test_disaggregated_pools_need_known_arrivals() -> None:
    workload = closed_loop(make_workload("uniform:64,32", 6, seed=1), 2)
    pools = DisaggregatedFleet(Fleet.uniform(1), Fleet.uniform(1))
    with pytest.raises(ValueError, match="others have ended"):
        simulate_disaggregated(workload, pools, Router("round-robin"), Router("round-robin"))
