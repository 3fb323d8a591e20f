"""Requests that move between replicas: what must hold, and one case by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import router_predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import (
    DisaggregatedFleet,
    Fleet,
    KvTransfer,
    Migration,
    Mover,
    Pairing,
    Router,
    simulate_disaggregated,
    simulate_fleet,
    summarize_fleet,
)
from infermax_gym.cluster.simulate import FleetRun
from infermax_gym.cost import CostModel
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result

CONFIG = EngineConfig(num_kv_tokens=12_000, max_model_len=16_384, max_output_tokens=2_048)
ROUND_ROBIN = Router("round-robin")


def conversation(num_requests: int, rate_per_s: float) -> Workload:
    return make_workload("azure-conv", num_requests, seed=1).with_rate(rate_per_s)


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
def test_pairs_that_never_meet_change_nothing(router: Router) -> None:
    workload, still = conversation(400, 16.0), Fleet.uniform(4, CONFIG, POLICIES["vllm-v1"], staleness_s=0.3)
    never = replace(still, migration=Migration(period_s=1e9))
    predicted_lengths = router_predictions(router, workload)
    expected = simulate_fleet(workload, still, router, seed=2, predicted=predicted_lengths)
    result = simulate_fleet(workload, never, router, seed=2, predicted=predicted_lengths)
    np.testing.assert_array_equal(result.replica_of, expected.replica_of)
    for name in ("first_scheduled_s", "first_token_s", "finish_s", "num_preemptions_of", "status"):
        np.testing.assert_array_equal(getattr(result.pooled, name), getattr(expected.pooled, name), err_msg=name)
    assert result.pooled.busy_s == expected.pooled.busy_s
    assert summarize_fleet(result)["num_migrations"] == 0
    assert "num_migrations" not in summarize_fleet(expected)


@pytest.mark.parametrize("policy", ["vllm-v1", "spf-headroom", "vllm-v0-swap", "vtc-sarathi", "hrrn"])
@pytest.mark.parametrize("pairing", Pairing)
def test_nobody_is_lost_or_served_twice(policy: str, pairing: Pairing) -> None:
    workload = conversation(800, 14.0)
    fleet = Fleet.uniform(4, CONFIG, POLICIES[policy], migration=Migration(period_s=0.1, pairing=pairing))
    result = simulate_fleet(workload, fleet, ROUND_ROBIN)
    assert result.num_migrations_of.sum() > 20
    assert (result.pooled.status == 0).all()
    np.testing.assert_array_equal(result.pooled.num_generated_tokens, workload.num_output_tokens)
    assert result.pooled.gap_counts.sum() == (workload.num_output_tokens - 1).sum()
    longest = result.pooled.finish_s - result.pooled.first_token_s
    assert (result.pooled.gap_s @ result.pooled.gap_counts) == pytest.approx(longest.sum())
    np.testing.assert_array_equal(result.num_requests_of, 200)


@pytest.mark.parametrize(
    ("mover", "output", "finish_s", "longest_gap_s", "aborted"),
    [
        (Mover.SHORTEST, 30, (30.0, 30.6875), 1.6875, 0),
        (Mover.LONGEST, 30, (30.8125, 30.0), 1.8125, 0),
        (Mover.SHORTEST, 6, (30.0, 6.0), 1.0, 1),
    ],
)
def test_by_hand(mover: Mover, output: int, finish_s: tuple[float, float], longest_gap_s: float, aborted: int) -> None:
    """Iterations of a second; requests 0 and 2 leave two of ten blocks free, replica 1 is soon empty.

    Paired at 4.5 s. At 5 s request 2 has 36 tokens, whose copy takes 0.5 + 36 / 16 s, to 7.75 s. At 8 s it stops with
    three more, which take 0.5 + 3 / 16 s: it lands at 8.6875 s and goes on, one token a second. Request 0 has 68
    tokens at 5 s, stops at 10 s and lands at 10.8125 s.
    """
    second = CostModel("second", (((1.0, *[0.0] * 8),),))
    config = EngineConfig(cost=second, num_kv_tokens=160, block_size=16)
    rules = Migration(4.5, mover=mover, transfer=KvTransfer(1.0, 16.0, 0.5))
    workload = Workload([0.0, 0.0, 0.0], [64, 16, 32], [30, 1, output])
    result = simulate_fleet(
        workload, Fleet.uniform(2, config, POLICIES["vllm-v1"], migration=rules), Router("round-robin")
    )
    assert result.replica_of.tolist() == [0, 1, 0]
    assert tuple(result.pooled.finish_s[[0, 2]]) == finish_s
    assert result.num_migrations_of.tolist() == [
        int(mover == Mover.LONGEST),
        0,
        1 - aborted - int(mover == Mover.LONGEST),
    ]
    assert result.num_aborted_migrations == aborted
    assert result.pooled.gap_s.max() == longest_gap_s


def test_copies_are_independent() -> None:
    workload = conversation(300, 14.0)
    fleet = Fleet.uniform(4, CONFIG, POLICIES["vllm-v1"], migration=Migration(period_s=0.1))
    run = FleetRun(workload, fleet, ROUND_ROBIN)
    run.route(np.zeros((200, 0)))
    twin = run.copy()
    for each in (run, twin):
        each.route(np.zeros((100, 0)))
        each.finish()
    first, second = run.result(), twin.result()
    same_result(first.pooled, second.pooled)
    np.testing.assert_array_equal(first.num_migrations_of, second.num_migrations_of)
    assert first.num_migrations_of.sum() > 0


def test_room_is_made_where_requests_land() -> None:
    """Everything is sent to one of forty replicas; the others have little room for records."""

    class ToTheFirst:
        name = "to-the-first"

        def choose(self, arrival: object) -> int:
            return 0

    workload, rules = conversation(1200, 4.0), Migration(0.01, mover=Mover.LAST, threshold=-150.0)
    fleet = Fleet.uniform(40, replace(CONFIG, max_num_seqs=4), POLICIES["vllm-v1"], migration=rules)
    result = simulate_fleet(workload, fleet, ToTheFirst())
    assert (result.pooled.status == 0).all()
    assert result.num_migrations_of.sum() > 64


def test_a_request_that_moves_stands_still_for_the_last_stage() -> None:
    """The longer the latency of a transfer, the longer the longest gap between two of its tokens."""
    workload = conversation(300, 8.0)
    longest = []
    for latency_s in (0.0, 0.5, 2.0):
        rules = Migration(0.2, transfer=KvTransfer(latency_s=latency_s))
        result = simulate_fleet(workload, Fleet.uniform(2, CONFIG, POLICIES["sarathi"], migration=rules), ROUND_ROBIN)
        assert result.num_migrations_of.sum() > 0
        longest.append(result.pooled.gap_s.max())
    assert longest[1] >= 0.5
    assert longest[2] >= 2.0


def test_decoding_replicas_may_move_what_they_got() -> None:
    workload = conversation(400, 8.0)
    decode = Fleet.uniform(3, CONFIG, POLICIES["vllm-v1"], migration=Migration(0.1))
    pools = DisaggregatedFleet(Fleet.uniform(2, CONFIG, POLICIES["vllm-v1"]), decode)
    result = simulate_disaggregated(workload, pools, ROUND_ROBIN, ROUND_ROBIN)
    assert (result.pooled.status == 0).all()
    np.testing.assert_array_equal(result.pooled.num_generated_tokens, workload.num_output_tokens)


def test_bad_settings_say_so() -> None:
    with pytest.raises(ValueError, match="period_s must be a time above 0"):
        Migration(period_s=0.0)
    with pytest.raises(ValueError, match="threshold must be a number"):
        Migration(threshold=float("nan"))
