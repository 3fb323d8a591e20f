"""Orders of prefix-aware schedulers that must agree under some condition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from infermax_gym.baselines.prefix_aware import PREFIX_AWARE, Sglang
from infermax_gym.baselines.prefix_aware.orders import Deficit, Fcfs, KLpm, Order, ShortestExtend
from infermax_gym.engine import EngineConfig, SimulationResult
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result

CONFIG = EngineConfig(num_kv_tokens=40_000, max_num_batched_tokens=2_048, prefix_caching=True)
CROWD = make_workload("conversations", 120, seed=7, rate=12.0)


def play(order: Callable[[], Order], workload: Workload = CROWD, config: EngineConfig = CONFIG) -> SimulationResult:
    return Sglang("any", order).play(workload, config)


def test_k_lpm_lies_between_fcfs_and_lpm() -> None:
    fcfs, lpm = play(Fcfs), play(partial(KLpm, math.inf))
    same_result(play(partial(KLpm, 1)), fcfs)
    same_result(play(partial(KLpm, 10**9)), lpm)
    assert lpm.prefix_hit_rate is not None and fcfs.prefix_hit_rate is not None
    assert lpm.prefix_hit_rate > fcfs.prefix_hit_rate


def test_without_shared_prefixes_lpm_is_fcfs() -> None:
    alone = Workload(CROWD.arrival_s, CROWD.num_prompt_tokens, CROWD.num_output_tokens)
    same_result(play(partial(KLpm, math.inf), alone), play(Fcfs, alone))
    off = replace(CONFIG, prefix_caching=False)
    same_result(play(partial(KLpm, math.inf), CROWD, off), play(Fcfs, CROWD, off))


def test_deficits_without_end_are_lpm() -> None:
    lpm = play(partial(KLpm, math.inf))
    same_result(play(partial(Deficit, math.inf)), lpm)
    same_result(play(partial(Deficit, 1e12)), lpm)
    assert play(partial(Deficit, 1_000.0)).makespan_s != lpm.makespan_s


def test_equal_prompts_without_a_cache_are_first_come_first_served() -> None:
    equal = Workload(CROWD.arrival_s, np.full(len(CROWD), 700), np.full(len(CROWD), 40))
    same_result(play(ShortestExtend, equal), play(Fcfs, equal))


def test_nobody_stands_back_without_hashes() -> None:
    alone = Workload(CROWD.arrival_s, CROWD.num_prompt_tokens, CROWD.num_output_tokens)
    rows = [PREFIX_AWARE[name].play(alone, CONFIG) for name in ("sglang-lpm-in-batch", "sglang-lpm", "sglang-fcfs")]
    same_result(rows[0], rows[1])
    same_result(rows[0], rows[2])
