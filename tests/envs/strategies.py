"""Random configurations of environments, small and hostile, for property tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from infermax_gym.engine import Policy
from infermax_gym.engine.policy import PreemptMode, QueueOrder, Reserve
from infermax_gym.envs.scheduling.config import BASE, EnvConfig
from tests.engine.strategies import cost_models, policies, workloads

FIXED_KEYS = (QueueOrder.FIFO, QueueOrder.LINEAR)


@st.composite
def bases(draw: Any) -> Policy:
    """The default, some that stress one thing, and any policy whose queue keys stand still."""
    plain = [
        BASE,
        replace(BASE, preempt_mode=PreemptMode.SWAP),
        replace(BASE, reserve=Reserve.CHUNK),
        replace(BASE, reserve=Reserve.CHUNK, preempt_mode=PreemptMode.SWAP, queue_order=QueueOrder.FIFO),
    ]
    any_row = policies().filter(lambda row: row.queue_order in FIXED_KEYS)
    return draw(st.one_of(st.sampled_from(plain), any_row))


@st.composite
def hostile_configs(draw: Any) -> EnvConfig:
    """One-block caches, prompts that never fit, simultaneous arrivals, one slot, budgets of one token."""
    workload = draw(workloads(max_requests=10, max_prompt=30, max_output=12))
    if draw(st.integers(0, 9)) == 0:
        workload = replace(workload, num_prompt_tokens=workload.num_prompt_tokens + 10_000)
    elif draw(st.booleans()):
        workload = replace(workload, arrival_s=np.zeros(len(workload)))
    block = draw(st.sampled_from([1, 2, 3, 16]))
    tokens = block * draw(st.integers(1, 8)) + draw(st.integers(0, block - 1))
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    return EnvConfig(
        workloads=(workload,),
        num_requests=len(workload),
        num_kv_tokens=(tokens, tokens),
        costs=(draw(cost_models()),),
        block_size=block,
        max_num_batched_tokens=pick(1, 2, 7, 64),
        max_num_seqs=pick(1, 2, 5, 64),
        num_waiting_slots=pick(1, 2, 5, 16),
        num_running_slots=pick(1, 2, 5, 16),
        level_shares=pick((1.0,), (0.0, 1.0), (0.0, 0.25, 0.5, 1.0), (0.01, 1.0)),
        decide=pick("change", "event", "iteration"),
        admit_within_budget=pick(False, True),
        preempt=pick("any", "forced"),
        information=pick("none", "noisy", "oracle"),
        reward=pick("latency", "ttft", "gpu_cost", "goodput"),
        ttft_slo_s=0.5,
        base=draw(bases()),
    )
