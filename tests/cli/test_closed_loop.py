"""`--concurrency`, `--think-time`, `--ramp-up` and `--sessions` of `simulate` and `bench`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command

UNIFORM = ("--workload", "uniform:64,32,0.5", "--first", 40)


def test_simulate_writes_when_requests_were_sent(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    options = ("--concurrency", 4, "--think-time", 0.5, "--ramp-up", 2, "--policy", "vllm-v1", "--requests-out", path)
    code, out, err = command("simulate", *UNIFORM, *options, "--json")
    assert (code, err) == (0, "")
    config = json.loads(out)["config"]
    assert config["traffic"] == {"concurrency": 4, "think_s": 0.5, "ramp_up_s": 2.0, "sessions": False}
    assert config["mean_rate_per_s"] is None
    rows = list(csv.DictReader(path.read_text().splitlines()))
    arrival_s = np.array([float(row["arrival_s"]) for row in rows])
    finish_s = np.array([float(row["finish_s"]) for row in rows])
    assert arrival_s[:4].tolist() == [0.0, 0.5, 1.0, 1.5]
    np.testing.assert_allclose(np.sort(arrival_s[4:]), np.sort(finish_s)[:36] + 0.5)
    figures = json.loads(out)["policies"]["vllm-v1"]
    assert figures["latency_s"]["mean"] == pytest.approx((finish_s - arrival_s).mean())
    assert command("simulate", *UNIFORM, *options).out.count("40 requests") == 1


def test_bench_of_policies_and_fleets(command: Command) -> None:
    one = json.loads(command("bench", *UNIFORM, "--concurrency", 4, "--policies", "vllm-v1,sarathi", "--json").out)
    assert {row["num_finished"] for row in one["policies"].values()} == {40}
    fleet = ("--replicas", 2, "--routers", "least-outstanding", "--concurrency", 8)
    many = json.loads(command("bench", *UNIFORM, *fleet, "--json").out)
    assert {row["num_finished"] for row in many["policies"].values()} == {40}


def test_more_clients_wait_longer_and_get_more_done(command: Command) -> None:
    rows = []
    for clients in (1, 8):
        arguments = ("bench", *UNIFORM, "--concurrency", clients, "--policies", "vllm-v1", "--json")
        rows.append(json.loads(command(*arguments).out)["policies"]["vllm-v1"])
    assert rows[0]["latency_s"]["mean"] < rows[1]["latency_s"]["mean"]
    assert rows[0]["throughput_tokens_per_s"] < rows[1]["throughput_tokens_per_s"]


def test_sessions(command: Command) -> None:
    arguments = ("bench", "--workload", "conversations", "--first", 30, "--policies", "vllm-v1", "--json")
    recorded = json.loads(command(*arguments, "--sessions").out)["policies"]["vllm-v1"]
    at_once = json.loads(command(*arguments, "--sessions", "--think-time", 0).out)["policies"]["vllm-v1"]
    assert recorded["num_finished"] == at_once["num_finished"] == 30
    assert at_once["makespan_s"] < recorded["makespan_s"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--concurrency", 2, "--rate", 3), "--concurrency and --rate exclude each other"),
        (("--ramp-up", 3), "--ramp-up needs --concurrency"),
        (("--think-time", 3), "--think-time needs --concurrency or --sessions"),
        (("--concurrency", 2, "--think-time", -1), "--think-time must be a finite time >= 0"),
        (("--concurrency", 2, "--bound"), "need arrivals that are known beforehand, not --concurrency"),
        (("--sessions", "--optimum", 1), "need arrivals that are known beforehand, not --sessions"),
        (("--concurrency", 2, "--replicas", 2, "--prefill-replicas", 1), "--prefill-replicas needs arrivals"),
    ],
)
def test_refused(command: Command, options: tuple[object, ...], message: str) -> None:
    code, out, err = command("bench", *UNIFORM, *options)
    assert code != 0
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_wrong_uniform_workload(command: Command) -> None:
    code, _, err = command("bench", "--workload", "uniform:64", "--policies", "vllm-v1")
    assert code != 0
    assert "expected uniform:PROMPT,OUTPUT" in err
