"""Every faulty setting gets one line."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from infermax_gym.cost import COSTS
from infermax_gym.engine.policy import QueueOrder
from infermax_gym.envs.config import BASE, EnvConfig
from infermax_gym.envs.env import InferMaxEnv
from infermax_gym.envs.knobs import InferMaxKnobsEnv

KNOWN = f"known: {', '.join(COSTS)}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workloads": ()}, "environment: needs at least one workload and one cost model"),
        ({"costs": ()}, "environment: needs at least one workload and one cost model"),
        ({"costs": ("abacus",)}, f"environment: unknown cost model 'abacus'; {KNOWN}"),
        ({"num_requests": 0}, "environment: num_requests must be at least 1, got 0"),
        ({"num_waiting_slots": 0}, "environment: num_waiting_slots must be in 1..128, got 0"),
        ({"num_running_slots": 129}, "environment: num_running_slots must be in 1..128, got 129"),
        ({"backlog": (-1, 0)}, "environment: backlog must be a range 0 <= low <= high, got (-1, 0)"),
        ({"backlog": (3, 2)}, "environment: backlog must be a range 0 <= low <= high, got (3, 2)"),
        ({"time_scale": (0.0, 1.0)}, "environment: time_scale must be positive"),
        (
            {"time_scale": (1.0, math.inf)},
            "environment: time_scale must be a range 0.0 <= low <= high, got (1.0, inf)",
        ),
        ({"num_kv_tokens": (15, 99)}, "environment: num_kv_tokens must be a range 16 <= low <= high, got (15, 99)"),
        ({"level_shares": ()}, "environment: level_shares must ascend to 1"),
        ({"level_shares": (0.5, 0.5, 1.0)}, "environment: level_shares must ascend to 1"),
        ({"level_shares": (-0.5, 1.0)}, "environment: level_shares must ascend to 1"),
        ({"level_shares": (0.0, 0.5)}, "environment: level_shares must ascend to 1"),
        ({"decide": "never"}, "environment: decide must be 'change', 'event' or 'iteration', got 'never'"),
        ({"information": "all"}, "environment: information must be one of none, noisy, oracle, got 'all'"),
        ({"prediction_sigma": -0.1}, "environment: prediction_sigma must not be negative"),
        ({"time_limit_s": 0.0}, "environment: time_limit_s must be positive"),
        ({"max_decisions": 0}, "environment: max_decisions must be at least 1"),
        ({"reward": "speed"}, "unknown reward 'speed'; known: latency, ttft, gpu_cost, goodput"),
        (
            {"base": replace(BASE, queue_order=QueueOrder.RESPONSE_RATIO)},
            "environment: base must have a FIFO or LINEAR queue order: slots show fixed keys",
        ),
        ({"block_size": 0}, "environment: sizes >= 1"),
        ({"max_num_batched_tokens": 0}, "environment: sizes >= 1"),
        ({"max_num_seqs": 0}, "environment: sizes >= 1"),
    ],
)
def test_errors(settings: dict[str, Any], message: str) -> None:
    for make in (EnvConfig, InferMaxEnv):
        with pytest.raises(ValueError) as caught:
            make(**settings)
        assert str(caught.value) == message


def test_moving_queue_keys_are_refused() -> None:
    for order in set(QueueOrder) - {QueueOrder.FIFO, QueueOrder.LINEAR}:
        with pytest.raises(ValueError, match="slots show fixed keys"):
            EnvConfig(base=replace(BASE, queue_order=order))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: InferMaxEnv(render_mode="human"),
            ValueError,
            "render_mode must be ansi, rgb_array or None, got 'human'",
        ),
        (lambda: InferMaxEnv(speed=1), TypeError, "speed"),
        (
            lambda: InferMaxKnobsEnv(interval_s=0.0),
            ValueError,
            "interval_s must be positive and finite, got 0.0",
        ),
    ],
)
def test_errors_of_environments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_change_a_configuration() -> None:
    config = EnvConfig(num_requests=7)
    env = InferMaxEnv(config, num_waiting_slots=3, level_shares=(0.5, 1.0))
    assert (env.config.num_requests, env.layout.num_waiting_slots, env.layout.num_chunk_budgets) == (7, 3, 2)
    assert config.num_waiting_slots == 16, "the configuration itself stays as it is"
    assert env.config.levels == (256, 512)


def test_levels_follow_the_base_rows_budget() -> None:
    assert EnvConfig(base=replace(BASE, max_num_batched_tokens=100)).levels == (0, 25, 50, 100)
