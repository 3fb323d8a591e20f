"""The compiled fleet against the plain-Python one: where every request went, and when everything happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

from infermax_gym.cluster import Fleet, FleetResult, Migration, Router, simulate_fleet
from infermax_gym.workload.workload import Workload
from tests.cluster.reference import ReferenceFleet, simulate_fleet_reference
from tests.cluster.strategies import fleets, migrations, routers
from tests.engine.strategies import examples, predictions, with_prefixes, workloads
from tests.reference.request import Request


@examples(300)
@given(
    data=st.data(), workload=st.one_of(workloads(max_requests=25), with_prefixes(25)), fleet=fleets(), router=routers()
)
def test_random_fleets(data: st.DataObject, workload: Workload, fleet: Fleet, router: Router) -> None:
    predicted = data.draw(predictions(workload))
    seed = data.draw(st.integers(0, 5))
    went, served, reference = simulate_fleet_reference(workload, fleet, router, seed, predicted)
    result = simulate_fleet(workload, fleet, router, seed=seed, predicted=predicted)
    assert result.replica_of.tolist() == went
    assert_same(result, served, reference)


@examples(100)
@given(
    data=st.data(),
    workload=workloads(max_requests=25),
    fleet=fleets(min_replicas=2),
    router=routers(),
    sticky_s=st.sampled_from([0.0005, 0.02, 300.0]),
)
def test_random_fleets_with_sessions(
    data: st.DataObject, workload: Workload, fleet: Fleet, router: Router, sticky_s: float
) -> None:
    n = len(workload)
    workload = replace(workload, session=data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    router, predicted = replace(router, sticky_s=sticky_s), data.draw(predictions(workload))
    went, served, reference = simulate_fleet_reference(workload, fleet, router, 0, predicted)
    result = simulate_fleet(workload, fleet, router, predicted=predicted)
    assert result.replica_of.tolist() == went
    assert_same(result, served, reference)


@examples(300)
@given(
    data=st.data(),
    workload=st.one_of(workloads(max_requests=25, max_output=60), with_prefixes(25)),
    fleet=fleets(min_replicas=2),
    router=routers(),
    migration=migrations(),
)
def test_random_fleets_whose_requests_move(
    data: st.DataObject, workload: Workload, fleet: Fleet, router: Router, migration: Migration
) -> None:
    predicted = data.draw(predictions(workload))
    fleet = replace(fleet, migration=migration)
    went, served, reference = simulate_fleet_reference(workload, fleet, router, 0, predicted)
    result = simulate_fleet(workload, fleet, router, predicted=predicted)
    assert reference.migrations is not None
    count = reference.migrations.count
    event(f"{min(sum(count.values()), 3)} migrations")
    event(f"{min(reference.migrations.num_aborted, 3)} aborted")
    assert result.replica_of.tolist() == went
    assert result.num_migrations_of.tolist() == [count.get(number, 0) for number in range(len(workload))]
    assert result.num_aborted_migrations == reference.migrations.num_aborted
    assert_same(result, served, reference)
    finished = result.pooled.finished
    assert (result.pooled.num_generated_tokens[finished] == workload.num_output_tokens[finished]).all()
    assert finished.sum() + (result.replica_of < 0).sum() == len(workload)
    assert result.pooled.gap_counts.sum() == (workload.num_output_tokens[finished] - 1).sum()
    latest = [r.run.engine for r in reference.replicas]
    assert all(engine.free == engine.N for engine in latest)


def assert_same(result: FleetResult, served: Sequence[Request], reference: ReferenceFleet) -> None:
    """The records of all requests, and the totals of all replicas."""
    for name in ("first_scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_array_equal(getattr(result.pooled, name), [getattr(r, name) for r in served], err_msg=name)
    assert result.pooled.num_preemptions_of.tolist() == [r.num_preemptions for r in served]
    assert result.pooled.num_recomputed_tokens_of.tolist() == [r.num_recomputed_tokens for r in served]
    assert result.busy_s_of.tolist() == [replica.run.books.busy_s for replica in reference.replicas]
    assert result.num_iterations_of.tolist() == [len(replica.run.books.schedule) for replica in reference.replicas]
