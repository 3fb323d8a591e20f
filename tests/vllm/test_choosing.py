"""Selectors beside vLLM's scheduler, without vLLM: who is left out, when they look, how a policy is put in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infermax_gym.agents import load_agent
from infermax_gym.agents.outlook import FEATURES
from infermax_gym.agents.selector import Selector
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.table.shares import FCFS_SHARE, SPF_SHARE, Shares
from infermax_gym.cost import COSTS
from infermax_gym.vllm import PlugInError, as_served
from infermax_gym.vllm.admission import Candidate
from infermax_gym.vllm.choosing import Choosing, served_selector
from infermax_gym.vllm.decisions import Decisions
from infermax_gym.vllm.translation import obstacle
from tests.vllm import fakes
from tests.vllm.test_decisions import LIMITS

COST = COSTS["llama2-7b-a100"]


def crossing(*experts: Shares) -> Selector:
    """The second expert where requests wait, else the first."""
    inner = np.zeros((1, len(FEATURES)))
    inner[0, FEATURES.index("queue")] = 5.0
    outer = np.zeros((len(experts), 2))
    outer[1], outer[0] = (1.0, -0.5), (0.0, 0.0)
    return Selector(experts, inner, outer, memory=0.0)


def test_experts_that_vllm_cannot_follow_are_left_out() -> None:
    selector = load_agent("any-engine").selector
    assert selector is not None
    served = served_selector("any-engine", selector)
    lost = [i for i, expert in enumerate(selector.experts) if expert.name in served.left_out]
    assert lost == [i for i, expert in enumerate(selector.experts) if obstacle(expert.base) is not None]
    assert "vllm-v0" in served.left_out
    assert len(served.selector.experts) == len(selector.experts) - len(lost)
    assert all(not expert.base.admit_after_preemption for expert in served.selector.experts)
    np.testing.assert_array_equal(served.selector.outer, np.delete(selector.outer, lost, axis=0))
    v0 = [i for i in lost if selector.experts[i].name == "vllm-v0"]
    with pytest.raises(PlugInError, match="agent alone: policy 'vllm-v0' cannot run inside vLLM: phase_order"):
        served_selector("alone", replace(selector, experts=(selector.experts[v0[0]],), outer=selector.outer[v0]))


def test_it_looks_when_it_is_time_and_puts_the_policy_in() -> None:
    now = [0.0]
    served = served_selector("crossing", crossing(FCFS_SHARE, SPF_SHARE))
    choosing = Choosing(served, COST, LIMITS)
    first = served.selector.experts[0].base
    made = Decisions(first, LIMITS, fakes.FakeMemory(), lambda: now[0], 0.0, COST, choosing)
    for name, prompt in (("a", 500), ("b", 300), ("c", 100)):
        made.queue.add_request(fakes.request(name, prompt))
    made.begin([])
    assert (made.policy.name, choosing.num_looks) == ("fcfs-share", 1)  # the look at the empty server, before anybody
    assert made.token_budget == served.selector.experts[0].resolve(choosing._config).max_num_batched_tokens
    assert [request.request_id for request in made.queue] == ["a", "b", "c"]
    now[0] = 1e4
    made.begin([])
    assert (made.policy.name, choosing.num_looks) == ("spf-share", 2)
    assert [request.request_id for request in made.queue] == ["c", "b", "a"]
    made.begin([])
    assert choosing.num_looks == 2


@pytest.mark.parametrize(("comes_at_s", "looks"), [(50.0, 2), (60.0, 3)])
def test_whoever_comes_as_the_last_one_leaves_is_seen_first(comes_at_s: float, looks: int) -> None:
    now = [0.0]
    choosing = Choosing(served_selector("crossing", crossing(FCFS_SHARE, SPF_SHARE)), COST, LIMITS)
    made = Decisions(as_served(POLICIES["sarathi"]), LIMITS, fakes.FakeMemory(), lambda: now[0], 0.0, COST, choosing)
    request: Any = fakes.request("a", 10)
    made.admitted(Candidate(made.entry_of(request), 0, 10, 0))
    made.begin([request])
    now[0] = 50.0
    request.num_output_tokens = 1
    made.left(request, finished=True)
    made.emitted([])
    now[0] = comes_at_s
    made.queue.add_request(fakes.request("b", 10, arrival_s=comes_at_s))
    choosing._next_s = min(choosing._next_s, 50.0)
    made.begin([])
    assert choosing.num_looks == looks


def test_a_queue_that_stays_fifo_keeps_its_order() -> None:
    made = Decisions(as_served(POLICIES["sarathi"]), LIMITS, fakes.FakeMemory(), lambda: 0.0, 0.0, COST)
    made.queue.add_request(fakes.request("new"))
    made.queue.prepend_request(fakes.request("preempted"))
    made.install(as_served(POLICIES["vllm"]))
    assert [request.request_id for request in made.queue] == ["preempted", "new"]
    made.install(as_served(POLICIES["shortest-prompt-first"]))
    made.install(as_served(POLICIES["vllm"]))
    assert [request.request_id for request in made.queue] == ["new", "preempted"]
