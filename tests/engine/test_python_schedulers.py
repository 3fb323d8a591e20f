"""Schedulers written in Python: what they may know, what they may do, and that they are equal in rights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from infermax_gym.baselines.table.vllm import VLLM_0_13
from infermax_gym.engine import (
    ClairvoyantView,
    Decision,
    EngineConfig,
    Information,
    OnlineView,
    RequestsView,
    Scheduler,
    SchedulerError,
    simulate,
)
from infermax_gym.engine.policy import QueueOrder, queue_weights
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, workloads


class Fcfs:
    """vLLM V1's first come, first served, with preempted requests back in their place by arrival."""

    name = "python-fcfs"
    information = Information.NONE

    def decide(self, view: OnlineView) -> Decision:
        running, waiting = view.running, view.waiting
        budget, free = view.max_num_batched_tokens, view.free_blocks
        batch: list[tuple[int, int]] = []
        victims: list[int] = []
        last = len(running)  # everybody from here on was preempted
        position = 0
        while position < last and budget > 0:
            tokens = min(lacking(running, position), budget)
            needed = blocks(view, running.num_computed_tokens[position] + tokens) - running.num_blocks[position]
            while needed > free and last > position:
                last -= 1
                victims.append(int(running.request[last]))
                free += int(running.num_blocks[last])
            if last == position:
                break
            free -= max(int(needed), 0)
            batch.append((int(running.request[position]), tokens))
            budget -= tokens
            position += 1
        max_num_seqs = view.max_num_seqs - len(running)
        for position in range(0 if victims else min(len(waiting), max_num_seqs)):
            tokens = min(lacking(waiting, position), budget)
            needed = blocks(view, tokens)
            if tokens == 0 or needed > free:
                break
            free -= needed
            batch.append((int(waiting.request[position]), tokens))
            budget -= tokens
        return Decision(batch, victims)


def lacking(requests: RequestsView, position: int) -> int:
    known = requests.num_prompt_tokens[position] + requests.num_generated_tokens[position]
    return int(known - requests.num_computed_tokens[position])


