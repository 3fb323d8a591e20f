"""Both engines against two public peers: INFERMAX's simulator and the vLLM V1 scheduler."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.workload import Workload
from tests.reference import Iteration, ReferenceResult, simulate_reference
from tests.shared import SHARED, needs_shared

INFERMAX = SHARED / "oracles" / "infermax" if SHARED else Path("absent")
VLLM_V1 = SHARED / "oracles" / "vllm_v1" if SHARED else Path("absent")

INFERMAX_ROWS = {
    "vllm": "infermax-vllm",
    "vllm_noe": "infermax-vllm-noevict",
    "sarathi512": "infermax-sarathi",
    "test512_sortI": "infermax-srf",
    "test16384_sortI": "infermax-srf",
    "test16384_sortI_hist": "infermax-srf-histogram",
}
VLLM_V1_ROWS = {"fcfs": "vllm-v1", "priority": "vllm-v1-priority"}


def _assert_close(actual: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(actual, np.asarray(expected, np.float64), rtol=1e-9, atol=0.0)


def _run_reference(workload: Workload, config: EngineConfig, policy: Policy) -> ReferenceResult:
    return simulate_reference(workload, config, policy, predictions(policy, workload))


def _run_kernel(workload: Workload, config: EngineConfig, policy: Policy) -> ReferenceResult:
    """The kernel's run in the reference's terms, step by step and with everything the kernel may skip."""
    predicted = predictions(policy, workload)
    run = simulate(workload, config, policy, predicted=predicted, record_schedule=True)
    quick = simulate(workload, config, policy, predicted=predicted)
    np.testing.assert_array_equal(quick.finish_s, run.finish_s)
    assert run.schedule is not None
    return ReferenceResult(
        arrival_s=run.arrival_s,
        first_scheduled_s=run.first_scheduled_s,
        first_token_s=run.first_token_s,
        finish_s=run.finish_s,
        num_preemptions=run.num_preemptions_of,
        num_recomputed_tokens=run.num_recomputed_tokens_of,
        num_cached_tokens=run.num_cached_tokens_of,
        status=[],
        busy_s=run.busy_s,
        makespan_s=run.makespan_s,
        kv_utilization=run.kv_utilization,
        num_guarded_iterations=run.num_guarded_iterations,
        schedule=[Iteration(i.start_s, i.end_s, list(i.batch), list(i.preempted)) for i in run.schedule],
        empty_decisions=[],
    )


Engine = Callable[[Workload, EngineConfig, Policy], ReferenceResult]
both_engines = pytest.mark.parametrize("engine", [_run_reference, _run_kernel], ids=["reference", "kernel"])


# INFERMAX


def _infermax_inputs(run: Path) -> tuple[dict[str, np.ndarray], Workload, EngineConfig, Policy]:
    config = json.loads((run / "config.json").read_text())
    with (run / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    workload = Workload(columns["arrived_at"], columns["num_prefill_tokens"], columns["num_decode_tokens"])
    replica = EngineConfig(
        cost=COSTS["llama2-7b-a100-infermax"],
        num_kv_tokens=config["M_tokens"],
        block_size=config["block_size"],
        max_num_batched_tokens=config["chunk_size"] or config["max_tokens_in_batch"],
        max_num_seqs=config["batch_size_cap"],
    )
    return columns, workload, replica, POLICIES[INFERMAX_ROWS[run.name.split(f"_bs{config['block_size']}__")[1]]]


@needs_shared
@both_engines
@pytest.mark.parametrize("run", sorted(INFERMAX.glob("*__*")), ids=lambda run: run.name)
def test_infermax(run: Path, engine: Engine) -> None:
    columns, workload, replica, policy = _infermax_inputs(run)
    result = engine(workload, replica, policy)
    totals = json.loads((run / "totals.json").read_text())
    assert result.num_iterations == totals["num_batches"]
    assert result.total_preemptions == totals["total_preemptions"]
    np.testing.assert_array_equal(result.num_preemptions, columns["num_restarts"])
    _assert_close(result.first_scheduled_s, columns["first_scheduled_at"])
    _assert_close(result.first_token_s, columns["first_token_at"])
    _assert_close(result.finish_s, columns["completed_at"])
    _assert_close(np.array(result.makespan_s), totals["makespan"])
    if (run / "batch_members.jsonl").exists():
        lines = (run / "batch_members.jsonl").read_text().splitlines()
        members = [[tuple(member) for member in json.loads(line)] for line in lines]
        assert [iteration.batch for iteration in result.schedule] == members
        with (run / "batches.csv").open() as file:
            times = np.array([(float(row["start"]), float(row["end"])) for row in csv.DictReader(file)])
        _assert_close(np.array([(i.start_s, i.end_s) for i in result.schedule]), times)


# vLLM V1


def _run_vllm(case: dict[str, Any], engine: Engine, prefix_caching: bool = False) -> ReferenceResult:
    config, requests = case["config"], case["per_request"]
    workload = Workload(requests["arrival_s"], requests["prompt"], requests["output"], requests["priority"])
    replica = EngineConfig(
        cost=COSTS["llama2-7b-a100"],
        num_kv_tokens=config["usable_blocks"] * config["block_size"],
        block_size=config["block_size"],
        max_num_batched_tokens=config["max_num_batched_tokens"],
        max_num_seqs=config["max_num_seqs"],
        prefix_caching=prefix_caching,
    )
    return engine(workload, replica, POLICIES[VLLM_V1_ROWS[config["policy"]]])


def _check_times(steps: list[Any], result: ReferenceResult) -> None:
    """Steps are [start, duration, ...]."""
    times = np.array([(iteration.start_s, iteration.end_s) for iteration in result.schedule])
    _assert_close(times[:, 0], [start_s for start_s, *_ in steps])
    _assert_close(times[:, 1], [start_s + duration_s for start_s, duration_s, *_ in steps])


def _members(result: ReferenceResult) -> list[list[Any]]:
    """Steps as vLLM lists them, without the empty: [[request, tokens, computed before], ...], [preempted, ...]."""
    steps: list[list[Any]] = []
    computed: Counter[int] = Counter()
    for index, (_, _, batch, preempted) in enumerate(result.schedule):
        empty = [request for before, requests in result.empty_decisions if before == index for request in requests]
        computed.update({request: -computed[request] for request in empty + preempted})
        steps.append([[[request, tokens, computed[request]] for request, tokens in batch], preempted])
        computed.update(dict(batch))
    return steps


def _digest(steps: list[list[Any]]) -> str:
    """The digest that the vLLM runs state of their steps."""
    lines = "".join(json.dumps(step, separators=(",", ":")) + "\n" for step in steps)
    return hashlib.sha256(lines.encode()).hexdigest()


def _check_vllm(case: dict[str, Any], result: ReferenceResult) -> None:
    totals, requests = case["totals"], case["per_request"]
    assert result.num_iterations == totals["steps"]
    assert result.total_preemptions == totals["preemptions"]
    assert result.total_recomputed_tokens == totals["recomputed_tokens"]
    scheduled = sum(tokens for iteration in result.schedule for _, tokens in iteration.batch)
    assert scheduled == totals["scheduled_tokens"]
    np.testing.assert_array_equal(result.num_preemptions, requests["preemptions"])
    _assert_close(result.first_scheduled_s, requests["first_scheduled_s"])
    _assert_close(result.first_token_s, requests["first_token_s"])
    _assert_close(result.finish_s, requests["finish_s"])
    _assert_close(np.array(result.makespan_s), totals["makespan_s"])
    members = _members(result)
    if case.get("steps") is not None and len(result.empty_decisions) == totals["empty_steps"]:
        assert members == [step[2:] for step in case["steps"]]
        _check_times(case["steps"], result)
    # The kernel books what empty decisions preempt with the next iteration; the digest leaves them out.
    if len(result.empty_decisions) != totals["empty_steps"]:
        assert not result.empty_decisions
        return
    assert _digest(members) == totals["schedule_digest_sha256"]


@needs_shared
@both_engines
@pytest.mark.parametrize("path", sorted(VLLM_V1.glob("*.json")), ids=lambda path: path.stem)
def test_vllm_v1(path: Path, engine: Engine) -> None:
    case = json.loads(path.read_text())
    _check_vllm(case, _run_vllm(case, engine))


@needs_shared
@both_engines
def test_vllm_v1_small_cases(engine: Engine) -> None:
    with gzip.open(VLLM_V1 / "small_cases.jsonl.gz", "rt") as file:
        cases = [json.loads(line) for line in file]
    assert len(cases) == 500
    for case in cases:
        _check_vllm(case, _run_vllm(case, engine))


@needs_shared
@both_engines
def test_vllm_v1_with_prefix_caching(engine: Engine) -> None:
    """The scheduler's own figures for this run with its prefix cache on: victims find their blocks again."""
    case = json.loads((VLLM_V1 / "conv500_x1.0_kv1250_b512_fcfs.json").read_text())
    result = _run_vllm(case, engine, prefix_caching=True)
    ttft_s = result.first_token_s - np.array(case["per_request"]["arrival_s"])
    assert result.total_preemptions == 294
    assert round(result.total_recomputed_tokens, -3) == 56_000
    assert round(float(ttft_s.mean()), 1) == 6.3
