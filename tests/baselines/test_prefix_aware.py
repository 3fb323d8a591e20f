"""Prefix-aware schedulers: never an illegal decision, and the identities between their orders."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.prefix_aware import PREFIX_AWARE, Sglang
from infermax_gym.baselines.prefix_aware.orders import (
    LPM_LIMIT,
    AgedShortest,
    Candidate,
    Deficit,
    KLpm,
    ResidualShortest,
)
from infermax_gym.baselines.prefix_aware.sglang import SglangScheduler, beginnings, standing_back
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import Workload
from tests.engine.strategies import configs, examples, with_prefixes


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


def test_aged_and_residual_orders_by_hand() -> None:
    long, short = Candidate(0, 0, 0, 900, 57, waited_s=4.0), Candidate(1, 0, 0, 100, 7)
    assert AgedShortest(100.0).choose([long, short]) == 1
    assert AgedShortest(201.0).choose([long, short]) == 0, "900 - 804 < 100"
    residual = ResidualShortest(5.0)
    assert residual.choose([long, short]) == 1
    assert residual.choose([long, Candidate(1, 0, 0, 899, 57)]) == 0, "as many blocks: who came first"
    waited = Candidate(2, 0, 0, 900, 57, waited_s=5.0)
    assert residual.choose([short, waited]) == 1
    assert residual.choose([waited, replace(waited, waited_s=6.0)]) == 1
    assert residual.choose([short, waited, Candidate(3, 0, 0, 950, 60, has_begun=True)]) == 2


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


def test_followers_of_a_new_beginning_stand_back() -> None:
    """Beginnings are the hashes of 32 tokens: two of 16. Request 2 follows request 0; request 4 has it cached."""
    hashes = [[1, 2, 3], [1, 9, 3], [1, 2, 7], [1], [1, 2, 3]]
    workload = Workload(
        np.zeros(5),
        [48, 48, 48, 16, 48],
        np.ones(5),
        prefix_blocks=[item for row in hashes for item in row],
        prefix_start=np.cumsum([0, *map(len, hashes)]),
        prefix_block_size=16,
    )
    begin = beginnings(workload)
    assert begin == {0: (1, 2), 1: (1, 9), 2: (1, 2), 4: (1, 2)}
    waiting = [Candidate(r, 0, 33 if r == 4 else 32, 5) for r in range(5)]
    assert standing_back(waiting, begin) == {2}
    assert standing_back(waiting[1:], begin) == set()
    assert standing_back(waiting * (LPM_LIMIT // 5 + 1), begin) == set()
    assert beginnings(Workload([0.0], [100], [1])) == {}


def test_who_stands_back_finds_the_beginning_cached() -> None:
    """Two prompts an iteration: 0 and the stranger 2, then 1, which shares all but its last block with 0."""
    workload = Workload(
        np.zeros(3),
        [64, 64, 64],
        [1, 1, 1],
        prefix_blocks=[1, 2, 3, 4, 1, 2, 3, 5, 6, 7, 8, 9],
        prefix_start=[0, 4, 8, 12],
        prefix_block_size=16,
    )
    config = EngineConfig(num_kv_tokens=1_000, max_num_batched_tokens=128, prefix_caching=True)
    firsts = {
        name: PREFIX_AWARE[name].play(workload, config).first_scheduled_s.argsort(kind="stable").tolist()
        for name in ("sglang-lpm", "sglang-lpm-in-batch")
    }
    assert firsts == {"sglang-lpm": [0, 1, 2], "sglang-lpm-in-batch": [0, 2, 1]}
