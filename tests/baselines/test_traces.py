"""Every scheduler on every real trace, with all invariants checked after every iteration.

INFERMAX_TRACE_REQUESTS=1000 takes so many requests of each trace (the default takes a few, for the sake of time):

    INFERMAX_TRACE_REQUESTS=1000 pytest -q tests/baselines/test_traces.py
"""

from __future__ import annotations

import math
import os
from functools import partial

import numpy as np
import pytest

import infermax_gym.baselines.nested_wait
import infermax_gym.baselines.prefix_aware.sglang
import infermax_gym.baselines.rollout
import infermax_gym.engine.session
from infermax_gym.baselines.catalogue import NESTED_WAIT, PLAYERS
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.prefix_aware import PREFIX_AWARE
from infermax_gym.engine import EngineConfig, InvariantChecker, SimulationResult, simulate
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.session import run_to
from infermax_gym.engine.state import Engine
from infermax_gym.workload import Workload, load_workload
from tests.shared import SHARED, needs_shared

FEW = {
    "azure2023_conv_head.csv": 60,
    "azure2023_code_head.csv": 100,
    "mooncake_conversation_head.jsonl": 20,
    "arxiv_summarization_head.csv": 20,
}
"""Traces, and how many of their requests are few: answers of hundreds of tokens make many iterations."""

EACH_TRACE = pytest.mark.parametrize("trace", FEW)
EACH_MEMORY = pytest.mark.parametrize("memory", ["tight", "wide"])


def head_of(trace: str, share: float = 1.0) -> Workload:
    """The first requests of a trace; the one without arrivals gets one a second."""
    assert SHARED is not None
    count = int(os.environ.get("INFERMAX_TRACE_REQUESTS", FEW[trace]))
    rate = 1.0 if "arxiv" in trace else None
    return load_workload(SHARED / "data" / trace, first=math.ceil(share * count), rate=rate, seed=0)


def engine_for(workload: Workload, memory: str, prefix_caching: bool = False) -> EngineConfig:
    """Room for little more than the longest request, or for everybody."""
    longest = int((workload.num_prompt_tokens + workload.num_output_tokens).max())
    size = 5 * longest // 4 if memory == "tight" else 10**7
    return EngineConfig(num_kv_tokens=size, prefix_caching=prefix_caching)


def everything_is_served(workload: Workload, result: SimulationResult) -> None:
    """All end, and their tokens come one after another."""
    assert result.finished.all()
    np.testing.assert_array_equal(result.num_generated_tokens, workload.num_output_tokens)
    assert (result.first_scheduled_s >= workload.arrival_s).all()
    assert (result.first_token_s > result.first_scheduled_s).all()
    assert (result.finish_s >= result.first_token_s).all()


@needs_shared
@EACH_TRACE
@EACH_MEMORY
def test_policies(trace: str, memory: str) -> None:
    workload = head_of(trace)
    for name, policy in POLICIES.items():
        predicted_lengths = predictions(policy, workload)
        try:
            result = simulate(workload, engine_for(workload, memory), policy, predicted=predicted_lengths, debug=True)
            everything_is_served(workload, result)
        except Exception as error:
            raise AssertionError(f"{name} on {trace}, {memory} memory") from error


@needs_shared
@pytest.mark.parametrize("name", ["vllm-v1", "sarathi", "spf-headroom", "fastserve", "mc-sf-oracle", "vtc-sarathi"])
def test_rows_with_a_prefix_cache(name: str) -> None:
    workload = head_of("mooncake_conversation_head.jsonl")
    config, policy = engine_for(workload, "tight", prefix_caching=True), POLICIES[name]
    result = simulate(workload, config, policy, predicted=predictions(policy, workload), debug=True)
    everything_is_served(workload, result)
    assert result.num_cached_tokens_of.sum() > 0


def run_checked(engine: Engine, recorder: Recorder, until_s: float = np.inf) -> bool:
    """What `infermax_gym.engine.session.run_to` does, checked after every iteration."""
    checker = InvariantChecker(engine)
    return run_to(engine, recorder, step=lambda: checker.run(until_s))


@needs_shared
@EACH_TRACE
@pytest.mark.parametrize("name", [*PLAYERS, NESTED_WAIT.name, *PREFIX_AWARE])
def test_players(trace: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with code of their own, on half as many requests: their engines are looked at behind their backs."""
    monkeypatch.setattr(infermax_gym.engine.session, "run_to", run_checked)
    monkeypatch.setattr(infermax_gym.baselines.rollout, "run_to", run_checked)
    for module in (infermax_gym.baselines.nested_wait, infermax_gym.baselines.prefix_aware.sglang):
        monkeypatch.setattr(module, "simulate", partial(simulate, debug=True))
    player = {**PLAYERS, NESTED_WAIT.name: NESTED_WAIT, **PREFIX_AWARE}[name]
    workload = head_of(trace, 0.5)
    caching = name in PREFIX_AWARE and "mooncake" in trace
    everything_is_served(workload, player.play(workload, engine_for(workload, "tight", caching)))
