"""Files of measured batches: both kinds of columns, and what is wrong with a line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.cost.features import FEATURE_NAMES
from infermax_gym.cost.measured import MeasuredError, read_measured
from infermax_gym.profiler import Batch
from infermax_gym.profiler.measure import Measurement, as_csv

LISTS = "prefill_chunk_tokens,prefill_context_tokens,decode_context_tokens,seconds\n"
FEATURES = ",".join(FEATURE_NAMES) + ",seconds\n"


def test_reads_what_the_profiler_writes(tmp_path: Path) -> None:
    batches = [Batch(2, 64, 100, 3, 50), Batch(num_decodes=4, decode_context_tokens=7), Batch(1, 16)]
    path = tmp_path / "measured.csv"
    path.write_text(as_csv([Measurement(batch, 0.01, 1e-4) for batch in batches]))
    measured = read_measured(path)
    np.testing.assert_array_equal(measured.features, [batch.features for batch in batches])
    np.testing.assert_array_equal(measured.seconds, [0.01] * 3)


def test_lists_of_requests_become_features(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv.gz"
    path.write_bytes(gzip.compress((LISTS + "512 64,100 0,1000 20,0.03\n,,5,0.01\n8,0,,0.02\n").encode()))
    measured = read_measured(path)
    expected = [
        [1, 578, 1, 512**2 + 2 * 512 * 100 + 64**2, 2, 100, 1, 1020, 2],
        [1, 1, 0, 0, 0, 0, 1, 5, 1],
        [1, 8, 1, 64, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(measured.features, expected)


def test_only_batches_that_fit_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "lists.csv"
    path.write_text(LISTS + "512,100,,0.03\n,,5,0.01\n,,612,0.02\n")
    kept = read_measured(path).within(612)
    assert kept.seconds.tolist() == [0.03, 0.01]  # 512 + 100 fits, 612 + 1 does not


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: needs the column seconds"),
        ("seconds\n0.1\n", "line 1: needs the column seconds and either one"),
        (LISTS, "holds no batch"),
        (LISTS + "8,0,,fast\n", "line 2: seconds must be a number, got 'fast'"),
        (LISTS + "8,0,,-1\n", "line 2: seconds must be positive"),
        (LISTS + "8,0,,0.1\n8 9,0,,0.1\n", "line 3: 2 prefill_chunk_tokens, but 1 prefill_context_tokens"),
        (LISTS + "0,0,,0.1\n", "line 2: chunks must be at least 1"),
        (LISTS + ",,,0.1\n", "line 2: 0 num_tokens do not go with 0 prefills and 0 decodes"),
        (FEATURES + "1,5,1,25,1,0,1,10,0,0.1\n", "line 2: has_decode must be 0 here, got 1"),
        (FEATURES + "0,5,1,25,1,0,0,0,0,0.1\n", "line 2: one must be 1 here"),
        (FEATURES + "1,5,1,24,1,0,0,0,0,0.1\n", "line 2: prefill_work is the sum of"),
        (FEATURES + "1,5,0,0,0,0,1,10,3,0.1\n", "line 2: 5 num_tokens do not go with 0 prefills and 3 decodes"),
        (FEATURES + "1,5,1,25,1,-4,0,0,0,0.1\n", "line 2: prefill_context must not be negative"),
        (FEATURES + "1,5,1,nan,1,4,0,0,0,0.1\n", "line 2: prefill_work must be finite"),
        (FEATURES + "1,5\n", "line 2: has_prefill must be a number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "measured.csv"
    path.write_text(text)
    with pytest.raises(MeasuredError) as raised:
        read_measured(path)
    assert message in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MeasuredError, match="cannot be read"):
        read_measured(tmp_path / "missing.csv")
    for name, data in (("plain.csv.gz", b"no gzip"), ("binary.csv", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MeasuredError, match="cannot be read"):
            read_measured(tmp_path / name)
