"""A policy of the table, played action by action, gives exactly the kernel's schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Information, simulate
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.teacher import PolicyTeacher
from infermax_gym.workload import make_workload

ROWS = (
    "sarathi",
    "srf",
    "shortest-prompt-first",
    "vllm-v1",
    "vllm-v1-full-isl",
    "spf-headroom",
    "fcfs-headroom",
    "infermax-sarathi",
    "srf-histogram",
    "best-fit",
)
# Asked at events alone, to save time.
MORE_ROWS = (
    "sarathi-2048",
    "spf-aging-headroom",
    "edf",
    "least-attained-service",
    "trt-max-utilization",
    "infermax-srf-histogram",
    "sjf-oracle",
    "mc-sf-oracle",
)
CASES = [(name, decide) for name in ROWS for decide in ("event", "iteration")] + [(name, "event") for name in MORE_ROWS]
NUM_KV_TOKENS = 8_000
WORKLOAD = make_workload("azure-conv", 150, seed=3).scaled(0.5)


@pytest.mark.parametrize(("name", "decide"), CASES)
def test_same_schedule(name: str, decide: str) -> None:
    row = POLICIES[name]
    config = EnvConfig(
        workloads=(WORKLOAD,),
        num_requests=len(WORKLOAD),
        num_kv_tokens=(NUM_KV_TOKENS, NUM_KV_TOKENS),
        num_waiting_slots=32,
        num_running_slots=64,
        decide=decide,  # type: ignore[arg-type]
        information="oracle" if row.information == Information.ORACLE else "none",
        base=row,
    )
    env = InferMaxEnv(config, flat=True)
    teacher = PolicyTeacher(row, env.layout)
    env.reset(seed=0)
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(teacher.action(env))
        done = terminated or truncated
    engine = EngineConfig(cost=COSTS["llama2-7b-a100"], num_kv_tokens=NUM_KV_TOKENS)
    expected = simulate(WORKLOAD, engine, row, predicted=env.run.episode.predicted)
    assert info["num_illegal"] == 0
    requests = env.run.engine.requests
    for field in ("first_scheduled_s", "first_token_s", "finish_s"):
        np.testing.assert_array_equal(requests[field], getattr(expected, field), err_msg=field)
    np.testing.assert_array_equal(requests["preemptions"], expected.num_preemptions_of)
    assert info["metrics"]["busy_s"] == expected.busy_s
    assert info["metrics"]["num_iterations"] == expected.num_iterations


def test_the_workload_is_contended() -> None:
    """Else the equality above would say little."""
    engine = EngineConfig(cost=COSTS["llama2-7b-a100"], num_kv_tokens=NUM_KV_TOKENS)
    results = [simulate(WORKLOAD, engine, POLICIES[name]) for name in ROWS]
    assert all(result.num_preemptions > 0 for result in results if result is not None)
    assert len({float(np.nanmean(result.latency_s)) for result in results}) == len(ROWS)


def test_too_small_a_window_says_so() -> None:
    """A policy that looks past the head of the queue needs to see more than the head."""
    row = POLICIES["best-fit"]
    env = InferMaxEnv(
        workloads=(WORKLOAD,), num_requests=150, num_kv_tokens=(8_000, 8_000), num_waiting_slots=1, base=row
    )
    teacher = PolicyTeacher(row, env.layout)
    env.reset(seed=0)
    with pytest.raises(LookupError, match="use more slots"):
        for _ in range(20_000):
            env.step(teacher.action(env))


def test_sequences_and_budget_are_the_policys_own() -> None:
    """The environment allows 128 requests and 512 tokens; the policy 6 and 32. A level for every number of tokens."""
    row = POLICIES["sarathi"]
    narrow = replace(row, max_running=6, max_num_batched_tokens=32)
    config = EnvConfig(
        workloads=(WORKLOAD,),
        num_requests=len(WORKLOAD),
        num_kv_tokens=(NUM_KV_TOKENS, NUM_KV_TOKENS),
        level_shares=tuple(i / 512 for i in range(513)),
        base=row,
        decide="iteration",  # what decodes leave of the budget changes with every first token
        max_decisions=1_000_000,
    )
    env = InferMaxEnv(config, flat=True)
    teacher = PolicyTeacher(narrow, env.layout)
    env.reset(seed=0)
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(teacher.action(env))
        done = terminated or truncated
    engine = EngineConfig(cost=COSTS["llama2-7b-a100"], num_kv_tokens=NUM_KV_TOKENS)
    expected = simulate(WORKLOAD, engine, narrow)
    assert expected.num_iterations != simulate(WORKLOAD, engine, row).num_iterations
    assert info["metrics"]["num_iterations"] == expected.num_iterations
    np.testing.assert_array_equal(env.run.engine.requests["finish_s"], expected.finish_s)
