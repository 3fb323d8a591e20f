"""Sizes as shares: what they resolve to, and that the same shares mean the same on every engine."""

from __future__ import annotations

import numpy as np
import pytest

from infermax_gym.baselines.table.shares import (
    SPF_SHARE,
    Shares,
    decode_seconds,
    efficient_budget,
    efficient_running,
    prefill_seconds,
)
from infermax_gym.cost import COSTS
from infermax_gym.cost.engines.table import find_engine
from infermax_gym.engine import EngineConfig, Policy


def engine(name: str) -> EngineConfig:
    one = find_engine(name)
    return EngineConfig(one.cost, one.num_kv_tokens, one.block_size, one.max_num_batched_tokens, one.max_num_seqs)


@pytest.mark.parametrize("name", ["llama-3.1-8b@h100", "qwen3-30b-a3b@b200", "qwen3-32b@l40sx2"])
def test_a_budget_keeps_its_share_of_throughput_and_not_more_than_it_must(name: str) -> None:
    config = engine(name)
    sizes = np.arange(1.0, config.max_num_batched_tokens + 1)
    rates = sizes / prefill_seconds(config.cost, sizes)
    budget = efficient_budget(config, 0.9)
    assert rates[budget - 1] >= 0.9 * rates.max() * (1 - 1e-3)
    assert rates[int(budget / 1.1) - 1] < 0.9 * rates.max()


def test_seconds_are_those_of_the_cost_model() -> None:
    for cost in (COSTS["llama2-7b-a100"], find_engine("gpt-oss-120b@h200").cost):
        assert prefill_seconds(cost, np.array([700.0]))[0] == pytest.approx(cost.seconds(prefills=[(700, 0)]))
        assert decode_seconds(cost, np.array([3.0]), 50.0)[0] == pytest.approx(cost.seconds(decodes=[50] * 3))


def test_longer_contexts_leave_fewer_running() -> None:
    config = engine("llama-3.1-8b@h100")
    assert efficient_running(config, 0.5, 200.0) > efficient_running(config, 0.5, 8000.0) >= 1
    assert efficient_running(config, 1.0, 1000.0) <= config.num_kv_tokens // 1000


def test_no_share_leaves_the_engine_its_sizes() -> None:
    policy = Shares(Policy("plain")).resolve(engine("llama-3.1-8b@h100"))
    assert policy.max_num_batched_tokens is None and policy.max_running is None


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_shares_are_shares(share: float) -> None:
    with pytest.raises(ValueError, match="prefill_efficiency must be in"):
        Shares(SPF_SHARE.base, prefill_efficiency=share)


def test_a_base_has_no_sizes_of_its_own() -> None:
    with pytest.raises(ValueError, match="must leave cap and budget"):
        Shares(Policy("capped", max_running=3))
