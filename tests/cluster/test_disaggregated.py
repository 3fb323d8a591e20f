"""Prefill and decode on different replicas: against plain Python, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import (
    DisaggregatedFleet,
    Fleet,
    KvTransfer,
    Replica,
    Router,
    simulate_disaggregated,
    simulate_fleet,
)
from infermax_gym.cost import CostModel
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.policy import PreemptMode
from infermax_gym.workload import Workload, make_workload
from tests.cluster.reference import simulate_fleet_reference
from tests.cluster.strategies import fleets, routers
from tests.engine.strategies import examples, predictions, with_prefixes, workloads


def recomputing(fleet: Fleet) -> Fleet:
    kept = [Replica(r.config, replace(r.policy, preempt_mode=PreemptMode.RECOMPUTE)) for r in fleet.replicas]
    return replace(fleet, replicas=tuple(kept))


def of(workload: Workload, chosen: list[int], arrival_s: list[float], outputs: list[int]) -> Workload:
    names = ("num_prompt_tokens", "priority", "tenant", "ttft_slo_s", "tpot_slo_s")
    kept = {name: getattr(workload, name)[chosen] for name in names}
    edges = workload.prefix_start.tolist()
    hashes = [workload.prefix_blocks[edges[r] : edges[r + 1]].tolist() for r in chosen]
    return Workload(
        arrival_s,
        num_output_tokens=outputs,
        **kept,
        prefix_blocks=[h for each in hashes for h in each],
        prefix_start=np.cumsum([0, *map(len, hashes)]),
        prefix_block_size=workload.prefix_block_size,
    )


def can_hold(fleet: Fleet, prompt: int, output: int) -> bool:
    """Some replica can."""
    return any(
        math.ceil((prompt + output - 1) / r.config.block_size) <= r.config.num_blocks
        and (r.config.max_model_len is None or prompt + output <= r.config.max_model_len)
        for r in fleet.replicas
    )


@examples(150)
@given(
    data=st.data(),
    workload=st.one_of(workloads(max_requests=20), with_prefixes(20)),
    prefill=fleets(max_replicas=3),
    decode=fleets(max_replicas=3).map(recomputing),
    prefill_router=routers(),
    decode_router=routers(),
    transfer_s=st.sampled_from([0.0, 0.001, 0.1]),
)
def test_random_fleets(
    data: st.DataObject,
    workload: Workload,
    prefill: Fleet,
    decode: Fleet,
    prefill_router: Router,
    decode_router: Router,
    transfer_s: float,
) -> None:
    predicted = data.draw(predictions(workload))
    prompts, outputs = workload.num_prompt_tokens.tolist(), workload.num_output_tokens.tolist()
    served = [
        r
        for r, (prompt, output) in enumerate(zip(prompts, outputs, strict=True))
        if can_hold(prefill, prompt, 1) and can_hold(decode, prompt, output)
    ]
    assume(served)
    fleet = DisaggregatedFleet(prefill, decode, KvTransfer(transfer_s, 1.0, 0.0))
    result = simulate_disaggregated(workload, fleet, prefill_router, decode_router, seed=3, predicted=predicted)
    pooled = result.pooled

    first = of(workload, served, workload.arrival_s[served].tolist(), [1] * len(served))
    went, prefilled, _ = simulate_fleet_reference(first, prefill, prefill_router, 3, predicted[served])
    assert result.prefill.replica_of.tolist() == went
    expected = {r: request.first_token_s for r, request in zip(served, prefilled, strict=True)}
    for r, first_token_s in expected.items():
        assert pooled.first_token_s[r] == first_token_s
    there = sorted((s + prompts[r] * transfer_s, r) for r, s in expected.items() if outputs[r] > 1)
    handed = [r for _, r in there]
    assert result.handed_over.tolist() == handed
    finish = dict(expected)
    if handed:
        rest = of(workload, handed, [s for s, _ in there], [outputs[r] for r in handed])
        went, decoded, _ = simulate_fleet_reference(
            rest, recomputing_free(decode), decode_router, 3, predicted[handed], [expected[r] for r in handed]
        )
        assert result.decode.replica_of.tolist() == went
        finish.update({r: request.finish_s for r, request in zip(handed, decoded, strict=True)})
    assert {r: pooled.finish_s[r] for r in served} == finish
    assert np.flatnonzero(pooled.status == 0).tolist() == served
    assert (np.delete(pooled.status, served) == 1).all()
    assert pooled.num_generated_tokens[served].tolist() == [outputs[r] for r in served]
    assert pooled.gap_counts.sum() == sum(outputs[r] - 1 for r in served)


def recomputing_free(fleet: Fleet) -> Fleet:
    free = [Replica(replace(r.config, swap_tokens_per_s=math.inf), r.policy) for r in fleet.replicas]
    return replace(fleet, replicas=tuple(free))


def test_by_hand() -> None:
    """A second per iteration: two prompts of 4 tokens a second apart, 3 outputs each, a token moves in 0.5 s."""
    second = CostModel("second", (((1.0, *[0.0] * 8),),))
    config = EngineConfig(cost=second, num_kv_tokens=64)
    fleet = DisaggregatedFleet(Fleet.uniform(1, config), Fleet.uniform(1, config), KvTransfer(0.5, 1.0, 0.25))
    workload = Workload([0.0, 1.5], [4, 4], [3, 3])
    result = simulate_disaggregated(workload, fleet, ROUTERS["round-robin"], ROUTERS["round-robin"])
    assert result.pooled.first_token_s.tolist() == [1.0, 2.5]
    assert result.decode.pooled.workload.arrival_s.tolist() == [3.25, 4.75]
    # The first decodes from 3.25 to 5.25; the second is seen at 5.25 and runs to 7.25.
    assert result.pooled.finish_s.tolist() == [5.25, 7.25]
    gaps = np.repeat(result.pooled.gap_s, result.pooled.gap_counts)
    assert sorted(gaps.tolist()) == [1.0, 1.0, 3.25, 3.75]
    assert result.pooled.busy_s == 6.0
    assert result.pooled.makespan_s == 7.25
    assert result.pooled.ttft_s.tolist() == [1.0, 1.0]


def test_decodes_are_not_held_up_by_prompts() -> None:
    """What the split is for: gaps between tokens stay short under long prompts; and it costs machines."""
    workload = make_workload("azure-code", 2_000, seed=0).with_rate(6.0)
    config, policy = EngineConfig(max_num_batched_tokens=2048), POLICIES["vllm-v0"]
    together = simulate_fleet(workload, Fleet.uniform(4, config, policy), ROUTERS["least-outstanding"])
    pools = DisaggregatedFleet(Fleet.uniform(3, config, policy), Fleet.uniform(1, config, policy))
    apart = simulate_disaggregated(workload, pools, ROUTERS["queued-tokens"], ROUTERS["kv-share"])
    assert (apart.pooled.status == 0).all()
    slowest = [float(np.nanquantile(pooled.tpot_s, 0.99)) for pooled in (together.pooled, apart.pooled)]
    assert slowest[1] < 0.2 * slowest[0]
    assert apart.pooled.ttft_s.mean() > together.pooled.ttft_s.mean()
    slower = replace(pools, transfer=KvTransfer(bytes_per_s=1e9))
    late = simulate_disaggregated(workload, slower, ROUTERS["queued-tokens"], ROUTERS["kv-share"])
    np.testing.assert_array_equal(late.pooled.first_token_s, apart.pooled.first_token_s)
    assert late.pooled.latency_s.mean() > apart.pooled.latency_s.mean()


def test_bad_settings_say_so() -> None:
    with pytest.raises(ValueError, match="bytes_per_s must be positive"):
        KvTransfer(bytes_per_s=0.0)
    with pytest.raises(ValueError, match="not negative"):
        KvTransfer(bytes_per_token=-1.0)
    swapping = Fleet.uniform(1, EngineConfig(), Policy("swap", preempt_mode=PreemptMode.SWAP))
    with pytest.raises(ValueError, match="must recompute"):
        DisaggregatedFleet(Fleet.uniform(1), swapping)
