from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

from infermax_gym.workload import Workload, WorkloadError
from tests.workload.same import assert_same_requests


def requests(**fields) -> Workload:
    defaults = {
        "arrival_s": [0.0, 1.0, 1.5, 4.0],
        "num_prompt_tokens": [10, 20, 30, 40],
        "num_output_tokens": [1, 2, 3, 4],
        "priority": [3, 2, 1, 0],
        "ttft_slo_s": [1.0, math.inf, 2.0, 3.0],
        "prefix_blocks": [7, 8, 7, 9, 7],
        "prefix_start": [0, 2, 2, 4, 5],
        "prefix_block_size": 16,
        "name": "four",
        "metadata": {"seed": 1},
    }
    return Workload(**{**defaults, **fields})


def test_a_trace_slice_counts_arrivals_from_its_first_request_and_keeps_the_prefixes():
    part = requests().trace_slice(1, 2)
    assert part.arrival_s.tolist() == [0.0, 0.5]
    assert part.num_prompt_tokens.tolist() == [20, 30]
    assert part.priority.tolist() == [2, 1]
    assert part.ttft_slo_s.tolist() == [math.inf, 2.0]
    assert part.prefix_blocks.tolist() == [7, 9]
    assert part.prefix_start.tolist() == [0, 0, 2]
    assert part.name == "four"
    assert len(requests().trace_slice(1)) == 3


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (0, 5), (4, 1), (0, 0), (4, None)])
def test_a_trace_slice_outside_the_workload(start, count):
    with pytest.raises(WorkloadError, match=r"four: no trace slice of -?\d+ requests from request -?\d+; it holds 4"):
        requests().trace_slice(start, count)


def test_outputs_above_a_promised_bound_are_refused():
    requests().check_output_bound(None)
    requests().check_output_bound(4)
    with pytest.raises(WorkloadError) as error:
        requests().check_output_bound(2)
    assert str(error.value) == (
        "four: 2 of 4 requests have more output tokens than max_output_tokens = 2, the first is request 2 with 3; "
        "expected a bound of at least 4, or none"
    )


def test_sessions_and_turns():
    assert requests().session.tolist() == [0, 1, 2, 3]
    assert requests().turn.tolist() == [1, 1, 1, 1]
    part = requests(session=[5, 5, 9, 5], turn=[1, 2, 1, 3]).trace_slice(1)
    assert (part.session.tolist(), part.turn.tolist()) == ([5, 9, 5], [2, 1, 3])
    with pytest.raises(WorkloadError, match="four: request 1 has turn = 0; expected at least 1"):
        requests(turn=[1, 0, 1, 1])


def test_with_limits_leaves_own_limits_alone():
    some = Workload([0.0, 1.0], [8, 8], [2, 2], ttft_slo_s=[3.0, np.inf])
    limited = some.with_limits(1.0, None)
    assert limited.ttft_slo_s.tolist() == [3.0, 1.0]
    assert np.isinf(limited.tpot_slo_s).all() and some.with_limits(None, 0.2).tpot_slo_s.tolist() == [0.2, 0.2]
    assert np.isinf(some.ttft_slo_s[1])
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(WorkloadError, match="ttft_slo_s must be positive"):
            some.with_limits(wrong, None)


def test_scaled_and_with_rate():
    assert requests().scaled(0.5).arrival_s.tolist() == [0.0, 0.5, 0.75, 2.0]
    assert requests().mean_rate_per_s == 0.75
    faster = requests().with_rate(3.0)
    assert faster.mean_rate_per_s == pytest.approx(3.0)
    assert faster.arrival_s.tolist() == [0.0, 0.25, 0.375, 1.0]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_bad_scales_and_rates(value):
    with pytest.raises(WorkloadError, match="time scale must be positive and finite"):
        requests().scaled(value)
    with pytest.raises(WorkloadError, match="rate must be positive and finite"):
        requests().with_rate(value)


def test_a_rate_needs_two_arrival_times():
    batch = Workload([0.0, 0.0], [1, 1], [1, 1], name="batch")
    assert batch.mean_rate_per_s == math.inf
    with pytest.raises(WorkloadError, match="batch: all 2 requests arrive at once, so a rate does not apply"):
        batch.with_rate(2.0)
    assert len(batch.trace_slice(0, 1).with_rate(2.0)) == 1
    assert math.isnan(Workload([], [], []).mean_rate_per_s)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_prompt_tokens": [10, 0, 30, 40]}, "four: request 1 has num_prompt_tokens = 0; expected at least 1"),
        ({"num_output_tokens": [1, 2, 3, -4]}, "four: request 3 has num_output_tokens = -4; expected at least 1"),
        ({"arrival_s": [0.0, 2.0, 1.0, 3.0]}, "four: request 2 arrives before request 1"),
        ({"arrival_s": [0.0, 1.0, 2.0, math.inf]}, "four: request 3 arrives at inf s"),
        ({"arrival_s": [-1.0, 1.0, 2.0, 3.0]}, "four: request 0 arrives at -1.0 s"),
        ({"ttft_slo_s": [1.0, math.nan, 1.0, 1.0]}, "four: request 1 has ttft_slo_s = nan"),
        ({"priority": [1, 2]}, r"four: priority has shape \(2,\), expected \(4,\)"),
        ({"prefix_start": [0, 2, 2, 4, 9]}, "four: prefix_start must rise from 0"),
        ({"prefix_start": [0, 2, 1, 4, 5]}, "four: prefix_start must rise from 0"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(WorkloadError, match=message):
        requests(**fields)


def test_copies_and_pickles_are_whole_and_read_only():
    workload = requests()
    for twin in (pickle.loads(pickle.dumps(workload)), copy.deepcopy(workload)):
        assert_same_requests(twin, workload, without=())
        with pytest.raises(ValueError, match="read-only"):
            twin.arrival_s[0] = 1.0
        with pytest.raises(TypeError):
            twin.metadata["seed"] = 2


def test_arrays_are_copied():
    arrival = np.array([0.0, 1.0])
    workload = Workload(arrival, [1, 1], [1, 1])
    arrival[0] = 0.5
    assert workload.arrival_s[0] == 0.0
