"""Trace files on the command line: rows chosen, pipes, the rate that the header says, bounds on outputs."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pytest

from infermax_gym.evaluation import WorkloadSpec
from tests.cli.conftest import NUM_REQUESTS, Command

BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,72,18,90,Conversation log
45,GPT-4,87,9,96,API log
50,GPT-4,17,76,93,Conversation log
60,GPT-4,40,6,46,Conversation log
"""
POLICY = ("--policies", "vllm-v1")


@pytest.mark.parametrize(
    ("options", "count", "rate_per_s"),
    [
        ((), 4, 3 / 55),
        (("--model", "gpt-4"), 3, 2 / 15),
        (("--model", "gpt-4", "--log-type", "Conversation log"), 2, 1 / 10),
        (("--from-s", 40, "--to-s", 55), 2, 1 / 5),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_chosen_rows(
    command: Command, tmp_path: Path, options: tuple[object, ...], count: int, rate_per_s: float, packed: bool
) -> None:
    path = tmp_path / ("burst.csv.gz" if packed else "burst.csv")
    path.write_bytes(gzip.compress(BURSTGPT.encode()) if packed else BURSTGPT.encode())
    config = json.loads(command("bench", "--workload", path, *options, *POLICY, "--json").out)["config"]
    assert config["num_requests"] == count
    assert config["mean_rate_per_s"] == pytest.approx(rate_per_s)
    if "--model" in options:
        assert config["model"] == "gpt-4"


def test_the_header_says_the_rate_that_was_asked_for(command: Command, trace: Path) -> None:
    out = command("bench", "--workload", trace, "--rate", 8, *POLICY).out
    assert f"{NUM_REQUESTS} requests over 3.62 s (8.00 per s)" in " ".join(out.split())
    short = command("bench", "--workload", trace, "--rate", 2000, *POLICY).out
    assert f"{NUM_REQUESTS} requests over 0.0145 s (2,000 per s)" in " ".join(short.split())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_serves_every_seed(command: Command, trace: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(gzip.compress(trace.read_bytes())), daemon=True)
    writer.start()
    code, out, err = command("bench", "--workload", pipe, *POLICY, "--seeds", 3, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["policies"]["vllm-v1"]["num_finished"] == NUM_REQUESTS
    writer.join()


def test_a_file_is_not_kept(trace: Path) -> None:
    assert WorkloadSpec(str(trace)).content is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", *POLICY),
        ("bench", *POLICY, "--replicas", 2),
        ("simulate", "--policy", "trt-no-evict"),
        ("capacity", *POLICY),
    ],
    ids=["bench", "fleet", "simulate", "capacity"],
)
def test_outputs_above_the_promised_bound_are_refused(
    command: Command, trace: Path, arguments: tuple[object, ...]
) -> None:
    code, out, err = command(arguments[0], "--workload", trace, *arguments[1:], "--max-output-tokens", 3)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "30 requests have more output tokens than --max-output-tokens 3, the first is request 1 with 30" in err


def test_the_entries_of_a_fleet_have_bounds_of_their_own(command: Command, trace: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps([{"max_output_tokens": 200}, {"max_output_tokens": 60}]))
    code, _, err = command("bench", "--workload", trace, *POLICY, "--fleet", fleet, "--routers", "random")
    assert code == 2
    assert "more output tokens than --max-output-tokens 60" in err
    fleet.write_text(json.dumps([{"max_output_tokens": 200}]))
    options = ("--fleet", fleet, "--routers", "random", "--max-output-tokens", 3)
    assert command("bench", "--workload", trace, *POLICY, *options).code == 0
