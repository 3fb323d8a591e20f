"""The step log: what is written is what is read, also after a kill and a rotation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from infermax_gym.cost.measured import read_measured
from infermax_gym.vllm.scheduler import PlugIn
from infermax_gym.vllm.settings import read_settings
from infermax_gym.vllm.steplog import LogFiles
from infermax_gym.workload import WorkloadError
from infermax_gym.workload.request_log import read_request_log
from infermax_gym.workload.step_log import read_steps
from tests.vllm import fakes


class Server:
    """A scheduler of one request at a time, driven by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.scheduler = fakes.scheduler()
        given = read_settings({"infermax": {"log": str(folder), **settings}})
        self.plug_in = PlugIn(self.scheduler, given)
        self.now = self.plug_in.origin_s
        self.plug_in.clock = lambda: self.now

    def step(self, batch: dict[str, int], seconds: float) -> None:
        self.plug_in.before()
        output = type("Output", (), {"num_scheduled_tokens": batch})
        for name, tokens in batch.items():
            self.scheduler.requests[name].num_computed_tokens += tokens
        self.plug_in.after(output)
        self.now += seconds
        for name in batch:
            request = self.scheduler.requests[name]
            if request.num_computed_tokens >= request.num_tokens:
                request.num_tokens += 1
                request.num_output_tokens += 1
        self.plug_in.updated(output)

    def add(self, name: str, prompt: int) -> Any:
        request = fakes.request(name, prompt, arrival_s=self.now)
        self.scheduler.requests[name] = request
        self.plug_in.arrived(request)
        return request


def serve_one(server: Server, name: str) -> None:
    request = server.add(name, 20)
    server.step({name: 16}, 0.5)
    server.step({name: 4}, 0.25)
    server.step({name: 1}, 0.125)
    server.plug_in.left(request)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    server = Server(tmp_path)
    serve_one(server, "a")
    steps = read_steps(tmp_path)
    assert [step.batch for step in steps.steps] == [((0, 16, 0, True),), ((0, 4, 16, True),), ((0, 1, 20, False),)]
    assert [round(step.seconds, 6) for step in steps.steps] == [0.5, 0.25, 0.125]
    assert steps.server["num_blocks"] == 100
    assert steps.workload.num_prompt_tokens.tolist() == [20]
    assert steps.workload.num_output_tokens.tolist() == [2]
    log = read_request_log(tmp_path)
    assert log.ttft_s.tolist() == pytest.approx([0.75], abs=1e-6)
    assert log.latency_s.tolist() == pytest.approx([0.875], abs=1e-6)


def test_batches_go_into_a_fit(tmp_path: Path) -> None:
    serve_one(Server(tmp_path), "a")
    assert read_steps(tmp_path).write_batches(tmp_path / "batches.csv") == 3
    measured = read_measured(tmp_path / "batches.csv")
    assert measured.seconds.tolist() == pytest.approx([0.5, 0.25, 0.125], abs=1e-6)
    assert measured.features[1].tolist() == [1.0, 4.0, 1.0, 4 * 4 + 2 * 4 * 16, 1.0, 16.0, 0.0, 0.0, 0.0]
    assert measured.features[2].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 20.0, 1.0]


def test_the_time_between_iterations_counts_while_somebody_is_there(tmp_path: Path) -> None:
    server = Server(tmp_path)
    request = server.add("a", 4)
    server.step({"a": 4}, 0.5)
    server.now += 0.25  # the host, between two iterations
    server.step({"a": 1}, 0.125)
    server.plug_in.left(request)
    server.now += 8.0  # nobody is there
    serve_one(server, "b")
    assert read_steps(tmp_path).cycle_seconds().tolist() == pytest.approx([0.5, 0.375, 0.5, 0.25, 0.125], abs=1e-6)


def test_a_log_ends_with_the_first_line_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes half a line, then has room again: what came before is read, and the server goes on."""
    server = Server(tmp_path)
    serve_one(server, "a")
    write, left = os.write, [1]

    def half(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2] if left and left.pop() else data)

    monkeypatch.setattr(os, "write", half)
    serve_one(server, "b")
    assert server.plug_in.log is None and len(read_steps(tmp_path).steps) == 3


def test_a_line_that_a_kill_has_cut_is_dropped(tmp_path: Path) -> None:
    serve_one(Server(tmp_path), "a")
    path = tmp_path / "steps-000001.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step":3,"start_s":1.0,"end')
    assert len(read_steps(tmp_path).steps) == 3


def test_a_preempted_request_is_a_prefill_again(tmp_path: Path) -> None:
    server = Server(tmp_path)
    request = server.add("a", 16)
    server.step({"a": 16}, 1.0)
    server.plug_in.preempting(request)
    request.num_computed_tokens = 0
    server.step({"a": 17}, 1.0)
    server.step({"a": 1}, 1.0)
    server.plug_in.left(request)
    steps = read_steps(tmp_path)
    assert [step.preempted for step in steps.steps] == [(), (0,), ()]
    assert [step.batch[0][3] for step in steps.steps] == [True, True, False]
    assert steps.num_preemptions.tolist() == [1]


def test_only_the_last_run_of_a_folder_is_read(tmp_path: Path) -> None:
    serve_one(Server(tmp_path), "a")
    second = Server(tmp_path)
    serve_one(second, "a")
    serve_one(second, "b")
    steps = read_steps(tmp_path)
    assert len(steps.workload) == 2
    assert len(steps.steps) == 6


def test_files_rotate_within_their_size(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, 8 * 4096, '{"schema":1}')
    for i in range(2000):
        files.write(json.dumps({"line": i, "fill": "x" * 50}))
    files.close()
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 8
    assert sum(path.stat().st_size for path in paths) <= 8 * 4096
    assert all(path.read_text().startswith('{"schema":1}\n') for path in paths)
    assert '"line": 1999' in paths[-1].read_text()


def test_a_log_that_cannot_be_written_ends_and_the_server_goes_on(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.plug_in.log._files.close()  # type: ignore[union-attr]
    serve_one(server, "a")
    assert server.plug_in.log is None


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="holds no step log"):
        read_steps(tmp_path)
