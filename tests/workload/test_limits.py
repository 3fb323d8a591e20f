"""A file that would fill the memory is refused in one line, however small it looks on the disk."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest

from infermax_gym.workload import WorkloadError, read_workload
from infermax_gym.workload import reader as readers
from infermax_gym.workload import source as sources
from infermax_gym.workload.request_log import read_request_log
from infermax_gym.workload.step_log import read_steps

HEADER = b"arrival_s,num_prompt_tokens,num_output_tokens\n"


def refused(path: Path, hint: str) -> None:
    with pytest.raises(WorkloadError, match=hint) as caught:
        read_workload(path)
    assert str(caught.value).startswith(f"{path}") and "\n" not in str(caught.value)


def test_a_line_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(HEADER + b"1" * (40 << 20)))
    assert path.stat().st_size < 1 << 17
    refused(path, ":2: line is longer than 16,777,216 characters")


def test_a_text_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_TRACE_BYTES", 1 << 20)
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(HEADER + b"0,1,1\n" * 200_000))
    refused(path, "holds more than 0 GiB of text; split it")


def test_too_many_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_NUM_REQUESTS", 1_000)
    path = tmp_path / "trace.csv"
    path.write_bytes(HEADER + b"0,1,1\n" * 70_000)
    refused(path, "more than 1,000 requests; take a part")
    assert len(read_workload(path, skip=500, first=10)) == 10


def test_a_document_too_large_to_be_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_DOCUMENT_BYTES", 1_000)
    path = tmp_path / "trace.json"
    path.write_text("[\n" + "{},\n" * 1_000 + "{}]")
    refused(path, "is a JSON document of more than")


def test_a_pipe_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_DOCUMENT_BYTES", 1_000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    feeder = threading.Thread(target=lambda: path.write_bytes(b"0" * 2_000), daemon=True)
    feeder.start()
    with pytest.raises(WorkloadError, match="a pipe may hold"):
        sources.kept_content(path)
    feeder.join(10)


def test_a_number_of_many_digits(tmp_path: Path) -> None:
    """JSON of more digits than Python turns into a number is damage like any other."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"arrival_s": ' + "9" * 5_000 + "}\n")
    with pytest.raises(WorkloadError, match="cannot be read as a log"):
        read_request_log(path)


def test_a_step_log_of_one_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infermax_gym.workload import step_log

    monkeypatch.setattr(step_log, "MAX_LINE_CHARS", 1_000)
    (tmp_path / "steps-000001.jsonl").write_bytes(b"1" * 5_000)
    with pytest.raises(WorkloadError, match="line is longer"):
        read_steps(tmp_path)
