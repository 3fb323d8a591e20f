"""Swapped tokens that lag behind are counted whole, so rounding decides nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.workload import make_workload

CONFIG = EngineConfig(num_kv_tokens=20_000)
WORKLOAD = make_workload("reasoning", 300, rate=1.0, seed=0)


def batches(result: SimulationResult) -> list[object]:
    assert result.schedule is not None
    return [(iteration.batch, iteration.preempted) for iteration in result.schedule]


@pytest.mark.parametrize("factor", [1.0 - 1e-14, 1.0 + 1e-14])
def test_the_last_bit_of_the_bandwidth_changes_no_schedule(factor: float) -> None:
    other = replace(CONFIG, swap_tokens_per_s=CONFIG.swap_tokens_per_s * factor)
    assert other != CONFIG
    expected = simulate(WORKLOAD, CONFIG, POLICIES["fastserve"], record_schedule=True)
    assert expected.num_preemptions > 100
    assert batches(simulate(WORKLOAD, other, POLICIES["fastserve"], record_schedule=True)) == batches(expected)
