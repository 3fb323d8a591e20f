"""The waiting queue's tournament tree against a plain list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.kernel.keys import set_queue_key
from infermax_gym.engine.kernel.queue import head, oldest, push, remove, reset
from infermax_gym.engine.policy import QueueOrder, queue_weights
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload
from tests.engine.strategies import examples

LINEAR = Policy("short", queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(num_prompt_tokens=1.0))
HRRN = Policy("hrrn", queue_order=QueueOrder.RESPONSE_RATIO, queue_weights=queue_weights(num_prompt_tokens=1.0))
LARRY = Policy(
    "larry",
    queue_order=QueueOrder.LOAD_ADAPTIVE,
    queue_weights=queue_weights(num_prompt_tokens=1.0),
    load_aging=0.5,
)


def engine_for(policy: Policy, prompts: list[int], arrival_s: np.ndarray) -> Engine:
    engine = allocate(Workload(arrival_s, prompts, np.ones(len(prompts), int)), EngineConfig(), policy)
    for r in range(len(prompts)):
        set_queue_key(engine.core, r)
    return engine


def key(engine: Engine, policy: Policy, r: int) -> float:
    """The key of a waiting request, from its definition in `QueueOrder`."""
    core, prompt, arrival_s = engine.record[0], *(float(engine.requests[name][r]) for name in ("prompt", "arrival_s"))
    if policy is HRRN:
        return arrival_s / prompt + float(core["clock_s"]) * (-1.0 / prompt)
    if policy is LARRY:
        return prompt + arrival_s * (0.5 * int(core["num_waiting"]))
    return prompt if policy is LINEAR else float(r)


@examples(200)
@given(
    data=st.data(),
    prompts=st.lists(st.integers(1, 6), min_size=1, max_size=17),
    policy=st.sampled_from([Policy("fifo"), LINEAR, HRRN, LARRY]),
)
def test_like_a_plain_list(data: st.DataObject, prompts: list[int], policy: Policy) -> None:
    n = len(prompts)
    engine = engine_for(policy, prompts, np.arange(n) * 0.25)
    engine.record["clock_s"] = n * 0.25
    waiting: set[int] = set()
    for _ in range(40):
        r = data.draw(st.integers(0, n - 1))
        if r in waiting:
            remove(engine.core, r)
            waiting.remove(r)
        else:
            push(engine.core, r)
            waiting.add(r)
        engine.record["clock_s"] += data.draw(st.sampled_from([0.0, 0.125, 1.0, 64.0]))
        keys = {r: key(engine, policy, r) for r in sorted(waiting)}
        assert head(engine.core) == min(keys, key=lambda r: keys[r], default=-1)
        assert oldest(engine.core) == min(waiting, default=-1)
        assert engine.record["num_waiting"][0] == len(waiting)
        assert engine.record["waiting_tokens"][0] == sum(prompts[r] for r in waiting)


def test_the_longest_waiting_in_proportion_leads() -> None:
    """Work 2 from the start against work 1 later: the ratio of waiting time to work decides, and changes."""
    engine = engine_for(HRRN, [2, 1], np.array([0.0, 4.0]))
    engine.record["clock_s"] = 4.0
    push(engine.core, 0)
    push(engine.core, 1)
    leaders = []
    for clock_s in (4.0, 6.0, 7.9, 8.1, 20.0):
        engine.record["clock_s"] = clock_s
        leaders.append(int(head(engine.core)))
    assert leaders == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("policy", [LINEAR, HRRN])
def test_reset_empties_the_queue(policy: Policy) -> None:
    engine = engine_for(policy, [3, 1, 2], np.zeros(3))
    for r in range(3):
        push(engine.core, r)
    reset(engine.core)
    assert head(engine.core) == -1
    assert oldest(engine.core) == -1


def test_ties_go_to_the_earlier_arrival_wherever_they_are_met() -> None:
    """Request 1 leads as long as few wait; at four its key is that of request 0, which then leads."""
    slo = queue_weights(arrival_s=0.5, slo_ttft_s=0.5)
    policy = Policy("aging", queue_order=QueueOrder.LOAD_ADAPTIVE, queue_weights=slo, load_aging=0.1)
    arrival_s = np.array([0.0, 0.5, 0.5, 0.5, 0.5])
    workload = Workload(arrival_s, np.ones(5), np.ones(5), ttft_slo_s=[1.0, 0.1, 0.1, 0.1, 0.1])
    engine = allocate(workload, EngineConfig(), policy)
    leaders = []
    for r in range(5):
        set_queue_key(engine.core, r)
        push(engine.core, r)
        leaders.append(int(head(engine.core)))
    assert leaders == [0, 1, 1, 0, 0]
