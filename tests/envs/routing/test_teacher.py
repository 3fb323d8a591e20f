"""A router of the table, played choice by choice, gives exactly the fleet's own run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, simulate_fleet
from infermax_gym.envs.routing.teacher import RouterTeacher
from infermax_gym.workload import make_workload
from tests.envs.routing.playing import CONFIG, make, play, routed

DETERMINISTIC = [name for name, row in ROUTERS.items() if row.num_choices == 0]


@pytest.mark.parametrize("policy", ["vllm-v1", "spf-headroom", "sjf-oracle"])
@pytest.mark.parametrize(("staleness_s", "counts_routed"), [(0.0, True), (0.3, True), (0.3, False)])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_same_fleet(name: str, staleness_s: float, counts_routed: bool, policy: str) -> None:
    row = POLICIES[policy]
    env = make(policy=row, staleness_s=staleness_s, counts_routed=counts_routed, information="oracle", flat=True)
    teacher = RouterTeacher(ROUTERS[name])
    env.reset(seed=0)
    _, info = play(env, lambda env: teacher.action(env.run))
    fleet = Fleet.uniform(5, CONFIG, row, staleness_s=staleness_s, counts_routed=counts_routed)
    workload = routed()
    expected = simulate_fleet(workload, fleet, ROUTERS[name], predicted=workload.num_output_tokens.astype(float))
    actual = env.run.fleet.result(keep=True)
    assert info["num_illegal"] == 0
    np.testing.assert_array_equal(actual.replica_of, expected.replica_of)
    for field in ("first_scheduled_s", "first_token_s", "finish_s", "num_preemptions_of"):
        np.testing.assert_array_equal(getattr(actual.pooled, field), getattr(expected.pooled, field), err_msg=field)
    np.testing.assert_array_equal(actual.busy_s_of, expected.busy_s_of)
    assert info["metrics"]["num_iterations"] == expected.pooled.num_iterations


@pytest.mark.parametrize("name", ["prefix-aware", "lmetric", "llm-d", "preble", "d2lpm"])
def test_same_fleet_with_prefix_caches(name: str) -> None:
    workload = make_workload("conversations", 200, seed=2)
    env = make(workloads=(workload,), prefix_caching=True, flat=True)
    teacher = RouterTeacher(ROUTERS[name])
    env.reset(seed=0)
    play(env, lambda env: teacher.action(env.run))
    fleet = Fleet.uniform(5, replace(CONFIG, prefix_caching=True))
    expected = simulate_fleet(workload.with_rate(25.0), fleet, ROUTERS[name])
    actual = env.run.fleet.result(keep=True)
    np.testing.assert_array_equal(actual.replica_of, expected.replica_of)
    np.testing.assert_array_equal(actual.pooled.finish_s, expected.pooled.finish_s)
    np.testing.assert_array_equal(actual.pooled.num_cached_tokens_of, expected.pooled.num_cached_tokens_of)
    assert expected.pooled.num_cached_tokens_of.sum() > 0


def test_the_fleet_is_contended() -> None:
    """Else the equality above would say little."""
    fleet = Fleet.uniform(5, CONFIG, POLICIES["vllm-v1"], staleness_s=0.3)
    predicted_lengths = routed().num_output_tokens.astype(float)
    results = [simulate_fleet(routed(), fleet, ROUTERS[name], predicted=predicted_lengths) for name in DETERMINISTIC]
    assert all(result.pooled.num_preemptions > 0 for result in results)
    assert len({result.replica_of.tobytes() for result in results}) >= len(results) - 2


def test_teachers_are_deterministic() -> None:
    with pytest.raises(ValueError, match="at random"):
        RouterTeacher(ROUTERS["power-of-two"])
    assert RouterTeacher(replace(ROUTERS["power-of-two"], num_choices=0)).router.num_choices == 0
