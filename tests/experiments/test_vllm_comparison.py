"""Real runs beside predicted ones: ratios within a turn, and a cost that makes a run as long as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.vllm.comparison import as_fast_as, ratios
from infermax_gym.cost import COSTS
from infermax_gym.workload.step_log import read_steps
from tests.vllm.test_steplog import Server, serve_one


def test_ratios_are_taken_within_a_turn() -> None:
    runs = {"fcfs": [{"ttft_s": 2.0}, {"ttft_s": 4.0}], "other": [{"ttft_s": 1.0}, {"ttft_s": 3.0}]}
    assert ratios(runs, "other", "ttft_s") == pytest.approx((0.625, 12.706 * 0.125))
    mean, half = ratios({name: own[:1] for name, own in runs.items()}, "other", "ttft_s")
    assert mean == 0.5 and half != half  # one turn says nothing of the next


def test_a_cost_is_scaled_to_the_time_that_a_run_took(tmp_path: Path) -> None:
    serve_one(Server(tmp_path), "a")
    cost = COSTS["llama2-7b-a100"]
    scaled = as_fast_as(cost, tmp_path)
    factor = scaled.terms[0][0][0] / cost.terms[0][0][0]
    assert float(read_steps(tmp_path).cycle_seconds().sum()) == pytest.approx(0.875, abs=1e-6)
    assert factor > 10.0  # a second of iterations that the model has in milliseconds
    assert as_fast_as(scaled, tmp_path).terms[0][0] == pytest.approx(scaled.terms[0][0])
