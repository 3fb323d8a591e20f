"""The fast path of every kind of column agrees with its exact path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.workload.columns import LIMIT, REAL, TIMESTAMP, WHOLE, shorten

WHOLES = st.one_of(st.integers(-(2**64), 2**64).map(str), st.text("0123456789+-._e ", max_size=6))
REALS = st.one_of(st.floats().map(repr), st.text("0123456789+-._einfa ", max_size=6))
TIMES = st.builds(
    "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{}{}".format,
    st.integers(1890, 2110),
    st.integers(0, 13),
    st.integers(0, 32),
    st.sampled_from([" ", "T", ""]),
    st.integers(0, 25),
    st.integers(0, 61),
    st.integers(0, 61),
    st.sampled_from(["", ".5", ".6805900", ".123456789", ".0123456789"]),
    st.sampled_from(["", "Z", "+00:00", "-05:00"]),
)


def check_paths_agree(kind, cells):
    values, fault = kind.parse(cells)
    expected = []
    for row, cell in enumerate(cells):
        try:
            expected.append(kind.exact(cell.strip()))
        except ValueError as error:
            assert fault == (row, f"is {shorten(cell)}; expected {error}")
            break
    else:
        assert fault is None
    assert values.dtype == kind.dtype
    assert values.tolist() == expected


@given(st.lists(WHOLES, max_size=5))
def test_whole(cells):
    check_paths_agree(WHOLE, cells)


@given(st.lists(REALS, max_size=5))
def test_real(cells):
    check_paths_agree(REAL, cells)


@given(st.lists(REALS, max_size=5))
def test_limit(cells):
    check_paths_agree(LIMIT, cells)


@given(st.lists(TIMES, max_size=5))
def test_timestamp(cells):
    check_paths_agree(TIMESTAMP, cells)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(value):
    values, fault = REAL.parse([repr(value)])
    assert fault is None
    assert values.tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize("suffix", ["", "Z", "+00:00"])
def test_timestamps_are_nanoseconds_since_1970(suffix):
    values, _ = TIMESTAMP.parse([f"1970-01-02 00:00:01.6805900{suffix}", f"2023-11-16T18:15:46{suffix}"])
    assert values.tolist() == [86_401_680_590_000, 1_700_158_546_000_000_000]
