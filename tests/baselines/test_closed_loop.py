"""Everything in the catalogue serves closed-loop traffic, and knows requests by their numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.rollout import Rollout
from infermax_gym.baselines.table.engines import SARATHI
from infermax_gym.baselines.table.vllm import VLLM_0_13
from infermax_gym.engine import EngineConfig
from infermax_gym.evaluation import run_contender
from infermax_gym.workload import Workload, closed_loop, make_workload

ENGINE = EngineConfig(num_kv_tokens=600, max_num_batched_tokens=64)


def traffic(seed: int = 0) -> Workload:
    """Six clients; thinking times let requests overtake one another."""
    workload = make_workload("uniform:100,40,0.1", 60, seed=seed)
    rng = np.random.default_rng(seed)
    workload = closed_loop(replace(workload, priority=rng.integers(0, 3, 60), ttft_slo_s=np.full(60, 0.5)), 6)
    return replace(workload, think_s=np.where(workload.after == -2, rng.exponential(0.2, 60), 0.0))


@pytest.mark.parametrize("name", QUICK)
def test_the_catalogue(name: str) -> None:
    workload = traffic()
    result = run_contender(QUICK[name], workload, ENGINE, predict=predictions).result
    assert (result.status == 0).all()
    assert (np.diff(result.arrival_s) < 0.0).any(), "nobody has overtaken anybody"
    released_s = np.sort(result.finish_s)[: int((workload.after == -2).sum())]
    shared = workload.after == -2
    np.testing.assert_array_equal(result.arrival_s[shared], released_s + workload.think_s[shared])


def test_a_rollout_serves_clients() -> None:
    player = Rollout("two", (VLLM_0_13, SARATHI), interval=0.1)
    result = player.play(traffic(), ENGINE)
    assert (result.status == 0).all()
