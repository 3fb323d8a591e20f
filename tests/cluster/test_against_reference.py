"""The compiled fleet against the plain-Python one: where every request went, and when everything happened."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.cluster import Fleet, Router, simulate_fleet
from infermax_gym.workload.workload import Workload
from tests.cluster.reference import simulate_fleet_reference
from tests.cluster.strategies import fleets, routers
from tests.engine.strategies import examples, predictions, with_prefixes, workloads


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
    for name in ("first_scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_array_equal(getattr(result.pooled, name), [getattr(r, name) for r in served], err_msg=name)
    assert result.pooled.num_preemptions_of.tolist() == [r.num_preemptions for r in served]
    assert result.pooled.num_recomputed_tokens_of.tolist() == [r.num_recomputed_tokens for r in served]
    assert result.busy_s_of.tolist() == [replica.run.books.busy_s for replica in reference.replicas]
    assert result.num_iterations_of.tolist() == [len(replica.run.books.schedule) for replica in reference.replicas]
