"""No livelock: whatever the policy, every request that fits is finished in the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions as predictions_of
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Policy, simulate, summarize
from infermax_gym.engine.layout import WASTE_LIMIT
from infermax_gym.engine.policy import (
    AdmissionCheck,
    LengthEstimate,
    PhaseOrder,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    VictimPool,
    queue_weights,
    victim_weights,
)
from infermax_gym.workload import Workload
from tests.engine.strategies import configs, examples, policies, predictions, workloads

# Those with the most cached tokens are preempted first: whoever comes near its end has to begin anew.
CRUEL = Policy("cruel", victim=Victim.KEY, victim_weights=victim_weights(num_processed_tokens=1.0))

TINY = EngineConfig(num_kv_tokens=24, block_size=1, max_num_batched_tokens=8, max_num_seqs=8, num_host_kv_tokens=10)
CROWD = Workload(np.zeros(8), [5, 7, 3, 6, 4, 8, 2, 9], [15, 12, 20, 17, 13, 16, 22, 9])


@pytest.mark.parametrize(
    ("phase_order", "victim_pool", "reserve", "preempt_mode", "admit_after_preemption"),
    [*product(PhaseOrder, VictimPool, (Reserve.CHUNK, Reserve.KNOWN), PreemptMode, (False, True))],
)
def test_most_cached_tokens_first(
    phase_order: PhaseOrder,
    victim_pool: VictimPool,
    reserve: Reserve,
    preempt_mode: PreemptMode,
    admit_after_preemption: bool,
) -> None:
    policy = replace(
        CRUEL,
        phase_order=phase_order,
        victim_pool=victim_pool,
        reserve=reserve,
        preempt_mode=preempt_mode,
        admit_after_preemption=admit_after_preemption,
    )
    result = simulate(CROWD, TINY, policy, debug=True)
    assert result.finished.all()
    assert result.num_preemptions > 0


@pytest.mark.parametrize("run_order", list(RunOrder))
@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_worst_first_in_every_order(run_order: RunOrder, block_size: int, chunk: int) -> None:
    """Longest known first, and waiting requests that preempt others."""
    policy = replace(
        CRUEL,
        run_order=run_order,
        victim_pool=VictimPool.ALL,
        max_chunk=chunk,
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(num_known_tokens=-1.0),
        preempt_for_waiting=True,
    )
    result = simulate(CROWD, replace(TINY, block_size=block_size), policy, debug=True)
    assert result.finished.all()


@examples(300)
@given(
    data=st.data(),
    workload=workloads(max_prompt=10, max_output=14),
    config=configs(),
    policy=policies(),
    blocks=st.integers(1, 24),
)
def test_caches_of_a_few_blocks(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy, blocks: int
) -> None:
    """A preempted request may come back in the same call, or preempt the one it was preempted for."""
    cruel = replace(policy, victim=Victim.KEY, victim_weights=CRUEL.victim_weights, victim_pool=VictimPool.ALL)
    config = replace(config, num_kv_tokens=blocks, block_size=1, max_model_len=None)
    result = simulate(workload, config, cruel, predicted=data.draw(predictions(workload)), debug=True)
    fits = workload.num_prompt_tokens + workload.num_output_tokens - 1 <= blocks
    np.testing.assert_array_equal(result.finished, fits)
    np.testing.assert_array_equal(result.status == 1, ~fits)


def test_two_that_would_evict_each_other_for_ever() -> None:
    """Each fits alone, both do not; the policy always evicts the one that is further."""
    config = EngineConfig(num_kv_tokens=16, block_size=1, max_num_batched_tokens=16)
    policy = replace(CRUEL, victim_pool=VictimPool.ALL, phase_order=PhaseOrder.PREFILL_FIRST)
    result = simulate(Workload([0.0, 0.0], [4, 4], [12, 12]), config, policy, debug=True)
    assert result.finished.all()


def test_wrong_predictions_do_no_harm() -> None:
    """A reservation beyond the cache is cut to it; one too small grows."""
    policy = Policy(
        "reserve",
        reserve=Reserve.TOTAL_ESTIMATE,
        admission_check=AdmissionCheck.FUTURE_PEAK,
        estimate=LengthEstimate.PREDICTED,
        peak_margin=0.5,
    )
    for predicted in (np.full(8, 1e9), np.ones(8), np.linspace(1.0, 100.0, 8)):
        assert simulate(CROWD, TINY, policy, predicted=predicted, debug=True).finished.all()


@pytest.mark.parametrize("swap", [False, True])
def test_the_guard_is_rarely_needed(swap: bool) -> None:
    """Thrashing costs recomputation, but it stays bounded by the guard's limit per token."""
    mode = PreemptMode.SWAP if swap else PreemptMode.RECOMPUTE
    result = simulate(CROWD, TINY, replace(CRUEL, victim_pool=VictimPool.ALL, preempt_mode=mode), debug=True)
    assert result.num_iterations < (64 + 2 * 3) * CROWD.num_output_tokens.sum()


def test_two_newcomers_do_not_displace_each_other_for_ever() -> None:
    """Losing its cached prefix lowers a request's key: whoever was preempted would preempt whoever did it."""
    lacking_most_first = Policy(
        "lacking-most-first",
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(num_lacking_tokens=-1.0),
        preempt_for_waiting=True,
    )
    config = EngineConfig(num_kv_tokens=40, block_size=1, max_num_seqs=1, prefix_caching=True)
    result = simulate(Workload([0.0, 0.01], [8, 4], [6, 6]), config, lacking_most_first, debug=True)
    assert result.finished.all()


# Two long prompts that take turns at evicting each other; the budget is four tokens.
TURNS = Workload(np.zeros(7), [2756, 155, 64, 2371, 1746, 2016, 1081], [315, 1, 2321, 1, 926, 1243, 1734])
FOUR_TOKENS = EngineConfig(
    cost=COSTS["llama3-70b-a100x4-infermax"], num_kv_tokens=3_536, max_num_batched_tokens=4, max_num_seqs=2
)
NEEDED = int((TURNS.num_prompt_tokens + TURNS.num_output_tokens - 1).sum())
BY_SECONDS = replace(POLICIES["ltr"], quantum_iterations=0, starvation_iterations=0, quantum_s=0.25, starvation_s=5.0)


def predicted(policy: Policy) -> np.ndarray:
    numbers = predictions_of(policy, TURNS, 0)
    assert numbers is not None
    return numbers


def test_ltr_does_not_recompute_without_end() -> None:
    """It took 8.6 million iterations when seconds set its turns, and nobody counted what they cost."""
    ltr = simulate(TURNS, FOUR_TOKENS, POLICIES["ltr"], predicted=predicted(POLICIES["ltr"]))
    assert ltr.finished.all()
    assert ltr.num_iterations < 400_000


def test_the_guard_sees_waste_and_reports_it() -> None:
    """However a policy wastes, no more is recomputed than the limit allows, and what one guarded turn adds."""
    result = simulate(TURNS, FOUR_TOKENS, BY_SECONDS, predicted=predicted(BY_SECONDS))
    assert result.finished.all()
    assert result.num_guarded_iterations > 0
    assert result.num_recomputed_tokens < (WASTE_LIMIT + 1) * (NEEDED + FOUR_TOKENS.num_kv_tokens)
    figures = summarize(result, FOUR_TOKENS)
    assert figures["num_guarded_iterations"] == result.num_guarded_iterations
    assert simulate(TURNS, FOUR_TOKENS, POLICIES["sarathi"]).num_guarded_iterations == 0
