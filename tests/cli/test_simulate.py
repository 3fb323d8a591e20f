"""`infermax simulate` and the files that it writes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.conftest import NUM_REQUESTS, Command

ENGINE = ("--policy", "vllm-v1", "--kv-tokens", 1000, "--max-num-batched-tokens", 128)
HEADER = (
    "request,arrival_s,num_prompt_tokens,num_output_tokens,first_scheduled_s,first_token_s,finish_s,"
    "num_preemptions,status"
)


def test_figures_are_those_of_bench(command: Command, trace: Path) -> None:
    ours = json.loads(command("simulate", "--workload", trace, *ENGINE, "--json").out)
    arguments = ("--policies", *ENGINE[1:])
    theirs = json.loads(command("bench", "--workload", trace, *arguments, "--json").out)
    for document in (ours, theirs):
        del document["policies"]["vllm-v1"]["wall_s"]
    assert ours["schema"] == 1
    assert ours["policies"] == theirs["policies"]


def test_requests_and_schedule_agree(command: Command, trace: Path, tmp_path: Path) -> None:
    requests_out, schedule_out = tmp_path / "requests.csv", tmp_path / "schedule.jsonl"
    code, out, err = command(
        "simulate",
        "--workload",
        trace,
        *ENGINE,
        "--requests-out",
        requests_out,
        "--schedule-out",
        schedule_out,
        "--json",
    )
    assert (code, err) == (0, "")
    figures = json.loads(out)["policies"]["vllm-v1"]
    assert requests_out.read_text().splitlines()[0] == HEADER
    rows = list(csv.DictReader(requests_out.read_text().splitlines()))
    iterations = [json.loads(line) for line in schedule_out.read_text().splitlines()]

    assert [int(row["request"]) for row in rows] == list(range(NUM_REQUESTS))
    assert {row["status"] for row in rows} == {"finished"}
    assert len(iterations) == figures["num_iterations"]
    assert all(set(line) == {"start_s", "end_s", "batch", "preempted"} for line in iterations)
    assert max(line["end_s"] for line in iterations) == max(float(row["finish_s"]) for row in rows)

    granted: Counter[int] = Counter()
    for line in iterations:
        assert 0 < sum(c for _, c in line["batch"]) <= 128
        for request, num_tokens in line["batch"]:
            granted[request] += num_tokens
    needed = sum(int(row["num_prompt_tokens"]) + int(row["num_output_tokens"]) - 1 for row in rows)
    assert sum(granted.values()) == needed + figures["num_recomputed_tokens"]
    preempted = Counter(request for line in iterations for request in line["preempted"])
    assert figures["num_preemptions"] > 0
    assert [int(row["num_preemptions"]) for row in rows] == [preempted[r] for r in range(NUM_REQUESTS)]
    for row in rows:
        first = next(line for line in iterations if any(r == int(row["request"]) for r, _ in line["batch"]))
        assert float(row["first_scheduled_s"]) == first["start_s"]


def test_rejected_requests_have_empty_times(command: Command, trace: Path, tmp_path: Path) -> None:
    with trace.open("a") as file:
        file.write("9.0,5000,5\n")
    path = tmp_path / "requests.csv"
    assert command("simulate", "--workload", trace, *ENGINE, "--requests-out", path).code == 0
    row = list(csv.DictReader(path.read_text().splitlines()))[-1]
    assert row["status"] == "rejected"
    assert row["first_scheduled_s"] == row["first_token_s"] == row["finish_s"] == ""


def test_trace_is_a_valid_timeline(command: Command, trace: Path, tmp_path: Path) -> None:
    path, schedule = tmp_path / "trace.json", tmp_path / "schedule.jsonl"
    code, _, _ = command("simulate", "--workload", trace, *ENGINE, "--trace-out", path, "--schedule-out", schedule)
    assert code == 0
    events = json.loads(path.read_text())["traceEvents"]
    iterations = [json.loads(line) for line in schedule.read_text().splitlines()]
    phases = Counter(event["ph"] for event in events)
    assert phases["X"] == len(iterations)
    assert phases["b"] == phases["e"]
    assert sum(event["name"] == "preempted" for event in events) == sum(len(line["preempted"]) for line in iterations)
    assert all(event["ts"] >= 0 for event in events if event["ph"] != "M")

    counters: dict[str, list[int]] = {}
    for event in events:
        if event["ph"] == "C":
            counters.setdefault(event["name"], []).append(event["args"]["value"])
    assert set(counters) == {"waiting requests", "running requests", "KV tokens"}
    assert 500 < max(counters["KV tokens"]) <= 1000
    assert min(map(min, counters.values())) == 0
    assert [series[-1] for series in counters.values()] == [0, 0, 0]


def test_times_keep_every_digit(command: Command, trace: Path, tmp_path: Path) -> None:
    from infermax_gym.engine import EngineConfig, simulate
    from infermax_gym.workload import load_workload

    path = tmp_path / "requests.csv"
    command("simulate", "--workload", trace, "--policy", "vllm-v1", "--requests-out", path)
    from infermax_gym.baselines.policies import POLICIES

    result = simulate(load_workload(str(trace)), EngineConfig(), POLICIES["vllm-v1"])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["finish_s"]) for row in rows] == result.finish_s.tolist()
    assert [float(row["arrival_s"]) for row in rows] == result.workload.arrival_s.tolist()


def test_the_summary_is_for_people(command: Command, trace: Path) -> None:
    code, out, err = command("simulate", "--workload", trace, *ENGINE)
    assert (code, err) == (0, "")
    assert "requests finished         30" in out


@pytest.mark.parametrize("option", ["--requests-out", "--schedule-out", "--trace-out"])
def test_nothing_half_written_stays(
    command: Command, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def interrupted(*arguments: object) -> None:
        arguments[1].write("half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    for name in ("evaluation.export.write_requests_csv", "evaluation.export.write_schedule_jsonl"):
        monkeypatch.setattr(f"infermax_gym.{name}", interrupted)
    monkeypatch.setattr("infermax_gym.viewer.perfetto.write_trace", interrupted)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "file").write_text("before")
    assert command("simulate", "--workload", trace, *ENGINE, option, folder / "file").code == 130
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("file", "before")]
