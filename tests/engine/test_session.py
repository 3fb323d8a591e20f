"""Policies that are put on an engine under way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.engine.layout import CORE
from infermax_gym.engine.policy import QueueOrder, queue_weights
from infermax_gym.engine.session import Session
from infermax_gym.workload import make_workload
from tests.engine.same import same_result

WORKLOAD = make_workload("azure-conv", 80, seed=3, rate=6.0)
CONFIG = EngineConfig(num_kv_tokens=8_000, max_num_seqs=24, max_num_batched_tokens=512)
FIXED = ("sarathi", "vllm-v1", "vllm-v0", "srf", "sarathi-no-chunk", "hrrn", "vtc-sarathi", "beta-clearing", "best-fit")


@pytest.mark.parametrize("name", FIXED)
def test_installed_at_once_it_is_as_if_it_had_always_been_there(name: str) -> None:
    """From a policy that differs in sequences, budget, chunking, order and levels."""
    other = Policy(
        "other",
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(num_prompt_tokens=1.0),
        max_running=3,
        max_num_batched_tokens=64,
        watermark=0.3,
        quantum_s=0.1,
        starvation_s=1.0,
    )
    session = Session(WORKLOAD, CONFIG, other)
    session.install(POLICIES[name])
    session.run()
    same_result(session.result(), simulate(WORKLOAD, CONFIG, POLICIES[name]))


def test_what_a_policy_decides_is_all_set() -> None:
    """Every scalar of the engine is what `allocate` gives it."""
    before, after = POLICIES["sarathi"], replace(POLICIES["vllm-v0"], max_running=5, max_num_batched_tokens=77)
    installed, fresh = Session(WORKLOAD, CONFIG, before), Session(WORKLOAD, CONFIG, after)
    installed.install(after)
    touched = {"run_unsorted", "quantiles_stale", "next_starving_s", "next_starving_iteration", "preempted_size"}
    for name in CORE.names or ():
        if not name.endswith("_address") and name not in touched:
            np.testing.assert_array_equal(installed.engine.record[name], fresh.engine.record[name], err_msg=name)


def test_budget_and_sequences_change_midway() -> None:
    session = Session(WORKLOAD, CONFIG, POLICIES["sarathi"], record_schedule=True)
    session.run(8.0)
    clock_s, running = session.clock_s, session.engine.num_running
    assert running > 4
    session.install(replace(POLICIES["sarathi"], max_running=4, max_num_batched_tokens=50))
    session.run()
    schedule = session.result().schedule
    assert schedule is not None
    later = [iteration for iteration in schedule if iteration.start_s >= clock_s]
    assert max(sum(tokens for _, tokens in iteration.batch) for iteration in later) == 50
    assert max(len(iteration.batch) for iteration in later[-500:]) == 4


def test_a_queue_that_stays_first_in_first_out_keeps_its_order() -> None:
    """Preempted requests go on standing in front: installing the same policy again changes nothing."""
    policy, config = POLICIES["vllm-v0"], replace(CONFIG, num_kv_tokens=5_000)
    session = Session(WORKLOAD, config, policy)
    while session.run(session.clock_s + 0.5):
        session.install(policy)
    expected = simulate(WORKLOAD, config, policy)
    assert expected.num_preemptions > 0
    same_result(session.result(), expected)
