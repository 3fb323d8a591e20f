from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from infermax_gym.workload import PRESETS, WorkloadError, make_workload, read_workload
from tests.shared import SHARED, needs_shared
from tests.workload.same import assert_same_requests

ROOT = Path(__file__).resolve().parents[2]
DIGEST = """
import hashlib
from infermax_gym.workload import PRESETS, make_workload
for name in PRESETS:
    workload = make_workload(name, 500, seed=11)
    arrays = (workload.arrival_s, workload.num_prompt_tokens, workload.num_output_tokens, workload.slo_class)
    print(name, hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
"""


def test_the_same_seed_gives_the_same_bytes_in_every_process():
    arguments = [sys.executable, "-c", DIGEST]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    ours = []
    for name in PRESETS:
        workload = make_workload(name, 500, seed=11)
        arrays = (workload.arrival_s, workload.num_prompt_tokens, workload.num_output_tokens, workload.slo_class)
        ours.append(f"{name} {hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()}\n")
    assert printed == "".join(ours)


def test_nothing_is_read_at_import():
    code = (
        "import builtins, sys; import infermax_gym.workload as w; from infermax_gym.workload import fitted;"
        "print(fitted.fitted_parameters.cache_info().currsize, len(w.PRESETS))"
    )
    arguments = [sys.executable, "-c", code]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed.split() == ["0", str(len(PRESETS))]


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    workload = make_workload(name, 400, seed=0)
    assert len(workload) == 400
    assert workload.arrival_s[0] == 0.0
    assert workload.name == name
    assert workload.metadata["seed"] == 0
    assert workload.num_prompt_tokens.tobytes() != make_workload(name, 400, seed=1).num_prompt_tokens.tobytes()
    assert_same_requests(make_workload(name, 150, seed=0), workload.trace_slice(0, 150))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "rollouts"])
def test_rate_and_scale(name):
    plain = make_workload(name, 200, seed=2)
    assert make_workload(name, 200, seed=2, rate=7.0).mean_rate_per_s == pytest.approx(7.0)
    scaled = make_workload(name, 200, seed=2, time_scale=0.5)
    assert scaled.arrival_s.tolist() == (plain.arrival_s * 0.5).tolist()


def test_rollouts_are_the_requests_of_reasoning_at_time_zero():
    rollouts, reasoning = make_workload("rollouts", 300, seed=4), make_workload("reasoning", 300, seed=4)
    assert rollouts.arrival_s.tolist() == [0.0] * 300
    assert rollouts.num_prompt_tokens.tolist() == reasoning.num_prompt_tokens.tolist()
    assert rollouts.num_output_tokens.tolist() == reasoning.num_output_tokens.tolist()
    with pytest.raises(WorkloadError, match="rollouts: all 300 requests arrive at once, so a rate does not apply"):
        make_workload("rollouts", 300, seed=4, rate=2.0)


def test_reasoning_lengths():
    workload = make_workload("reasoning", 100_000, seed=0)
    assert workload.num_prompt_tokens.mean() == pytest.approx(150, rel=0.02)
    assert workload.num_output_tokens.mean() == pytest.approx(1_500, rel=0.03)
    assert np.log(workload.num_output_tokens).std() == pytest.approx(1.0, rel=0.03)


def test_mixed_classes():
    workload = make_workload("mixed", 50_000, seed=0)
    assert workload.slo_class_names == ("chat", "code", "reasoning")
    assert np.bincount(workload.slo_class) / 50_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert len(np.unique(workload.ttft_slo_s)) == 3
    for index, item in enumerate(PRESETS["mixed"].classes):
        assert set(workload.ttft_slo_s[workload.slo_class == index]) == {item.ttft_slo_s}
        assert set(workload.tpot_slo_s[workload.slo_class == index]) == {item.tpot_slo_s}
    means = [workload.num_output_tokens[workload.slo_class == index].mean() for index in range(3)]
    assert means == pytest.approx([205, 27, 1_490], rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("azure", 10), {}, "no preset is called 'azure'; presets are azure-conv, azure-code"),
        (("azure-conv", 0), {}, "num_requests must be at least 1, got 0"),
        (("azure-conv", 10**20), {}, "num_requests must be at most 1,099,511,627,776, got 1"),
        (("azure-conv", 5), {"seed": -3}, "seed must not be negative, got -3"),
        (("azure-conv", 5), {"rate": 0.0}, "rate must be positive and finite"),
        (("azure-conv", 5), {"rate": 1.0, "time_scale": 2.0}, "not both"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(WorkloadError, match=message):
        make_workload(*arguments, **{"seed": 0, **options})


TRACES = {
    "azure-conv": "azure2023_conv_head.csv",
    "azure-code": "azure2023_code_head.csv",
    "mooncake-conversation": "mooncake_conversation_head.jsonl",
    "long-document": "arxiv_summarization_head.csv",
}


@needs_shared
@pytest.mark.parametrize("name", TRACES)
def test_lengths_are_those_of_the_trace(name):
    """Kolmogorov-Smirnov distance of each marginal, and the rank correlation."""
    assert SHARED is not None
    trace = read_workload(SHARED / "data" / TRACES[name], rate=1.0 if name == "long-document" else None)
    preset = make_workload(name, 50_000, seed=0)
    for field in ("num_prompt_tokens", "num_output_tokens"):
        distance = stats.ks_2samp(getattr(trace, field), getattr(preset, field), method="asymp").statistic
        assert distance < 0.02, field
    ours, theirs = (
        stats.spearmanr(workload.num_prompt_tokens, workload.num_output_tokens).statistic
        for workload in (preset, trace)
    )
    assert ours == pytest.approx(theirs, abs=0.02)


@needs_shared
@pytest.mark.parametrize(("name", "cv", "rate_tolerance"), [("azure-conv", 0.15, 0.1), ("azure-code", 2.5, 0.25)])
def test_arrivals_are_as_bursty_as_the_trace(name, cv, rate_tolerance):
    assert SHARED is not None
    trace = read_workload(SHARED / "data" / TRACES[name])
    samples = [make_workload(name, len(trace), seed=seed).arrival_s for seed in range(20)]
    variations = [np.diff(sample).std() / np.diff(sample).mean() for sample in samples]
    gaps = np.diff(trace.arrival_s)
    assert np.median(variations) == pytest.approx(gaps.std() / gaps.mean(), abs=cv)
    rates = [(len(trace) - 1) / sample[-1] for sample in samples]
    assert np.median(rates) == pytest.approx(trace.mean_rate_per_s, rel=rate_tolerance)
