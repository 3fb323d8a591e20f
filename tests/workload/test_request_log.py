"""Logs of requests: formats, and what is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.workload import WorkloadError
from infermax_gym.workload.request_log import read_request_log

VLLM = "queued_s,num_prompt_tokens,num_output_tokens,scheduled_s,first_token_s,last_token_s\n"
OWN = "request,arrival_s,num_prompt_tokens,num_output_tokens,first_scheduled_s,first_token_s,finish_s,status\n"


def test_csv_of_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress((VLLM + "12,5,1,12.5,13,13\n10,7,3,10,11,14\n").encode()))
    log = read_request_log(path)
    assert log.workload.name == "log"
    assert log.workload.arrival_s.tolist() == [0.0, 2.0]
    assert log.workload.num_prompt_tokens.tolist() == [7, 5]
    assert log.first_scheduled_s.tolist() == [0.0, 2.5]
    assert log.ttft_s.tolist() == [1.0, 1.0] and log.latency_s.tolist() == [4.0, 1.0]
    assert log.tpot_s[0] == 1.5 and np.isnan(log.tpot_s[1])


def test_csv_of_ours_without_the_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(OWN + "0,1,5,2,1,2,3,finished\n1,1,5,2,,,,rejected\n2,2,5,2,2,3,,unfinished\n")
    log = read_request_log(path)
    assert len(log) == 1 and log.num_dropped == 2


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        {"arrival_s": 0, "num_prompt_tokens": 5, "num_output_tokens": 2, "first_token_s": 1, "finish_s": 2.5},
        {"arrival_s": 1, "num_prompt_tokens": 6, "num_output_tokens": 3, "first_token_s": 2, "finish_s": 4},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    log = read_request_log(path)
    assert log.finish_s.tolist() == [2.5, 4.0]
    assert np.isnan(log.first_scheduled_s).all()


def test_bench_serve(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result = {
        "input_lens": [5, 6, 7],
        "output_lens": [3, 0, 1],
        "start_times": [100.0, 100.5, 101.0],
        "ttfts": [0.5, 0.0, 0.25],
        "itls": [[0.1, 0.2], [], []],
    }
    path.write_text(json.dumps(result, indent=1))
    log = read_request_log(path)
    assert log.num_dropped == 1
    assert log.first_token_s == pytest.approx([0.5, 1.25])
    assert log.finish_s == pytest.approx([0.8, 1.25])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n1,2\n", ":1: arrival_s or queued_s is missing"),
        (VLLM, "holds no request that finished"),
        (VLLM + "0,5,2,0,1\n", ":2: has 5 cells; expected 6"),
        (VLLM + "0,x,2,0,1,2\n", ":2: num_prompt_tokens is 'x'; expected a number"),
        (VLLM + "0,5,0,0,1,2\n", ":2: num_output_tokens is 0; expected a whole number from 1"),
        (VLLM + "0,5,2.5,0,1,2\n", ":2: num_output_tokens is 2.5"),
        (VLLM + "0,5,2,0,1,1\n", "expected them in this order"),
        (VLLM + "3,5,2,3,1,2\n", "expected them in this order"),
        (VLLM + "0,5,2,1.5,1,2\n", "not between arrival and first token"),
        (VLLM + "nan,5,2,0,1,2\n", "expected a number"),
        (VLLM + "0,5,2,0,1,inf\n", "expected a number"),
        ('{"arrival_s": 0}\n', ":1: num_prompt_tokens is missing"),
        ('{"arrival_s": \n', "cannot be read as a log of requests"),
        ('{"input_lens": [1], "output_lens": [1]}', "start_times is not a list"),
        ('{"ttfts": [1]}', "input_lens is not a list"),
        (
            '{"input_lens": [5], "output_lens": [2], "start_times": [0], "ttfts": [1], "itls": [3]}',
            "request 1: itls is 3",
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(WorkloadError) as caught:
        read_request_log(path)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
