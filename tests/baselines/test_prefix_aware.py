"""Prefix-aware schedulers: never an illegal decision, and the identities between their orders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.prefix_aware import PREFIX_AWARE, Sglang
from baselines.prefix_aware.orders import LPM_LIMIT, Candidate, Deficit, Fcfs, KLpm, Order
from baselines.prefix_aware.sglang import SglangScheduler
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, with_prefixes

CONFIG = EngineConfig(num_kv_tokens=40_000, max_num_batched_tokens=2_048, prefix_caching=True)
CROWD = make_workload("conversations", 250, seed=7, rate=12.0)


def play(order: Callable[[], Order], workload: Workload = CROWD, config: EngineConfig = CONFIG) -> SimulationResult:
    return Sglang("any", order).play(workload, config)


@examples(300)
@given(
    data=st.data(),
    workload=with_prefixes(),
    config=configs(),
    caching=st.booleans(),
    row=st.sampled_from(list(PREFIX_AWARE.values())),
)
def test_every_request_is_served(
    data: st.DataObject, workload: Workload, config: EngineConfig, caching: bool, row: Sglang
) -> None:
    """On hostile engines: no decision breaks a rule, invariants hold, and nobody is left behind."""
    tenants = data.draw(st.lists(st.integers(0, 2), min_size=len(workload), max_size=len(workload)))
    workload = replace(workload, tenant=tenants, tenant_names=("a", "b", "c"))
    config = replace(config, prefix_caching=caching)
    result = simulate(workload, config, SglangScheduler(row, workload, config), debug=True)
    assert (result.status != 2).all()


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


def test_deficits_keep_a_heavy_tenant_from_starving_the_others() -> None:
    """Tenant 0 floods the queue with one prefix; tenant 1 comes later and shares nothing."""
    many = 100
    workload = Workload(
        np.concatenate((np.zeros(many), [0.01])),
        [1_000] * (many + 1),
        [100] * (many + 1),
        tenant=[0] * many + [1],
        tenant_names=("heavy", "light"),
        prefix_blocks=list(range(50)) * many,
        prefix_start=[*range(0, 50 * many + 1, 50), 50 * many],
        prefix_block_size=16,
    )
    config = EngineConfig(num_kv_tokens=8_000, prefix_caching=True, max_num_batched_tokens=2_048)
    waits = {name: float(PREFIX_AWARE[name].play(workload, config).ttft_s[-1]) for name in ("sglang-lpm", "dlpm")}
    assert waits["dlpm"] < 0.2 * waits["sglang-lpm"]


def candidates(*cached: int) -> list[Candidate]:
    return [Candidate(10 + i, i % 2, tokens, 5) for i, tokens in enumerate(cached)]


def test_orders_by_hand() -> None:
    lpm = KLpm(math.inf)
    assert lpm.choose(candidates(16, 48, 48)) == 1
    assert lpm.choose(candidates(*[0] * LPM_LIMIT, 16)) == 0, "FCFS above the limit"
    two = KLpm(2)
    chosen = []
    for _ in range(4):
        chosen.append(two.choose(candidates(0, 16)))
        two.admitted(candidates(0)[0])
    assert chosen == [1, 0, 1, 0]
    deficit = Deficit(8.0)
    assert deficit.choose(candidates(0, 16)) == 1
    deficit.admitted(candidates(0, 16)[1])
    assert deficit.choose(candidates(0, 16)) == 1, "3 tokens of credit are left"
    deficit.decoded(1)
    deficit.decoded(1)
    assert deficit.choose(candidates(0, 16)) == 0, "overdrawn"
    assert deficit.choose(candidates(0, 16)[1:]) == 0, "alone: a quantum more"
    assert deficit.credit == {0: 8.0, 1: 7.0}


def test_the_share_reserved_decays_and_jumps_with_retractions() -> None:
    """Outputs as long as their bound need more than 0.7 of it: some are retracted, and the share jumps."""
    workload = Workload([0.0] * 40, [100] * 40, [300] * 40)
    config = EngineConfig(num_kv_tokens=6_000, max_output_tokens=300)
    scheduler = SglangScheduler(PREFIX_AWARE["sglang-fcfs"], workload, config)
    assert scheduler.ratio == 0.7
    result = simulate(workload, config, scheduler)
    assert result.num_preemptions > 0
    assert scheduler.ratio > 0.7 - (result.num_iterations - 50) * (0.7 - 0.098) / 600
    lone = SglangScheduler(PREFIX_AWARE["sglang-fcfs"], workload, config)
    simulate(Workload([0.0], [10], [301]), config, lone)
    assert lone.ratio == pytest.approx(0.7 - 300 * (0.7 - 0.098) / 600)
