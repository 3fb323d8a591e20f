"""Searches for rates and fleet sizes, and fleets as contenders."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.baselines.table.shares import SPF_SHARE
from infermax_gym.cluster import simulate_fleet, summarize_fleet
from infermax_gym.cost.engines.table import find_engine
from infermax_gym.engine import EngineConfig, Policy, Slo, simulate
from infermax_gym.evaluation import Demand, FleetContender, Scenario, evaluate, find_capacity, find_smallest, serve
from infermax_gym.evaluation.capacity import highest_rate
from infermax_gym.evaluation.contenders import run_contender
from infermax_gym.evaluation.fleets import FleetPart
from infermax_gym.workload import Workload, make_workload

CONFIG = EngineConfig(num_kv_tokens=30_000)
FLEET = FleetContender(Policy("fcfs"), ROUTERS["least-outstanding"], 2)


def requests(seed: int, num_replicas: int) -> Workload:
    return make_workload("azure-conv", 150 * num_replicas, seed=seed)


DEMAND = Demand(requests, CONFIG, Slo(ttft_s=1.0), attainment=0.9, seeds=(0, 1, 2))


@pytest.mark.parametrize("truth", [1e-3, 0.3, 1.0, 3.7, 900.0])
def test_thehighest_rate_is_found(truth: float) -> None:
    asked: list[float] = []

    def meets(rate: float) -> bool:
        asked.append(rate)
        return rate <= truth

    found = highest_rate(meets, 1.0, 0.01)
    assert truth / 1.01 <= found <= truth
    assert found in asked
    assert len(asked) < 25


@pytest.mark.parametrize("name", ["vllm", "srf", "sjf-noisy-0.3"])
def test_a_single_replica_is_its_engine(name: str) -> None:
    contender = FleetContender(POLICIES[name], ROUTERS["power-of-two"], 1)
    assert contender.alone(CONFIG) is POLICIES[name] and replace(contender, num_replicas=2).alone(CONFIG) is None
    workload, config = requests(3, 1).with_rate(9.0), replace(CONFIG, num_kv_tokens=6_000)
    alone = serve(contender, workload, config, seed=3, predict=predictions)
    fleet = run_contender(contender, workload, config, seed=3, predict=predictions).result
    for one in ("first_scheduled_s", "first_token_s", "finish_s", "num_preemptions_of"):
        np.testing.assert_array_equal(getattr(alone, one), getattr(fleet, one))
    assert alone.num_preemptions > 0


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_sizes_that_are_shares_follow_from_the_engine_of_each_replica(num_replicas: int) -> None:
    small = replace(find_engine_config("llama-3.1-8b@h100"), num_kv_tokens=60_000)
    large = find_engine_config("gpt-oss-120b@h200")
    assert SPF_SHARE.resolve(small) != SPF_SHARE.resolve(large)
    workload = requests(3, 2).with_rate(9.0)
    for config in (small, large):
        shares = FleetContender(SPF_SHARE, ROUTERS["least-outstanding"], num_replicas)
        table = replace(shares, policy=SPF_SHARE.resolve(config))
        ours, theirs = (serve(one, workload, config, seed=3) for one in (shares, table))
        np.testing.assert_array_equal(ours.finish_s, theirs.finish_s)
    parts = (FleetPart(1, small), FleetPart(num_replicas, large))
    mixed = FleetContender(SPF_SHARE, ROUTERS["least-outstanding"], 1 + num_replicas, parts=parts)
    running = [replica.policy for replica in mixed.fleet(small).replicas]
    assert running == [SPF_SHARE.resolve(small)] + [SPF_SHARE.resolve(large)] * num_replicas


def find_engine_config(name: str) -> EngineConfig:
    found = find_engine(name)
    return EngineConfig(
        found.cost, found.num_kv_tokens, found.block_size, found.max_num_batched_tokens, found.max_num_seqs
    )


def test_no_rate_or_every_rate() -> None:
    assert highest_rate(lambda rate: False, 1.0, 0.01) == 0.0
    assert highest_rate(lambda rate: True, 1.0, 0.01) == math.inf


def test_capacity_is_where_the_share_crosses_the_target() -> None:
    found = find_capacity(FLEET, DEMAND)
    assert found.rate_per_s == pytest.approx(np.mean(found.per_seed))
    assert found.ci95_per_s > 0.0
    for seed, rate in zip(DEMAND.seeds, found.per_seed, strict=True):
        assert DEMAND.attained(FLEET, rate, seed) >= 0.9
        assert DEMAND.attained(FLEET, 1.3 * rate, seed) < 0.9


def test_capacity_grows_with_memory_and_laxity() -> None:
    demand = replace(DEMAND, seeds=(0,))
    rate = find_capacity(FLEET, demand).rate_per_s
    assert find_capacity(FLEET, replace(demand, config=replace(CONFIG, num_kv_tokens=8_000))).rate_per_s < 0.95 * rate
    assert find_capacity(FLEET, replace(demand, slo=Slo(ttft_s=5.0))).rate_per_s > 1.05 * rate
    assert find_capacity(FLEET, replace(demand, slo=Slo(ttft_s=1e-9))).rate_per_s == 0.0
    assert find_capacity(FLEET, replace(demand, slo=Slo(ttft_s=1e9))).rate_per_s == math.inf


def test_the_smallest_fleet_is_enough_and_one_less_is_not() -> None:
    demand = replace(DEMAND, seeds=(0,))
    found = find_smallest(FLEET, 18.0, demand)
    assert found.contender is not None
    count = found.contender.num_replicas
    assert count > 2
    assert found.attainment == demand.attained(found.contender, 18.0, 0) >= 0.9
    assert demand.attained(replace(FLEET, num_replicas=count - 1), 18.0, 0) < 0.9
    assert find_smallest(FLEET, 1e6, demand, most=4).contender is None


def test_confidence_asks_for_more() -> None:
    sure = find_smallest(FLEET, 12.0, DEMAND)
    assert sure.contender is not None
    assert sure.attainment - sure.ci95 >= 0.9


def test_prices() -> None:
    assert find_smallest(FLEET, 8.0, DEMAND).cost_usd_per_h is None
    priced = replace(CONFIG, cost=replace(CONFIG.cost, price_usd_per_device_hour=1.5, num_devices=2))
    found = find_smallest(FLEET, 8.0, replace(DEMAND, config=priced))
    assert found.contender is not None
    assert found.cost_usd_per_h == 3.0 * found.contender.num_replicas


def test_a_fleet_is_a_contender() -> None:
    workload, slo = requests(0, 2), Slo(ttft_s=1.0)
    priced = replace(CONFIG, cost=replace(CONFIG.cost, price_usd_per_device_hour=1.5))
    row = evaluate(Scenario(workload, priced, slo), {FLEET.name: FLEET}).summary()["fcfs + least-outstanding"]
    assert row.pop("information") == "none"
    assert row.pop("wall_s") > 0.0
    expected = simulate_fleet(workload, FLEET.fleet(priced), FLEET.router)
    assert row == summarize_fleet(expected, slo)
    assert row["gpu_cost_usd"] == pytest.approx(row["busy_s"] / 3600.0 * 1.5)
    assert row["fleet_cost_usd_per_h"] == 3.0
    np.testing.assert_array_equal(serve(FLEET, workload, priced).finish_s, expected.pooled.finish_s)
    with pytest.raises(ValueError, match="schedule of a fleet"):
        serve(FLEET, workload, priced, record_schedule=True)


def test_a_fleet_of_one_is_the_policy() -> None:
    workload = requests(0, 1)
    one = evaluate(Scenario(workload, CONFIG), {"one": replace(FLEET, num_replicas=1), "none": FLEET.policy})
    assert one.values("one", "ttft_s.p99") == one.values("none", "ttft_s.p99")
    assert simulate(workload, CONFIG, FLEET.policy).busy_s == one.values("one", "busy_s")[0]
