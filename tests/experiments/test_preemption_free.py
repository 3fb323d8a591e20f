import numpy as np
import pytest

from experiments.studies.preemption_free import busy_bound_s, fewest_bins
from infermax_gym.baselines.optimum import Instance, solve, solved_instances


def test_each_bin_holds_one_item_more() -> None:
    assert fewest_bins(np.array([5, 5, 5]), room=0) == 3
    assert fewest_bins(np.array([5, 5, 5]), room=5) == 2
    assert fewest_bins(np.array([9, 1, 1, 1]), room=3) == 1


@pytest.mark.parametrize("entry", [e for e in solved_instances() if e.instance.is_offline], ids=lambda e: e.name)
def test_no_proven_optimum_without_preemption_lies_below_the_bound(entry) -> None:  # type: ignore[no-untyped-def]
    optimum = entry.optimum("makespan", "no-preemption")
    assert optimum.status == "optimal"
    arrival_s = entry.instance.requests[0].arrival_s
    assert busy_bound_s(entry.instance) <= optimum.objective_s - arrival_s


def test_where_memory_holds_one_request_the_bound_beats_that_of_all_schedules() -> None:
    instance = Instance.of([(2, 8)] * 3, kv_tokens=9, cost="llama3-70b-a100x4")
    preempting = solve(instance, "makespan", max_evaluations=300)
    assert busy_bound_s(instance) > preempting.objective_s


def test_arrivals_in_time_are_refused() -> None:
    entry = next(e for e in solved_instances() if not e.instance.is_offline)
    with pytest.raises(ValueError, match="arrive together"):
        busy_bound_s(entry.instance)
