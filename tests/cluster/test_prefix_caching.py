"""Fleets whose replicas keep prefix caches: each replica is the engine it would be alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, Router, simulate_fleet
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.workload import Workload, make_workload
from tests.cluster.strategies import fleet_policies, routers
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, predictions, with_prefixes

CACHING = configs().map(lambda config: replace(config, prefix_caching=True))


@examples(100)
@given(data=st.data(), workload=with_prefixes(), config=CACHING, policy=fleet_policies(), router=routers())
def test_one_hostile_replica_is_no_router(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy, router: Router
) -> None:
    predicted = data.draw(predictions(workload))
    alone = simulate(workload, config, policy, predicted=predicted)
    routed = simulate_fleet(workload, Fleet.uniform(1, config, policy), router, predicted=predicted).pooled
    same_result(routed, alone)
    np.testing.assert_array_equal(routed.num_cached_tokens_of, alone.num_cached_tokens_of)


def rows(workload: Workload, chosen: np.ndarray) -> Workload:
    """Some requests of a workload, at their own times, with their hashes."""
    edges = workload.prefix_start
    hashes = [workload.prefix_blocks[edges[r] : edges[r + 1]] for r in chosen]
    return Workload(
        workload.arrival_s[chosen],
        workload.num_prompt_tokens[chosen],
        workload.num_output_tokens[chosen],
        prefix_blocks=np.concatenate(hashes),
        prefix_start=np.cumsum([0, *map(len, hashes)]),
        prefix_block_size=workload.prefix_block_size,
    )


def test_each_replica_serves_its_requests_as_if_alone() -> None:
    workload = make_workload("conversations", 600, seed=3, rate=12.0)
    config = EngineConfig(num_kv_tokens=30_000, prefix_caching=True, max_model_len=32_768, max_output_tokens=2_048)
    fleet = simulate_fleet(workload, Fleet.uniform(3, config, POLICIES["vllm-v1"]), ROUTERS["round-robin"])
    assert fleet.pooled.prefix_hit_rate is not None and fleet.pooled.prefix_hit_rate > 0.2
    for replica in range(3):
        mine = np.flatnonzero(fleet.replica_of == replica)
        alone = simulate(rows(workload, mine), config, POLICIES["vllm-v1"])
        np.testing.assert_array_equal(fleet.pooled.finish_s[mine], alone.finish_s)
        np.testing.assert_array_equal(fleet.pooled.num_cached_tokens_of[mine], alone.num_cached_tokens_of)
