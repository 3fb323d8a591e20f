"""The same run again: copied in the middle, in steps, skipping ahead, written down, in another process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions as predicted_by
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.run import DONE, LIMIT, run
from infermax_gym.engine.layout import LOG_ARRAYS
from infermax_gym.engine.policy import NO_LIMIT, PhaseOrder, Reserve, RunOrder
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload, load_workload, make_workload
from tests.engine.same import PER_REQUEST, same_result
from tests.engine.strategies import configs, examples, policies, predictions, workloads
from tests.engine.test_against_reference import same_run
from tests.reference import simulate_reference
from tests.shared import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("sarathi", "vllm-v1", "vllm-v0-swap", "srf", "hrrn", "lightllm", "srpt-oracle", "fastertransformer")


def state_of(engine: Engine) -> tuple[bytes, ...]:
    """Everything that an engine is, but for where it lies."""
    disband(engine.core)
    record = engine.record.copy()
    for name in record.dtype.names:
        if name.endswith("_address"):
            record[name] = 0
    fields = [record[name].tobytes() for name in record.dtype.names]
    arrays = ("req", "run", "histogram", "tree")
    counts = {"gaps": "num_gaps", "gap_counts": "num_gaps"}
    logs = [engine.arrays[name][: int(record[counts[name]][0])].tobytes() for name in LOG_ARRAYS if name in counts]
    requests = [engine.requests[name].tobytes() for name in engine.requests.dtype.names]
    return (*fields, *requests, *(engine.arrays[name].tobytes() for name in arrays[2:]), *logs)


@examples(100)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies(), steps=st.integers(0, 60))
def test_a_copy_runs_by_itself_and_alike(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy, steps: int
) -> None:
    engine = allocate(workload, config, policy, data.draw(predictions(workload)))
    run(engine.core, steps, np.inf, True)
    copy = engine.copy()
    before = state_of(copy.copy())
    assert run(engine.core, NO_LIMIT, np.inf, True) == DONE
    assert state_of(copy.copy()) == before, "running the original changed its copy"
    for name, array in engine.arrays.items():
        assert not np.shares_memory(array, copy.arrays[name]), name
    assert run(copy.core, NO_LIMIT, np.inf, True) == DONE
    assert state_of(copy) == state_of(engine)


@examples(100)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_stopping_changes_nothing(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    """After any number of iterations, or at any time."""
    predicted = data.draw(predictions(workload))
    whole = allocate(workload, config, policy, predicted)
    run(whole.core, NO_LIMIT, np.inf, True)
    stopped = allocate(workload, config, policy, predicted)
    code = LIMIT
    while code == LIMIT:
        steps = data.draw(st.integers(1, 40))
        until_s = data.draw(st.sampled_from([np.inf, float(stopped.record["clock_s"][0]) + 0.02]))
        before = int(stopped.record["num_iterations"][0])
        code = run(stopped.core, steps, until_s, True)
        assert stopped.record["num_iterations"][0] <= before + steps
    assert code == DONE
    for name in ("clock_s", "busy_s", "num_iterations", "num_preemptions", "system_seconds", "unstarted_seconds"):
        assert stopped.record[name] == whole.record[name], name
    disband(whole.core), disband(stopped.core)
    for name in ("finish_s", "first_token_s", "preemptions", "generated"):
        np.testing.assert_array_equal(stopped.requests[name], whole.requests[name])


@examples(100)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_time_in_the_system_adds_up(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    """Requests in the system, integrated over time, are the sum of latencies; those without a token, of TTFTs."""
    engine = allocate(workload, config, policy, data.draw(predictions(workload)))
    run(engine.core, NO_LIMIT, np.inf, data.draw(st.booleans()))
    disband(engine.core)
    done = engine.requests[np.isfinite(engine.requests["finish_s"])]
    latency_s, ttft_s = done["finish_s"] - done["arrival_s"], done["first_token_s"] - done["arrival_s"]
    np.testing.assert_allclose(engine.record["system_seconds"][0], latency_s.sum(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(engine.record["unstarted_seconds"][0], ttft_s.sum(), rtol=1e-9, atol=1e-9)


def _real(first: int, time_scale: float) -> Workload:
    assert SHARED is not None
    return load_workload(SHARED / "data" / "azure2023_conv_head.csv", first=first, time_scale=time_scale)


@needs_shared
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(("time_scale", "num_kv_tokens"), [(1.0, 30_000), (1.45, 100_000)])
def test_real_traffic_skipping_and_recording(name: str, time_scale: float, num_kv_tokens: int) -> None:
    """Fast-forward and lock-step groups, or neither: the same run."""
    workload, config, policy = _real(600, time_scale), EngineConfig(num_kv_tokens=num_kv_tokens), POLICIES[name]
    predicted = predicted_by(policy, workload)
    plain = simulate(workload, config, policy, predicted=predicted, record_schedule=True, fast_forward=False)
    slow = simulate(workload, config, policy, predicted=predicted, fast_forward=False)
    fast = simulate(workload, config, policy, predicted=predicted)
    same_result(slow, plain)
    same_result(fast, plain)
    assert fast.num_decisions <= slow.num_decisions == plain.num_decisions


@needs_shared
@pytest.mark.parametrize("name", ROWS)
def test_whole_real_trace_skipping(name: str) -> None:
    workload, config, policy = _real(12_000, 1.45), EngineConfig(), POLICIES[name]
    predicted = predicted_by(policy, workload)
    fast = simulate(workload, config, policy, predicted=predicted)
    same_result(fast, simulate(workload, config, policy, predicted=predicted, fast_forward=False))
    if name in ("sarathi", "vllm-v1"):
        assert fast.num_decisions * 3 < fast.num_iterations


def test_a_prefill_that_preempts_itself_ends_the_serving_of_decodes_in_lock_step() -> None:
    """Prefills first, two blocks: the second half of request 4's prompt finds none, so 3's decode is not served."""
    workload = Workload([0.0] * 5, [1, 1, 1, 1, 2], [1, 1, 1, 2, 1])
    config = EngineConfig(num_kv_tokens=2, block_size=1, max_num_batched_tokens=1, max_num_seqs=2)
    policy = Policy("ends", phase_order=PhaseOrder.PREFILL_FIRST, hybrid=False, run_order=RunOrder.ADMISSION,
                    reserve=Reserve.CHUNK, admit_after_preemption=False, self_preemption_ends=True)  # fmt: skip
    expected = simulate_reference(workload, config, policy)
    for record_schedule in (False, True):
        same_run(simulate(workload, config, policy, record_schedule=record_schedule), expected)


def fingerprint() -> str:
    """Runs with every kind of randomness, as a hash of the bytes that come out."""
    digest = hashlib.sha256()
    for seed in (0, 1):
        workload = make_workload("mixed", 120, seed=seed, rate=6.0)
        for name in ("sarathi", "hrrn", "sjf-noisy-0.6", "srpt-oracle", "vllm-v0-swap"):
            policy = POLICIES[name]
            predicted = predicted_by(policy, workload, seed)
            result = simulate(workload, EngineConfig(num_kv_tokens=20_000), policy, predicted=predicted)
            for field in (*PER_REQUEST, "gap_s", "gap_counts"):
                digest.update(getattr(result, field).tobytes())
            digest.update(repr((result.busy_s, result.kv_utilization, result.num_decisions)).encode())
    return digest.hexdigest()


def test_same_seed_same_bytes_in_other_processes() -> None:
    code = "from tests.engine.test_repetition import fingerprint; print(fingerprint())"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        seen = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert seen.stdout.strip() == fingerprint()


def test_another_seed_is_another_run() -> None:
    workload = make_workload("azure-conv", 50, seed=0)
    other = make_workload("azure-conv", 50, seed=1)
    results = [simulate(w, EngineConfig(), POLICIES["sarathi"]) for w in (workload, workload, other)]
    same_result(results[0], results[1])
    assert results[0].makespan_s != results[2].makespan_s


def test_a_run_leaves_its_inputs_alone() -> None:
    workload = make_workload("azure-conv", 50, seed=0)
    predicted = workload.num_output_tokens * 1.5
    before = predicted.copy(), replace(workload)
    simulate(workload, EngineConfig(), POLICIES["sjf-noisy-0.3"], predicted=predicted)
    np.testing.assert_array_equal(predicted, before[0])
    np.testing.assert_array_equal(workload.arrival_s, before[1].arrival_s)
