"""Who sends a request, and when: clients, conversations, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.workload import (
    Traffic,
    Workload,
    WorkloadError,
    as_sessions,
    closed_loop,
    load_workload,
    make_workload,
    write_workload,
)

FOUR = Workload([0.0, 1.0, 2.0, 5.0], [10, 20, 30, 40], [1, 2, 3, 4])
CHATS = replace(FOUR, session=np.array([0, 1, 0, 0]))


def test_clients_share_a_list() -> None:
    workload = closed_loop(FOUR, 2, think_s=0.5, ramp_up_s=3.0)
    assert workload.after.tolist() == [-1, -1, -2, -2]
    assert workload.arrival_s.tolist() == [0.0, 1.5, 1.5, 1.5]
    assert workload.think_s.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert workload.num_prompt_tokens.tolist() == FOUR.num_prompt_tokens.tolist()
    assert workload.metadata["num_clients"] == 2


def test_more_clients_than_requests() -> None:
    workload = closed_loop(FOUR, 9)
    assert workload.after.tolist() == [-1] * 4
    assert not workload.is_closed_loop


def test_turns_follow_turns() -> None:
    workload = as_sessions(CHATS)
    assert workload.after.tolist() == [-1, -1, 0, 2]
    assert workload.think_s.tolist() == [0.0, 0.0, 2.0, 3.0]
    assert workload.arrival_s.tolist() == FOUR.arrival_s.tolist()


def test_the_answer_is_taken_off_the_pause() -> None:
    assert as_sessions(CHATS, answer_s_per_token=0.5).think_s.tolist() == [0.0, 0.0, 1.5, 1.5]
    assert as_sessions(CHATS, answer_s_per_token=10.0).think_s.tolist() == [0.0] * 4
    assert as_sessions(CHATS, think_s=7.0).think_s.tolist() == [0.0, 0.0, 7.0, 7.0]


def test_a_client_keeps_its_conversation() -> None:
    workload = closed_loop(as_sessions(CHATS), 1, think_s=0.25)
    assert workload.after.tolist() == [-1, -2, 0, 2]
    assert workload.think_s.tolist() == [0.0, 0.25, 2.0, 3.0]


def test_prompts_of_the_preset_grow_from_turn_to_turn() -> None:
    workload = as_sessions(make_workload("conversations", 300, seed=0))
    later = np.flatnonzero(workload.after >= 0)
    before = workload.after[later]
    assert len(later) > 100
    known = workload.num_prompt_tokens[before] + workload.num_output_tokens[before]
    assert (workload.num_prompt_tokens[later] > known).all()
    assert (workload.session[later] == workload.session[before]).all()
    assert (workload.turn[later] == workload.turn[before] + 1).all()


def test_a_slice_cuts_conversations() -> None:
    part = as_sessions(CHATS).trace_slice(1, 3)
    assert part.after.tolist() == [-1, -1, 1]
    assert part.arrival_s.tolist() == [0.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"after": [-1, 1, 0, 0]}, "request 1 has after = 1"),
        ({"after": [-3, -1, -1, -1]}, "request 0 has after = -3"),
        ({"after": [-2, -2, -2, -2]}, "every request is sent after another one"),
        ({"after": [-1, 0, 0, -2]}, "two requests are sent after the same one"),
        ({"think_s": [0.0, -1.0, 0.0, 0.0]}, "request 1 has think_s = -1.0"),
        ({"think_s": [np.inf, 0.0, 0.0, 0.0]}, "request 0 has think_s = inf"),
    ],
)
def test_refused_workloads(changes: dict[str, list[float]], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        replace(FOUR, **changes)


def test_refused_arguments(tmp_path: Path) -> None:
    for wrong in ({"num_clients": 0}, {"num_clients": 1, "think_s": -1.0}, {"num_clients": 1, "ramp_up_s": np.inf}):
        with pytest.raises(WorkloadError, match="must be"):
            closed_loop(FOUR, **wrong)
    shared = closed_loop(FOUR, 2)
    for again in (lambda: closed_loop(shared, 2), lambda: as_sessions(shared), lambda: shared.trace_slice(1)):
        with pytest.raises(WorkloadError, match="clients share"):
            again()
    with pytest.raises(WorkloadError, match="a CSV holds arrivals"):
        write_workload(shared, tmp_path / "x.csv")


def test_traffic() -> None:
    assert Traffic().is_open
    assert Traffic()(FOUR) is FOUR
    assert Traffic(2, 0.5)(FOUR).think_s.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert Traffic(1, sessions=True)(CHATS).after.tolist() == [-1, -2, 0, 2]
    for wrong in ({"ramp_up_s": 1.0}, {"think_s": 1.0}, {"concurrency": 0}, {"concurrency": 1, "think_s": -1.0}):
        with pytest.raises(WorkloadError):
            Traffic(**wrong)


def test_uniform_lengths() -> None:
    workload = load_workload("uniform:1000,200,0.8", num_requests=4000, seed=3)
    for lengths, low, high in ((workload.num_prompt_tokens, 800, 1000), (workload.num_output_tokens, 160, 200)):
        assert (lengths.min(), lengths.max()) == (low, high)
        assert abs(lengths.mean() - (low + high) / 2) < 0.02 * (high - low)
        counts = np.bincount(lengths - low)
        expected = len(lengths) / len(counts)
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        assert chi2 < len(counts) + 4.0 * np.sqrt(2.0 * len(counts))
    assert np.corrcoef(workload.num_prompt_tokens, workload.num_output_tokens)[0, 1] < 0.05
    assert set(load_workload("uniform:7,3", seed=0).num_prompt_tokens.tolist()) == {7}


@pytest.mark.parametrize(
    "name", ["uniform:", "uniform:10", "uniform:10,0", "uniform:1,2,3", "uniform:1,2,x", "uniform:1,2,0.5,1"]
)
def test_refused_uniform_lengths(name: str) -> None:
    with pytest.raises(WorkloadError, match="expected uniform:PROMPT,OUTPUT"):
        load_workload(name)
