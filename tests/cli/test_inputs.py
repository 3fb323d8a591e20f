"""What engine options stand for: sizes of a named engine, what is typed, defaults."""

from __future__ import annotations

import pytest

from infermax_gym.cli.errors import InputError
from infermax_gym.cli.inputs import EngineOptions
from infermax_gym.cost.engines import find_engine
from infermax_gym.engine import EngineConfig


def test_a_named_engine_brings_its_sizes() -> None:
    one = find_engine("llama-3.1-70b@h100x4/fp8")
    config = EngineOptions(cost="llama-3.1-70b@H100x4/fp8").config()
    assert config == EngineConfig(cost=one.cost, **one.sizes)
    assert config.cost.num_devices == 4 and config.max_num_batched_tokens == 8_192 and config.num_kv_tokens > 10**6


def test_what_is_typed_goes_before() -> None:
    config = EngineOptions(cost="qwen3-8b@l40s", kv_tokens=5_000, max_num_seqs=7).config()
    assert (config.num_kv_tokens, config.max_num_seqs, config.max_num_batched_tokens) == (5_000, 7, 2_048)


def test_other_costs_leave_the_defaults() -> None:
    assert EngineOptions(cost="llama2-7b-a100").config() == EngineConfig()


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"--cost: no engine 'qwen3-8b@h10'.*did you mean GPU 'h100'"):
        EngineOptions(cost="qwen3-8b@h10").config()
