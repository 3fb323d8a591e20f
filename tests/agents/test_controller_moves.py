"""Giving up: who is bound to be late waits behind all others, whatever the keys say, and nobody else does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from experiments.board.rivals import STARTS
from experiments.board.scenarios import GRID
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_kernel import CONTROLLER_KNOBS
from infermax_gym.agents.objectives import goodput_per_s
from infermax_gym.agents.scenario import TRAIN, Window, windows
from infermax_gym.engine import SimulationResult

SHORTEST_FIRST = STARTS[0]
CODE = replace(GRID["code-tight-overloaded-7b"], num_requests=250)
MOONCAKE = replace(GRID["mooncake-wide-overloaded-7b"], num_requests=120)
MIXED = replace(GRID["mixed-tight-overloaded-70b"], num_requests=150)


def controller(late: float, push_out: float = -0.5) -> Controller:
    weights = weights_from_action(SHORTEST_FIRST)
    weights[CONTROLLER_KNOBS.index("late"), 0] = late
    weights[CONTROLLER_KNOBS.index("push_out"), 0] = push_out
    return Controller(weights, interval_s=1.0)


def play(window: Window, late: float, push_out: float = -0.5) -> SimulationResult:
    return controller(late, push_out).play(window.workload, window.engine, record_schedule=True)


def late_at(window: Window, run: SimulationResult, clock_s: float, pace: float) -> np.ndarray:
    """(n,) whether each request's first token was late, or would be if its whole prompt had to be computed yet."""
    w = window.workload
    alone_s = np.array([window.engine.cost.seconds([(int(tokens), 0)]) for tokens in w.num_prompt_tokens])
    expected_s = np.where(run.first_token_s <= clock_s, run.first_token_s, clock_s + pace * alone_s)
    return np.asarray(expected_s > w.arrival_s + w.ttft_slo_s)


@pytest.mark.parametrize("cell", [CODE, MIXED], ids=["code", "mixed"])
@pytest.mark.parametrize("late", [0.5, 0.8])
def test_nobody_bound_to_be_late_is_admitted_before_somebody_in_time(cell: object, late: float) -> None:
    window = windows(cell, 1, split=TRAIN)[0]  # type: ignore[arg-type]
    run = play(window, late)
    assert run.finished.all() and run.schedule is not None
    waits = np.ones(len(window.workload), bool)
    num_late = 0
    for iteration in run.schedule:
        waits[list(iteration.preempted)] = True
        members = np.array([r for r, _ in iteration.batch])
        admitted = members[waits[members]]
        waits[members] = False
        is_late = late_at(window, run, iteration.start_s, 2.0 * late)
        arrived = window.workload.arrival_s <= iteration.start_s
        if is_late[admitted].any():
            num_late += 1
            has_none = ~(run.first_token_s <= iteration.start_s)
            assert not (waits & arrived & has_none & ~is_late).any()
    assert num_late > 5


def test_more_are_in_time() -> None:
    """Of the same rule: fails where nobody is given up."""
    some = windows(CODE, 8, split=TRAIN)
    log_gains = [np.log(goodput_per_s(play(w, 0.65)) / goodput_per_s(play(w, -0.65))) for w in some]
    assert np.mean(log_gains) > 0.02


@pytest.mark.parametrize("push_out", [-0.5, 0.01])
@pytest.mark.parametrize("cell", [CODE, MOONCAKE], ids=["code", "mooncake"])
def test_prefills_bound_to_be_late_pause_while_somebody_in_time_is_in_prefill(cell: object, push_out: float) -> None:
    """No iteration goes on with one and works for the other."""
    window = windows(cell, 1, split=TRAIN)[0]  # type: ignore[arg-type]
    w, cost = window.workload, window.engine.cost
    run = play(window, 0.65, push_out)
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
    window = windows(GRID["mooncake-tight-overloaded-7b"], 1, split=TRAIN)[0]
    stays, leaves = (play(window, 0.65, push_out) for push_out in (-0.5, 0.01))
    assert leaves.num_preemptions > stays.num_preemptions and leaves.finished.all()


def test_without_limits_nothing_changes() -> None:
    window = windows(GRID["conv-tight-saturated-7b"], 1, split=TRAIN)[0]
    free = replace(window, workload=replace(window.workload, ttft_slo_s=np.full(len(window.workload), np.inf)))
    with_knob, without = (play(free, late) for late in (1.0, -1.0))
    np.testing.assert_array_equal(with_knob.finish_s, without.finish_s)
    assert (play(window, 1.0).finish_s != with_knob.finish_s).any()


@pytest.mark.parametrize("seed", range(3))
def test_any_weights_serve_everybody(seed: int) -> None:
    """Knobs that change all the time: requests are given up, taken back and pushed out."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0.0, 0.4, controller(0.0).weights.shape)
    window = windows(MIXED, 1, split=TRAIN, seed=seed)[0]
    run = Controller(weights, interval_s=0.3, classes=True).play(window.workload, window.engine)
    assert run.finished.all()
