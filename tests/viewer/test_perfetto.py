"""The timeline of every policy is consistent: counters within the engine's limits, slices that nest and close."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, SimulationResult, simulate
from infermax_gym.viewer.perfetto import trace_events, write_trace
from infermax_gym.workload import Workload

CONFIG = EngineConfig(num_kv_tokens=480, max_num_batched_tokens=64, max_num_seqs=6)


def run(name: str) -> SimulationResult:
    rng = np.random.default_rng(0)
    prompts, outputs = rng.integers(1, 200, 30), rng.integers(1, 120, 30)
    prompts[7] = 600  # can never fit
    workload = Workload(np.sort(rng.uniform(0, 2, 30)), prompts, outputs)
    policy = POLICIES[name]
    return simulate(workload, CONFIG, policy, predicted=predictions(policy, workload), record_schedule=True)


@pytest.mark.parametrize("name", POLICIES)
def test_counters_stay_within_the_engine(name: str) -> None:
    counters: dict[str, list[int]] = defaultdict(list)
    for event in trace_events(run(name)):
        if event["ph"] == "C":
            counters[event["name"]].append(event["args"]["value"])
    assert min(min(series) for series in counters.values()) == 0
    assert max(counters["KV tokens"]) <= CONFIG.num_kv_tokens
    assert max(counters["running requests"]) <= CONFIG.max_num_seqs
    assert all(series[-1] == 0 for series in counters.values())


def test_slices_of_a_request_nest_and_close() -> None:
    result = run("vllm-v1")
    open_slices: dict[int, list[str]] = defaultdict(list)
    begun: dict[int, list[str]] = defaultdict(list)
    for event in trace_events(result):
        if event["ph"] == "b":
            open_slices[event["id"]].append(event["name"])
            begun[event["id"]].append(event["name"])
        elif event["ph"] == "e":
            assert open_slices[event["id"]].pop() == event["name"]
    assert not any(open_slices.values())
    assert len(begun) == 29
    assert all(set(names) <= {f"request {r}", "waiting", "prefill", "decode"} for r, names in begun.items())


def test_rejected_requests_are_marked() -> None:
    marks: list[dict[str, Any]] = [e for e in trace_events(run("vllm-v1")) if e["ph"] == "n"]
    assert [mark["id"] for mark in marks if mark["name"] == "rejected"] == [7]


def test_the_file_is_json() -> None:
    result, file = run("vllm-v1"), io.StringIO()
    write_trace(result, file)
    assert json.loads(file.getvalue())["traceEvents"] == json.loads(json.dumps(list(trace_events(result))))


def test_a_run_without_schedule_is_refused() -> None:
    workload = Workload([0.0], [1], [1])
    with pytest.raises(ValueError, match="record_schedule"):
        write_trace(simulate(workload, CONFIG, POLICIES["vllm-v1"]), io.StringIO())
