"""Bounds hold for the engine's own figures at any clock: weeks and months round off more than seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.in_time import most_in_time
from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.optimum.rounding import as_clocked, clock_unit_s
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.workload import Workload
from tests.engine.strategies import configs, examples, policies, workloads
from tests.engine.strategies import predictions as any_predictions

WEEK_S = 604_800.0
LATE_S = st.one_of(st.sampled_from([WEEK_S, 2.0**20 - 0.5, 2.0**23 - 0.1]), st.floats(1e6, 1e7))
"""First arrivals; those just below a power of two have clocks that round off twice as much further on."""


def check(workload: Workload, config: EngineConfig, policy: Policy, predicted: np.ndarray | None) -> None:
    run = simulate(workload, config, policy, predicted=predicted)
    bounds = certify(workload, config)
    if bounds.num_requests:
        assert bounds.makespan_s <= run.makespan_s
        assert bounds.busy_s <= run.busy_s
        assert bounds.mean_latency_s <= run.latency_s[run.finished].mean()
    in_time = (run.ttft_s <= workload.ttft_slo_s) & run.finished
    assert in_time.sum() <= most_in_time(workload, config)


@examples(200)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies(), late_s=LATE_S)
def test_no_policy_beats_the_bounds_at_a_late_clock(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy, late_s: float
) -> None:
    stretch = data.draw(st.sampled_from([1.0, 1.0, 1e3, 1e6]))
    moved = replace(workload, arrival_s=workload.arrival_s * stretch + late_s)
    own_budget = replace(policy, max_num_batched_tokens=None, chunking=True)
    check(moved, config, own_budget, data.draw(any_predictions(workload)))


@pytest.mark.parametrize("late_s", [0.0, WEEK_S, 1e6, 1e7])
@pytest.mark.parametrize("cost", ["llama2-7b-a100", "llama3-70b-a100x4"])
def test_one_request_after_another_is_bounded_closely(cost: str, late_s: float) -> None:
    """Requests that never meet, the case in which the bound is the schedule itself."""
    rng = np.random.default_rng(3)
    arrivals = late_s + 60.0 * np.arange(40) + rng.uniform(0.0, 10.0, 40)
    workload = Workload(arrivals, rng.integers(1, 60, 40), rng.integers(1, 60, 40))
    config = EngineConfig(COSTS[cost], num_kv_tokens=400, block_size=1)
    check(workload, config, Policy("alone"), None)
    run = simulate(workload, config, Policy("alone"))
    bounds = certify(workload, config)
    assert bounds.mean_latency_s == pytest.approx(run.latency_s.mean(), rel=5e-6)
    assert bounds.makespan_s == pytest.approx(run.makespan_s, rel=1e-12, abs=1e-6)


@pytest.mark.parametrize("objective", ["makespan", "latency"])
def test_an_optimum_at_a_late_clock_is_the_same_and_proven(objective: str) -> None:
    lengths = [(2, 6), (3, 5), (1, 7)]
    early = solve(Instance.of(lengths, 9), objective, time_limit_s=20.0)  # type: ignore[arg-type]
    late_s = 5e6
    requests = tuple(Request(late_s, i, o) for i, o in lengths)
    late = solve(Instance(requests, 9), objective, time_limit_s=20.0)  # type: ignore[arg-type]
    shift_s = late_s if objective == "makespan" else 0.0
    assert early.status == late.status == "optimal"
    assert late.objective_s - shift_s == pytest.approx(early.objective_s, abs=1e-6)
    assert late.lower_bound_s - shift_s == pytest.approx(early.lower_bound_s, abs=1e-6)
    assert late.lower_bound_s <= late.objective_s


def test_the_margin_grows_with_the_clock() -> None:
    form = np.array([1e-2, 1e-4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert (as_clocked(form, 0.0) <= form).all() and as_clocked(form, 1.0) == pytest.approx(form, rel=1e-12)
    lost = 1.0 - as_clocked(form, 1e7)[0] / form[0]
    assert lost == pytest.approx(clock_unit_s(1e7) / 1e-2, rel=1e-6)
    # 0.1 s by the clock, iteration by iteration, after four months: never shorter than what the form says.
    clock = 1e7
    for _ in range(1000):
        later = clock + form[0]
        assert later - clock >= as_clocked(form, 1e7)[0]
        clock = later


def test_durations_below_the_clock_count_for_nothing() -> None:
    assert as_clocked(np.full(9, 1e-12), 1e7).max() == 0.0
