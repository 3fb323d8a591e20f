"""What is written reads back the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.workload import PRESETS, Workload, WorkloadError, make_workload, read_workload, write_workload
from tests.shared import SHARED, needs_shared
from tests.workload.same import assert_same_requests

NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4)
LIMITS = st.one_of(st.just(math.inf), st.floats(0.0, 1e6))
COUNTS = st.integers(1, 1_000_000_000)


@st.composite
def workloads(draw) -> Workload:
    n = draw(st.integers(1, 6))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    arrival = np.sort(column(st.floats(0.0, 1e9)))
    arrival[0] = 0.0
    fields = {"priority": column(st.integers(-(2**63), 2**63 - 1))} if draw(st.booleans()) else {}
    for name in ("tenant", "slo_class"):
        if draw(st.booleans()):
            given_names = column(NAMES)
            # The order in which the reader lists names: numbers by value, then the others.
            names = sorted(set(given_names), key=lambda x: (int(x) if x.isascii() and x.isdigit() else math.inf, x))
            fields |= {name: [names.index(text) for text in given_names], f"{name}_names": tuple(names)}
    for name in ("ttft_slo_s", "tpot_slo_s"):
        if draw(st.booleans()):
            fields[name] = column(LIMITS)
    if draw(st.booleans()):
        hashes = column(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3))
        fields |= {
            "prefix_blocks": [value for row in hashes for value in row],
            "prefix_start": np.cumsum([0, *map(len, hashes)]),
            "prefix_block_size": draw(st.integers(1, 512)),
        }
    return Workload(arrival, column(COUNTS), column(COUNTS), **fields)


@given(workload=workloads())
def test_round_trip_is_exact(tmp_path_factory, workload):
    path = tmp_path_factory.mktemp("trip") / "workload.csv"
    write_workload(workload, path)
    assert_same_requests(read_workload(path), workload)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(tmp_path, name):
    workload = make_workload(name, 300, seed=5)
    write_workload(workload, tmp_path / "workload.csv")
    assert_same_requests(read_workload(tmp_path / "workload.csv"), workload)


@needs_shared
def test_prefixes_round_trip(tmp_path):
    assert SHARED is not None
    workload = read_workload(SHARED / "data" / "mooncake_conversation_head.jsonl", first=300)
    write_workload(workload, tmp_path / "workload.csv")
    assert_same_requests(read_workload(tmp_path / "workload.csv"), workload)


def test_plain_workloads_have_three_columns(tmp_path):
    write_workload(Workload([0.0, 0.1], [1, 2], [3, 4]), tmp_path / "w.csv")
    assert (tmp_path / "w.csv").read_bytes() == b"arrival_s,num_prompt_tokens,num_output_tokens\n0.0,1,3\n0.1,2,4\n"


def test_one_named_tenant_is_written(tmp_path):
    write_workload(Workload([0.0], [1], [1], tenant_names=("acme",)), tmp_path / "w.csv")
    assert read_workload(tmp_path / "w.csv").tenant_names == ("acme",)


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\tb", "\ud800"])
def test_names_that_a_line_cannot_hold(tmp_path, name):
    with pytest.raises(WorkloadError, match="cannot be written"):
        write_workload(Workload([0.0], [1], [1], tenant_names=(name,)), tmp_path / "w.csv")
    assert not (tmp_path / "w.csv").exists()


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(WorkloadError, match=r"missing/w\.csv: cannot be written \(No such file or directory\)"):
        write_workload(Workload([0.0], [1], [1]), tmp_path / "missing" / "w.csv")
