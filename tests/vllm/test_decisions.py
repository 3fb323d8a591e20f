"""What the plug-in does without vLLM: its queue, its faults, what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine.policy import Policy, QueueOrder, queue_weights
from infermax_gym.vllm import PlugInError, as_served
from infermax_gym.vllm.admission import Candidate, Limits
from infermax_gym.vllm.decisions import Decisions
from infermax_gym.vllm.scheduler import PlugIn
from infermax_gym.vllm.settings import read_settings
from tests.vllm import fakes

LIMITS = Limits(
    num_blocks=100, block_size=16, token_budget=256, max_num_seqs=8, max_model_len=4096, max_output_tokens=64
)


def decisions(policy: Policy, now: list[float], faults: list[Exception], memory: Any = None) -> Decisions:
    return Decisions(
        as_served(policy), LIMITS, memory or fakes.FakeMemory(), lambda: now[0], 0.0, on_fault=faults.append
    )


def test_the_queue_is_in_the_order_of_the_policy() -> None:
    made = decisions(POLICIES["shortest-prompt-first"], [0.0], [])
    for name, prompt in (("a", 30), ("b", 10), ("c", 20), ("d", 10)):
        made.queue.add_request(fakes.request(name, prompt))
    assert [request.request_id for request in made.queue] == ["b", "d", "c", "a"]
    assert made.queue.pop_request().request_id == "b"
    made.queue.remove_requests([fakes.request("c"), fakes.request("nobody")])
    assert [request.request_id for request in made.queue] == ["d", "a"]
    assert made.queue.known_tokens == 40


def test_preempted_requests_come_first_in_fifo_the_last_preempted_before_all() -> None:
    made = decisions(POLICIES["sarathi"], [0.0], [])
    first, second, third = (fakes.request(name) for name in "abc")
    made.queue.add_request(first)
    made.queue.prepend_request(second)
    made.queue.prepend_request(third)
    assert [request.request_id for request in made.queue] == ["c", "b", "a"]


def test_response_ratios_move_with_the_clock() -> None:
    now = [0.0]
    made = decisions(POLICIES["hrrn"], now, [])
    made.queue.add_request(fakes.request("long", 1000, arrival_s=0.0))
    made.queue.add_request(fakes.request("short", 10, arrival_s=99.0))
    now[0] = 99.5
    made.begin([])
    assert made.queue.peek_request().request_id == "long"
    now[0] = 110.0
    made.begin([])
    assert made.queue.peek_request().request_id == "short"


def test_headroom_holds_admission_back() -> None:
    memory = fakes.FakeMemory(free_blocks=10)
    made = decisions(POLICIES["spf-headroom"], [0.0], [], memory)
    runs = made.entry_of(fakes.request("runs", 10))
    made.admitted(Candidate(runs, 0, 10, 0))
    waits = made.entry_of(fakes.request("waits", 100))
    assert made.admit(Candidate(waits, 0, 100, 0)) is None  # 7 blocks leave 48 tokens, and 50 must be free
    memory.free_blocks = 11
    assert made.admit(Candidate(waits, 0, 100, 0)) == 100


def test_a_preempted_request_counts_the_token_under_way_that_vllm_no_longer_does() -> None:
    """With asynchronous scheduling vLLM forgets the placeholder as it preempts, and appends the token later."""
    made = decisions(POLICIES["hrrn"], [0.0], [])
    request = fakes.request("a", 10, num_tokens=12, num_output_tokens=2, num_output_placeholders=1, max_tokens=50)
    entry = made.entry_of(request)
    made.admitted(Candidate(entry, 0, 10, 0))
    made.preempting(request)
    request.num_output_placeholders = 0
    made.queue.prepend_request(request)
    assert (entry.known, made.queue.known_tokens) == (13, 13)
    assert entry.slope == -1.0 / 13.0
    request.num_tokens, request.num_output_tokens = 13, 3
    made.begin([])
    assert entry.known == 13


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_key_that_is_no_number_makes_it_first_come_first_served_for_a_minute(weight: float) -> None:
    now, faults = [0.0], []
    policy = Policy("broken", queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(num_known_tokens=1.0))
    made = decisions(policy, now, faults)
    made.queue.add_request(fakes.request("a", 30))
    made.queue_weights = queue_weights(num_known_tokens=weight)
    made.queue.add_request(fakes.request("b", 10))
    assert len(faults) == 1
    made.queue.add_request(fakes.request("c", 5))
    assert len(faults) == 1
    assert [request.request_id for request in made.queue] == ["a", "b", "c"]
    made.queue_weights = policy.queue_weights
    now[0] = 61.0
    made.begin([])
    assert [request.request_id for request in made.queue] == ["c", "b", "a"]


def test_an_exception_in_the_middle_of_a_call_is_counted_and_the_call_goes_on() -> None:
    now, faults = [0.0], []
    made = decisions(POLICIES["spf-headroom"], now, faults)
    entry = made.entry_of(fakes.request("a", 10))
    made.admitted(Candidate(entry, 0, 10, 0))
    other = made.entry_of(fakes.request("b", 10))
    made.admitted(Candidate(other, 0, 10, 0))
    made.begin([entry.request, other.request])
    assert made.victim(entry) is other
    made.running.victim_weights = ()
    assert made.victim(entry) is None
    assert made.admit(Candidate(made.entry_of(fakes.request("c", 20)), 0, 20, 0)) == 20
    assert len(faults) == 1 and isinstance(faults[0], IndexError)
    assert made.begin([other.request, entry.request]) == ([entry, other], 256)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"connector": object()}, "KV connectors"),
        ({"policy": SimpleNamespace(value="priority")}, "--scheduling-policy"),
        ({"kv_cache_config": SimpleNamespace(kv_cache_groups=[0, 1])}, "2 groups"),
        ({"max_num_scheduled_tokens": 512}, "max_num_batched_tokens 2048"),
        ({"waiting": [1]}, "from the start"),
    ],
)
def test_servers_that_are_refused(values: dict[str, Any], says: str) -> None:
    settings = read_settings({"infermax": {"policy": "sarathi-2048" if "2048" in says else "sarathi"}})
    with pytest.raises(PlugInError, match=says):
        PlugIn(fakes.scheduler(**values), settings)


def test_the_token_budget_of_prefills_beside_decodes() -> None:
    made = decisions(Policy("half", prefill_share=0.5), [0.0], [])
    decode = fakes.request("decode", 10)
    entry = made.entry_of(decode)
    made.admitted(Candidate(entry, 0, 10, 0))
    made.queue.add_request(fakes.request("waits", 1000))
    assert made.begin([decode])[1] == 256
    decode.num_computed_tokens, decode.num_tokens, decode.num_output_tokens = 10, 11, 1
    assert made.begin([decode])[1] == 1 + 128
