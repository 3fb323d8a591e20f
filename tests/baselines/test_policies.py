"""Every policy of the table runs, is described, and knows no more than it says."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.baselines.catalogue import SCHEDULERS
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult, simulate
from infermax_gym.engine.policy import (
    QUEUE_FEATURES,
    VICTIM_FEATURES,
    AdmissionCheck,
    LengthEstimate,
    Reserve,
)
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result

TABLE = pytest.mark.parametrize("policy", list(POLICIES.values()), ids=list(POLICIES))

TIGHT = EngineConfig(num_kv_tokens=9_000, max_model_len=8_192, max_output_tokens=2_048)


def busy_workload(seed: int = 0, num_requests: int = 60) -> Workload:
    return make_workload("azure-conv", num_requests, seed=seed, rate=8.0)


def run(policy: Policy, workload: Workload, config: EngineConfig = TIGHT, **options: bool) -> SimulationResult:
    return simulate(workload, config, policy, predicted=predictions(policy, workload), **options)


@TABLE
def test_under_tight_memory(policy: Policy) -> None:
    """All is served, the invariants hold, and every token granted is accounted for."""
    workload = busy_workload()
    result = run(policy, workload, debug=True, record_schedule=True)
    assert result.schedule is not None
    assert result.finished.sum() >= 58
    assert (result.status != 2).all()
    granted = sum(tokens for iteration in result.schedule for _, tokens in iteration.batch)
    needed = (workload.num_prompt_tokens + workload.num_output_tokens - 1)[result.finished].sum()
    assert granted == needed + result.num_recomputed_tokens
    same_result(run(policy, workload), result)


def test_the_example_is_tight() -> None:
    """Otherwise the test above says little."""
    preempting = [name for name, policy in POLICIES.items() if run(policy, busy_workload()).num_preemptions > 0]
    assert {"vllm-v0", "vllm-0.13", "vllm", "sarathi", "srf", "srpt-oracle", "hrrn", "trt-max-utilization"} <= set(
        preempting
    )


@TABLE
def test_description(policy: Policy) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9.]+)*", policy.name)
    for text in (policy.source, policy.note):
        assert 20 <= len(text) <= 140
        assert "\n" not in text
    assert policy.note.endswith(".")


def test_rows_differ() -> None:
    settings = [replace(policy, name="same") for policy in POLICIES.values()]
    twins = [
        (first.name, second.name)
        for i, first in enumerate(POLICIES.values())
        for j, second in enumerate(POLICIES.values())
        if i < j and settings[i] == settings[j]
    ]
    # INFERMAX's is the general one already; it keeps its name for the sake of its published runs.
    assert twins == [("infermax-vllm-noevict", "vllm-noevict-oracle")]


def test_promised_names() -> None:
    promised = {
        "infermax-vllm", "infermax-vllm-noevict", "infermax-sarathi", "infermax-srf", "infermax-srf-histogram",
        "vllm-v0", "vllm-v1", "vllm-v1-priority", "sarathi", "orca", "fastertransformer", "srf", "hrrn", "edf",
        "shortest-prompt-first", "spf-headroom", "sjf-oracle", "srpt-oracle", "mc-sf-oracle", "lightllm",
    }  # fmt: skip
    assert all(name in POLICIES for name in promised)
    assert all(name == policy.name for name, policy in POLICIES.items())


def test_former_names_are_other_names_of_the_same_policies() -> None:
    assert POLICIES["vllm-v1"] is POLICIES["vllm-0.13"]
    assert POLICIES["vllm-v1-priority"] is POLICIES["vllm-0.13-priority"]
    assert POLICIES["vllm-v1-long-prefill"] is POLICIES["vllm-0.13-long-prefill"]
    assert POLICIES["vllm-v1-full-isl"] is POLICIES["vllm-0.19"] is POLICIES["vllm-0.33"] is POLICIES["vllm"]
    assert SCHEDULERS["vllm-v1"] is POLICIES["vllm-v1"]
    assert not set(POLICIES.aliases) & set(POLICIES), "an alias is no second entry"


def uses(policy: Policy) -> Information:
    """The least that a policy has to know for its knobs, whatever it declares."""
    weights = dict(zip(QUEUE_FEATURES, policy.queue_weights, strict=True))
    victims = dict(zip(VICTIM_FEATURES, policy.victim_weights, strict=True))
    estimates = policy.reserve == Reserve.TOTAL_ESTIMATE or policy.admission_check == AdmissionCheck.FUTURE_PEAK
    if weights["predicted_remaining_tokens"] or victims["predicted_remaining_tokens"]:
        return Information.PREDICTED
    if estimates and policy.estimate == LengthEstimate.PREDICTED:
        return Information.PREDICTED
    return Information.BOUND if estimates or victims["reclaim_value"] else Information.NONE


@TABLE
def test_declared_information(policy: Policy) -> None:
    needed = uses(policy)
    if needed == Information.PREDICTED:
        exact = policy.prediction_sigma == 0.0 and policy.interval_ratio == 1.0
        assert policy.information == (Information.ORACLE if exact else Information.PREDICTED)
    else:
        assert policy.information == needed
    assert policy.name.endswith("-oracle") <= (policy.information == Information.ORACLE)


@TABLE
def test_predictions_reach_only_those_that_declare_them(policy: Policy) -> None:
    workload = busy_workload(num_requests=40)
    if policy.information in (Information.PREDICTED, Information.ORACLE):
        with pytest.raises(ValueError, match=f"policy '{re.escape(policy.name)}' needs `predicted` output lengths"):
            simulate(workload, TIGHT, policy)
        return
    assert predictions(policy, workload) is None
    wild = np.linspace(1.0, 5000.0, len(workload))
    same_result(simulate(workload, TIGHT, policy, predicted=wild), simulate(workload, TIGHT, policy))


@TABLE
@pytest.mark.parametrize("request_number", [0, 7, 20])
def test_the_future_is_unknown(policy: Policy, request_number: int) -> None:
    """Had a request a longer answer, with the same prediction, nothing would differ before its answer ends."""
    policy = replace(policy, refresh_tokens=0)  # a predictor that looks again knows, with its error, what is to come
    workload = busy_workload(num_requests=40)
    outputs = workload.num_output_tokens.copy()
    outputs[request_number] += 150
    longer = replace(workload, num_output_tokens=outputs)
    predicted = predictions(policy, workload)
    before = simulate(workload, TIGHT, policy, predicted=predicted, record_schedule=True)
    after = simulate(longer, TIGHT, policy, predicted=predicted, record_schedule=True)
    assert before.schedule is not None
    assert after.schedule is not None
    end_s = before.finish_s[request_number]
    past = [iteration for iteration in before.schedule if iteration.end_s <= end_s]
    assert past == list(after.schedule[: len(past)])
    assert len(past) > 10
