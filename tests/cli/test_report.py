"""`infermax report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_shows_what_bench_wrote(command: Command, trace: Path, tmp_path: Path) -> None:
    arguments = ("bench", "--workload", trace, "--kv-tokens", 1000, "--policies", "sarathi,hrrn,sglang-fcfs")
    shown = command(*arguments, "--out", tmp_path).out
    outcome = command("report", tmp_path, "--table", "--pictures", tmp_path / "pictures")
    assert outcome.code == 0 and outcome.out.startswith(shown)
    assert outcome.out.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
    page = (tmp_path / "report.html").read_text("utf-8")
    assert all(part in page for part in ("Distributions", "Trade-offs", "Over time"))
    assert len(list((tmp_path / "pictures").glob("*.svg"))) == 8
    summary = json.loads((tmp_path / "summary.json").read_text())
    details = json.loads((tmp_path / "details.json").read_text())
    for name, figures in summary["policies"].items():
        line = details["policies"][name]["timeline"]
        assert sum(line["num_preemptions"]) == figures["num_preemptions"]
        assert 0.0 < max(line["kv_use"]) <= 1.0 and line["num_waiting"][-1] == 0
        median = details["policies"][name]["distributions"]["latency_s"]
        assert median[0] <= figures["latency_s"]["p50"] <= median[-1]


def test_shows_an_optimum(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("ortools")
    requests = [{"arrival_s": 0.0, "num_prompt_tokens": 2, "num_output_tokens": 3}] * 2
    instance = tmp_path / "instance.json"
    instance.write_text(json.dumps({"requests": requests, "kv_tokens": 20, "cost": "llama2-7b-a100"}))
    assert command("optimal", instance, "--time-limit", 1, "--out", tmp_path).code == 0
    outcome = command("report", tmp_path)
    assert outcome.code == 0 and outcome.out.startswith("The best schedule has a makespan of")
    assert "refill after preemption" in (tmp_path / "report.html").read_text("utf-8")


def test_a_bad_folder_gets_one_line(command: Command, tmp_path: Path) -> None:
    for folder, words in ((tmp_path, "holds none of"), (tmp_path / "absent", "is no folder")):
        outcome = command("report", folder)
        assert outcome.code == 2 and words in outcome.err and len(outcome.err.splitlines()) == 1
    (tmp_path / "summary.json").write_text('{"schema": 2}')
    outcome = command("report", tmp_path)
    assert outcome.code == 2 and 'expected an object with "schema": 1' in outcome.err