def blocks(view: OnlineView, num_tokens: int) -> int:
    return int(-(-num_tokens // view.block_size))


FCFS_ROW = replace(VLLM_0_13, queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(arrival_s=1.0))


@examples(150)
@given(workload=workloads(), config=configs())
def test_equal_rights(workload: Workload, config: EngineConfig) -> None:
    """The same rule as a policy of the table and as Python gives the same run."""
    row = simulate(workload, config, FCFS_ROW, record_schedule=True)
    python = simulate(workload, config, Fcfs(), record_schedule=True, debug=True)
    same_result(python, row)
    assert python.schedule == row.schedule


def test_equal_rights_on_real_traffic() -> None:
    workload = make_workload("azure-conv", 150, seed=1, rate=20.0)
    config = EngineConfig(num_kv_tokens=12_000)
    row = simulate(workload, config, FCFS_ROW)
    assert row.num_preemptions > 10
    same_result(simulate(workload, config, Fcfs()), row)


class Spy(Fcfs):
    """Keeps what it was shown."""

    def __init__(self, information: Information = Information.NONE) -> None:
        self.information = information
        self.views: list[OnlineView] = []

    def decide(self, view: OnlineView) -> Decision:
        self.views.append(view)
        return super().decide(view)


def leaves(value: Any, path: str = "view") -> Iterator[tuple[str, Any]]:
    """Every field of a view, of what it contains, and so on."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{path}.{field.name}")
    else:
        yield path, value


SECRETS = (10_007, 10_009, 10_037)
"""Output lengths that nothing else in the run is equal to."""


def test_an_online_view_has_no_output_lengths() -> None:
    spy = Spy()
    simulate(Workload([0.0, 0.0, 5.0], [40, 50, 60], SECRETS), EngineConfig(), spy)
    for view in spy.views[:300]:
        assert type(view) is OnlineView
        for path, value in leaves(view):
            assert "output" not in path or path.endswith(".predicted_output_tokens"), path
            assert isinstance(value, (int, float, np.ndarray)), f"{path} may hide something"
            numbers = np.asarray(value, float)
            for secret in SECRETS:
                hidden = np.isin(numbers, [secret, secret - 1, secret + 40, secret + 39])
                assert not hidden.any(), f"{path} holds {secret}"
            if path.endswith(".predicted_output_tokens"):
                assert not numbers.any()


def test_requests_to_come_are_not_shown() -> None:
    spy = Spy()
    simulate(Workload([0.0, 100.0], [10, 11], [3, 3]), EngineConfig(), spy)
    assert [int(r) for view in spy.views for r in (*view.waiting.request, *view.running.request)] == [0, 0, 0, 1, 1, 1]


def test_permuted_lengths_look_the_same() -> None:
    """Nothing of an output length is to be seen before a request ends."""
    prompts, outputs = [40, 50, 60, 70], np.array([9, 17, 30, 23])
    seen = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        spy = Spy()
        simulate(Workload([0.0, 0.0, 0.0, 0.1], prompts, outputs[order]), EngineConfig(num_kv_tokens=320), spy)
        seen.append(spy.views[: min(outputs)])
    for views in zip(*seen, strict=True):
        shown = [[(path, np.asarray(value).tobytes()) for path, value in leaves(view)] for view in views]
        assert shown[0] == shown[1] == shown[2]


def test_views_cannot_be_written() -> None:
    spy = Spy()
    simulate(Workload([0.0], [10], [2]), EngineConfig(), spy)
    for path, value in leaves(spy.views[0]):
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable, path
    with pytest.raises(dataclasses.FrozenInstanceError):
        spy.views[0].clock_s = 3.0  # type: ignore[misc]


def test_only_an_oracle_sees_the_future() -> None:
    workload = Workload([0.0, 9.0], [10, 20], [2, 5])
    for information in (Information.NONE, Information.BOUND, Information.PREDICTED):
        spy = Spy(information)
        simulate(workload, EngineConfig(), spy)
        assert not any(hasattr(view, "workload") for view in spy.views)
    oracle = Spy(Information.ORACLE)
    simulate(workload, EngineConfig(), oracle)
    assert all(isinstance(view, ClairvoyantView) and view.workload is workload for view in oracle.views)


def test_predictions_are_passed_on() -> None:
    spy = Spy(Information.PREDICTED)
    simulate(Workload([0.0, 0.0], [10, 20], [2, 5]), EngineConfig(), spy, predicted=np.array([7.5, 8.0]))
    np.testing.assert_array_equal(spy.views[0].waiting.predicted_output_tokens, [7.5, 8.0])


def test_the_protocol() -> None:
    assert isinstance(Fcfs(), Scheduler)
    assert not isinstance(object(), Scheduler)


class Scripted:
    """Answers with the next line of a script."""

    name = "scripted"
    information = Information.NONE

    def __init__(self, *script: Any) -> None:
        self.script = list(script)

    def decide(self, view: OnlineView) -> Any:
        return self.script.pop(0)


WORKLOAD = Workload([0.0, 0.0, 0.0, 1000.0], [10, 20, 200, 5], [3, 3, 3, 3])
TINY = EngineConfig(num_kv_tokens=64, block_size=4, max_num_batched_tokens=40, max_num_seqs=1)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ([Decision([(0, 10)], [0])], "request 0 is not running and cannot be preempted"),
        ([Decision([(0, 10)]), Decision([(0, 1)], [0, 0])], "request 0 is not running and cannot be preempted"),
        ([Decision([(-1, 1)])], "request -1 does not exist or has not arrived"),
        ([Decision([(3, 1)])], "request 3 does not exist or has not arrived"),
        ([Decision([(4, 1)])], "request 4 does not exist or has not arrived"),
        ([Decision([(2, 1)])], "request 2 is neither waiting nor running"),
        ([Decision([(0, 10)]), *[Decision([(0, 1)])] * 3], "request 0 is neither waiting nor running"),
        ([Decision([(0, 5), (0, 5)])], "request 0 stands in the batch twice"),
        ([Decision([(0, 10)]), Decision([(0, 2)])], "request 0 must get one token, as every decode"),
        ([Decision([(0, 10)]), Decision([(0, 0)])], "request 0 must get one token, as every decode"),
        ([Decision([(0, 0)])], "request 0 must get between 1 and its missing tokens"),
        ([Decision([(0, -3)])], "request 0 must get between 1 and its missing tokens"),
        ([Decision([(0, 11)])], "request 0 must get between 1 and its missing tokens"),
        ([Decision([(0, 5)]), Decision([(0, 6)])], "request 0 must get between 1 and its missing tokens"),
        ([Decision([(0, 10), (1, 20)])], "request 1 finds no free sequence: max_num_seqs requests are running"),
    ],
)
def test_faults(script: list[Decision], fault: str) -> None:
    with pytest.raises(SchedulerError, match=re.escape(fault)) as caught:
        simulate(WORKLOAD, TINY, Scripted(*script))
    assert re.fullmatch(r"scheduler 'scripted' at [\d.e+-]+ s: request -?\d+ [^\n]*", str(caught.value))


def test_fault_token_budget() -> None:
    with pytest.raises(SchedulerError, match="request 1 exceeds the token budget of the iteration"):
        roomy = replace(TINY, max_num_batched_tokens=29, max_num_seqs=2)
        simulate(WORKLOAD, roomy, Scripted(Decision([(0, 10), (1, 20)])))


def test_fault_blocks() -> None:
    with pytest.raises(SchedulerError, match="request 1 finds no free KV block for its tokens"):
        simulate(WORKLOAD, replace(TINY, num_kv_tokens=28, max_num_seqs=2), Scripted(Decision([(0, 10), (1, 20)])))


def test_preempted_blocks_and_tokens_are_free_at_once() -> None:
    config = replace(TINY, num_kv_tokens=28, max_num_seqs=2)
    script = Scripted(Decision([(0, 10)]), Decision([(1, 20)], [0]), *[Decision([(1, 1)])] * 2, Decision([(0, 11)]))
    script.script += [Decision([(0, 1)])]
    result = simulate(Workload([0.0, 0.0], [10, 20], [3, 3]), config, script, record_schedule=True, debug=True)
    assert result.schedule is not None
    assert result.schedule[1].preempted == (0,)
    assert result.num_recomputed_tokens == 10
    assert result.num_preemptions_of.tolist() == [1, 0]


@pytest.mark.parametrize(
    "answer",
    [None, 3, [], Decision([1]), Decision([(1, 2, 3)]), Decision([(0.5, 1)]), Decision([("a", 1)]),  # type: ignore[list-item]
     Decision(None), Decision([], [0.0]), Decision([], 7), Decision([(2**70, 1)])],  # type: ignore[arg-type, list-item]
    ids=repr,
)  # fmt: skip
def test_what_is_no_decision(answer: Any) -> None:
    with pytest.raises(SchedulerError, match="cannot read its decision") as caught:
        simulate(WORKLOAD, TINY, Scripted(answer))
    assert "\n" not in str(caught.value)


def test_numpy_integers_are_integers() -> None:
    decision = Decision(np.array([[0, 10]]), np.array([], np.int64))  # type: ignore[arg-type]
    simulate(Workload([0.0], [10], [1]), TINY, Scripted(decision))


class Rule:
    """A scheduler from a function."""

    name = "rule"
    information = Information.NONE

    def __init__(self, decide: Callable[[OnlineView], Decision]) -> None:
        self.decide = decide


def test_waiting_for_ever_is_an_error() -> None:
    with pytest.raises(
        SchedulerError, match=r"returned nothing at 1000 s though 3 requests wait, 0 run and no arrival"
    ):
        simulate(WORKLOAD, TINY, Rule(lambda view: Decision([])))


def test_an_empty_decision_waits_for_the_next_arrival() -> None:
    workload = Workload([0.0, 2.5], [10, 10], [1, 1])
    lazy = Rule(lambda view: Decision([(int(r), 10) for r in view.waiting.request] if view.clock_s >= 2.5 else []))
    result = simulate(workload, EngineConfig(), lazy)
    assert result.first_scheduled_s.tolist() == [2.5, 2.5]
    assert result.num_iterations == 1


def test_preempting_for_ever_is_an_error() -> None:
    """Everybody starts anew each time, so nobody ever gets a token."""

    def restart(view: OnlineView) -> Decision:
        requests = [*view.running.request, *view.waiting.request]
        return Decision([(int(requests[0]), 1)], [int(r) for r in view.running.request])

    with pytest.raises(SchedulerError, match=r"made no token appear in 192 iterations up to .* preempts what it") as e:
        simulate(WORKLOAD, TINY, Rule(restart), debug=True)
    assert "\n" not in str(e.value)


def test_the_slowest_honest_prefill_is_no_error() -> None:
    """One token at a time up to the whole cache: long without a token, but progress."""

    def sip(view: OnlineView) -> Decision:
        requests = view.running if len(view.running) else view.waiting
        return Decision([(int(requests.request[0]), 1)])

    result = simulate(Workload([0.0], [500], [2]), EngineConfig(num_kv_tokens=512), Rule(sip), debug=True)
    assert result.num_iterations == 501


def test_an_idle_resident_request_keeps_its_memory() -> None:
    workload = Workload([0.0, 0.0], [10, 10], [3, 3])
    script = Scripted(
        Decision([(0, 10), (1, 10)]),
        *[Decision([(1, 1)])] * 2,
        *[Decision([(0, 1)])] * 2,
    )
    result = simulate(workload, EngineConfig(), script, record_schedule=True, debug=True)
    assert result.num_recomputed_tokens == 0
    assert result.finish_s[1] < result.finish_s[0]
    assert result.gap_counts.sum() == 4
    assert result.gap_s.max() > 2 * result.gap_s.min()
