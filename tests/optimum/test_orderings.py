"""Lower bound <= optimum <= every schedule of every policy; more memory, budget or freedom never hurts the optimum."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import score
from infermax_gym.baselines.optimum.search import astar
from infermax_gym.baselines.optimum.search.exact import ExactSearch, exact_options
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import simulate
from infermax_gym.engine.policy import PreemptMode
from tests.optimum.draw import OBJECTIVES, small

COUNT = int(os.environ.get("INFERMAX_ORDERINGS", "30"))
"""Random instances; thousands were run while this was built."""


def optimum(instance: Instance, objective: str, variant: str = "preemptive") -> float:
    search = ExactSearch(instance, exact_options(instance, objective, variant), max_bytes=200_000_000, beam_width=60)
    search.advance(60.0)
    plan = search.plan()
    assert search.status == astar.EXHAUSTED and plan is not None
    return score(instance, plan).objective(objective)


@pytest.mark.parametrize("seed", range(COUNT))
def test_bound_optimum_policies(seed: int) -> None:
    instance, objective, _ = small(1000 + seed)
    best = optimum(instance, objective)
    workload, config = instance.workload(), instance.engine()
    bounds = certify(workload, config)
    assert (bounds.makespan_s if objective == "makespan" else bounds.mean_latency_s) <= best
    for row in POLICIES.values():
        if row.max_num_batched_tokens is not None or not row.chunking or row.preempt_mode != PreemptMode.RECOMPUTE:
            continue  # another engine: its own token budget, one that whole prompts fit, or victims that keep their KV
        run = simulate(workload, config, row, predicted=predictions(row, workload, seed))
        value = run.makespan_s if objective == "makespan" else float(np.mean(run.latency_s))
        assert best <= value * (1.0 + 1e-9), row.name


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_more_never_hurts(seed: int, objective: str) -> None:
    instance, _, _ = small(2000 + seed)
    values = [optimum(instance, objective, variant) for variant in ("preemptive", "no-preemption", "reserve")]
    assert values[0] <= values[1] * (1.0 + 1e-9) and values[1] <= values[2] * (1.0 + 1e-9)
    for wider in (
        replace(instance, kv_tokens=instance.kv_tokens + 3),
        replace(instance, max_num_batched_tokens=2 * instance.max_num_batched_tokens),
    ):
        assert optimum(wider, objective) <= values[0] * (1.0 + 1e-9)
