"""Instances whose cost is an engine of the table."""

from __future__ import annotations

import pytest

from infermax_gym.baselines.optimum.instance import InstanceError, instance_from_dict
from infermax_gym.cost.engines import find_engine

REQUESTS = [{"num_prompt_tokens": 2, "num_output_tokens": 3}]


def test_an_engine_sets_what_is_left_out() -> None:
    one = find_engine("qwen3-8b@l40s")
    instance = instance_from_dict({"requests": REQUESTS, "cost": "qwen3-8b@l40s"})
    assert instance.cost == one.cost
    assert (instance.kv_tokens, instance.block_size) == (one.num_kv_tokens, one.block_size)
    given = instance_from_dict({"requests": REQUESTS, "cost": "qwen3-8b@l40s", "kv_tokens": 32, "block_size": 4})
    assert (given.kv_tokens, given.block_size, given.max_num_batched_tokens) == (32, 4, 2_048)


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(InstanceError, match=r'"cost": no engine.*did you mean GPU'):
        instance_from_dict({"requests": REQUESTS, "cost": "qwen3-8b@l40"})
