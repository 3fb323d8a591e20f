"""Shedding: a request that is shed waits behind all others, whatever the keys say, and nobody else does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.board.scenarios import SCENARIOS
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_layout import CONTROLLER_KNOBS
from infermax_gym.agents.evolution import SHORTEST_FIRST
from infermax_gym.agents.objectives import goodput_per_s
from infermax_gym.agents.scenario import TRAIN, TraceSlice, trace_slices
from infermax_gym.engine import SimulationResult
from infermax_gym.workload import Workload

CODE = replace(SCENARIOS["code-tight-overloaded-7b"], num_requests=250)
MOONCAKE = replace(SCENARIOS["mooncake-wide-overloaded-7b"], num_requests=120)
MIXED = replace(SCENARIOS["mixed-tight-overloaded-70b"], num_requests=150)


def controller(shed: float, preempt: float = -0.5) -> Controller:
    weights = weights_from_action(SHORTEST_FIRST)
    weights[CONTROLLER_KNOBS.index("shed"), 0] = shed
    weights[CONTROLLER_KNOBS.index("preempt"), 0] = preempt
    return Controller(weights, interval_s=1.0)


def play(trace_slice: TraceSlice, shed: float, preempt: float = -0.5) -> SimulationResult:
    return controller(shed, preempt).play(trace_slice.workload, trace_slice.engine, record_schedule=True)


def alone_s_of(trace_slice: TraceSlice) -> np.ndarray:
    """(n,) seconds that each request's prompt needs by itself."""
    cost = trace_slice.engine.cost
    return np.array([cost.seconds([(int(tokens), 0)]) for tokens in trace_slice.workload.num_prompt_tokens])


def late_at(w: Workload, run: SimulationResult, clock_s: float, paced_s: np.ndarray) -> np.ndarray:
    """(n,) whether each request's first token was shed, or would be if its whole prompt had to be computed yet."""
    expected_s = np.where(run.first_token_s <= clock_s, run.first_token_s, clock_s + paced_s)
    return np.asarray(expected_s > w.arrival_s + w.ttft_slo_s)


@pytest.mark.parametrize("scenario", [CODE, MIXED], ids=["code", "mixed"])
@pytest.mark.parametrize("shed", [0.5, 0.8])
def test_shed_requests_are_admitted_behind_those_in_time(scenario: object, shed: float) -> None:
    trace_slice = trace_slices(scenario, 1, split=TRAIN)[0]  # type: ignore[arg-type]
    run = play(trace_slice, shed)
    assert run.finished.all() and run.schedule is not None
    w, paced_s = trace_slice.workload, 2.0 * shed * alone_s_of(trace_slice)
    waits = np.ones(len(w), bool)
    num_late = 0
    for iteration in run.schedule:
        waits[list(iteration.preempted)] = True
        members = np.array([r for r, _ in iteration.batch])
        admitted = members[waits[members]]
        waits[members] = False
        is_late = late_at(w, run, iteration.start_s, paced_s)
        arrived = w.arrival_s <= iteration.start_s
        if is_late[admitted].any():
            num_late += 1
            has_none = ~(run.first_token_s <= iteration.start_s)
            assert not (waits & arrived & has_none & ~is_late).any()
    assert num_late > 5


def test_more_are_in_time() -> None:
    """Of the same rule: fails where nobody is shed."""
    some = trace_slices(CODE, 8, split=TRAIN)
    log_gains = [np.log(goodput_per_s(play(w, 0.65)) / goodput_per_s(play(w, -0.65))) for w in some]
    assert np.mean(log_gains) > 0.02


@pytest.mark.parametrize("preempt", [-0.5, 0.01])
@pytest.mark.parametrize("scenario", [CODE, MOONCAKE], ids=["code", "mooncake"])
def test_shed_prefills_pause_while_one_in_time_is_in_prefill(scenario: object, preempt: float) -> None:
    """No iteration goes on with one and works for the other."""
    trace_slice = trace_slices(scenario, 1, split=TRAIN)[0]  # type: ignore[arg-type]
    w, cost = trace_slice.workload, trace_slice.engine.cost
    run = play(trace_slice, 0.65, preempt)
    assert run.finished.all() and run.schedule is not None
    computed = np.zeros(len(w), np.int64)
    lost = np.zeros(len(w), bool)
    gone_on = paused = 0
    for iteration in run.schedule:
        computed[list(iteration.preempted)] = 0
        for r in np.flatnonzero((w.arrival_s <= iteration.start_s) & (computed < w.num_prompt_tokens)):
            rest_s = cost.seconds([(int(w.num_prompt_tokens[r] - computed[r]), int(computed[r]))])
            lost[r] |= iteration.start_s + 1.3 * rest_s > w.arrival_s[r] + w.ttft_slo_s[r]
        members = np.array([r for r, _ in iteration.batch])
        first = members[~(run.first_token_s[members] <= iteration.start_s)]
        for_late = lost[first] & (computed[first] > 0)
        assert not (for_late.any() and (~lost[first]).any())
        gone_on += int(for_late.any())
        under_way = lost & (computed > 0) & (computed < w.num_prompt_tokens)
        paused += int((~lost[first]).any() and under_way.any())
        for r, tokens in iteration.batch:
            computed[r] += tokens
    assert gone_on > 20 and paused > 20


def test_prefills_are_pushed_out_only_where_that_is_allowed() -> None:
    trace_slice = trace_slices(SCENARIOS["mooncake-tight-overloaded-7b"], 1, split=TRAIN)[0]
    stays, leaves = (play(trace_slice, 0.65, preempt) for preempt in (-0.5, 0.01))
    assert leaves.num_preemptions > stays.num_preemptions and leaves.finished.all()


def test_without_limits_nothing_changes() -> None:
    trace_slice = trace_slices(SCENARIOS["conv-tight-saturated-7b"], 1, split=TRAIN)[0]
    free = replace(
        trace_slice, workload=replace(trace_slice.workload, ttft_slo_s=np.full(len(trace_slice.workload), np.inf))
    )
    with_knob, without = (play(free, shed) for shed in (1.0, -1.0))
    np.testing.assert_array_equal(with_knob.finish_s, without.finish_s)
    assert (play(trace_slice, 1.0).finish_s != with_knob.finish_s).any()


@pytest.mark.parametrize("seed", range(3))
def test_any_weights_serve_everybody(seed: int) -> None:
    """Knobs that change all the time: requests are shed, taken back and preempted."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.0, 0.4, controller(0.0).weights.shape)
    trace_slice = trace_slices(MIXED, 1, split=TRAIN, seed=seed)[0]
    run = Controller(weights, interval_s=0.3, classes=True).play(trace_slice.workload, trace_slice.engine)
    assert run.finished.all()
