"""The future memory peak against brute force: decode in lock-step and watch the memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.engine.kernel.fit import bucket_of, future_peak
from infermax_gym.engine.layout import RUNNING
from infermax_gym.engine.policy import AdmissionCheck, LengthEstimate
from infermax_gym.engine.state import allocate
from infermax_gym.workload import Workload
from tests.engine.strategies import examples

LOOK_AHEAD = Policy("look-ahead", admission_check=AdmissionCheck.FUTURE_PEAK, estimate=LengthEstimate.PREDICTED)


def peak_by_simulation(prompts: list[int], generated: list[int], outputs: list[int]) -> int:
    """Every request stores one token more each step until its last but one token is stored; then it leaves."""
    stored = [i + g for i, g in zip(prompts, generated, strict=True)]
    final = [max(i + o - 1, now) for i, o, now in zip(prompts, outputs, stored, strict=True)]
    peak = 0
    while stored:
        peak = max(peak, sum(stored))
        stays = [k for k in range(len(stored)) if stored[k] < final[k]]
        stored, final = [stored[k] + 1 for k in stays], [final[k] for k in stays]
    return peak


REQUESTS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20), st.integers(1, 40)), min_size=1, max_size=8)


@examples(300)
@given(REQUESTS, st.sampled_from([1, 4, 16]))
def test_future_peak_is_the_peak(requests: list[tuple[int, int, int]], block_size: int) -> None:
    prompts, generated, outputs = (list(column) for column in zip(*requests, strict=True))
    n = len(requests)
    config = EngineConfig(block_size=block_size, num_kv_tokens=100_000)
    engine = allocate(Workload(np.zeros(n), prompts, np.full(n, 100)), config, LOOK_AHEAD, np.array(outputs, float))
    engine.requests["generated"] = generated
    engine.requests["place"][: n - 1] = RUNNING
    engine.arrays["run"][: n - 1] = np.arange(n - 1)
    engine.record["num_running"] = n - 1
    # Blocks may be filled up to the last token but one of the next: each request counts block_size - 1 more.
    expected = peak_by_simulation([i + block_size - 1 for i in prompts], generated, outputs)
    assert future_peak(engine.core, n - 1) == expected


@examples(100)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=10),
    st.sampled_from([1, 2, 16]),
    st.integers(64, 200),
)
def test_no_preemption_with_exact_lengths(sizes: list[tuple[int, int]], block_size: int, num_kv_tokens: int) -> None:
    prompts, outputs = (np.array(column) for column in zip(*sizes, strict=True))
    config = EngineConfig(num_kv_tokens=num_kv_tokens, block_size=block_size, max_num_batched_tokens=4096)
    workload = Workload(np.zeros(len(sizes)), prompts, outputs)
    result = simulate(workload, config, LOOK_AHEAD, predicted=outputs.astype(float), debug=True)
    assert result.num_preemptions == 0
    assert result.finished.all()


@pytest.mark.parametrize("prompt", [1, 2, 3, 4, 7, 8, 1023, 1024, 10**9])
def test_histogram_buckets_are_powers_of_two(prompt: int) -> None:
    assert bucket_of(prompt) == math.floor(math.log2(prompt))


def test_the_histogram_learns_from_finished_requests() -> None:
    """I + O of 20 and 31 teach that a prompt of 8 to 15 tokens needs 26; of other prompts nothing is known yet."""
    policy = Policy("histogram", admission_check=AdmissionCheck.HISTOGRAM)
    config = EngineConfig(num_kv_tokens=64, block_size=1)

    def run(last_prompt: int) -> SimulationResult:
        workload = Workload([0.0, 0.0, 9.0, 9.0], [10, 11, 40, last_prompt], [10, 20, 20, 3])
        return simulate(workload, config, policy, debug=True)

    unlike, alike = run(16), run(15)
    assert unlike.first_scheduled_s[3] == 9.0, "16 tokens fit the 24 that are free"
    assert alike.first_scheduled_s[3] == alike.finish_s[2], "15 would fit, 26 do not"
