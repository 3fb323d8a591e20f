"""The library of proven optima says what the engine says."""

from __future__ import annotations

import pytest

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.plan import score
from infermax_gym.baselines.optimum.solved import solved_instances

ENTRIES = {entry.name: entry for entry in solved_instances()}


@pytest.mark.parametrize("name", ENTRIES)
def test_plans_replay_to_their_figures(name: str) -> None:
    entry = ENTRIES[name]
    bounds = certify(entry.instance.workload(), entry.instance.engine())
    for optimum in entry.optima:
        least = bounds.makespan_s if optimum.objective == "makespan" else bounds.mean_latency_s
        assert least <= optimum.objective_s * (1.0 + 1e-9)
        assert optimum.lower_bound_s <= optimum.objective_s
        proven = optimum.objective_s <= optimum.lower_bound_s * (1.0 + 1e-6)
        assert proven == (optimum.status == "optimal")
        if optimum.plan is not None:
            assert score(entry.instance, optimum.plan).objective(optimum.objective) == optimum.objective_s
    for objective in ("makespan", "latency"):
        values = [entry.optimum(objective, v) for v in ("preemptive", "no-preemption", "reserve")]
        if all(v.status == "optimal" for v in values):
            assert values[0].objective_s <= values[1].objective_s * (1 + 1e-9)
            assert values[1].objective_s <= values[2].objective_s * (1 + 1e-9)


def test_most_of_it_is_proven() -> None:
    optima = [o for entry in ENTRIES.values() for o in entry.optima]
    assert len(ENTRIES) >= 20
    assert sum(o.status == "optimal" for o in optima) >= 0.95 * len(optima)
