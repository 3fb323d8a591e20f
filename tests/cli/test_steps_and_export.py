"""`infermax steps` and `infermax export`: a server's log, and workloads for a benchmark client."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from infermax_gym.workload import make_workload, read_workload
from tests.cli.conftest import Command
from tests.vllm.test_steplog import Server, serve_one


def test_a_step_log_as_workload_and_batches_and_beside_the_simulator(command: Command, tmp_path: Path) -> None:
    serve_one(Server(tmp_path / "log"), "a")
    workload, batches = tmp_path / "served.csv", tmp_path / "batches.csv"
    code, out, err = command(
        "steps", str(tmp_path / "log"), "--workload-out", str(workload), "--batches-out", str(batches),
        "--against", "vllm", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["num_iterations"] == 3
    assert document["against"]["num_iterations"] == 2
    parting = document["against"]["first_difference"]
    assert parting == {"iteration": 0, "why": "request 0 gets 16 tokens from the server, 20 from the simulator"}
    assert read_workload(workload).num_prompt_tokens.tolist() == [20]
    assert len(batches.read_text().splitlines()) == 4


def test_no_step_log_is_one_line(command: Command, tmp_path: Path) -> None:
    code, out, err = command("steps", str(tmp_path))
    assert (code, out) == (2, "")
    assert "holds no step log" in err and err.count("\n") == 1


def test_an_exported_workload_is_read_back(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    code, out, err = command("export", "--workload", "azure-conv", "--first", "40", "-o", str(path))
    assert (code, err) == (0, "")
    assert out.startswith("vllm bench serve --dataset-name timed_trace ")
    assert "--timed-trace-sec-multiplier 0.001" in out and "--num-prompts 40" in out
    ours, theirs = make_workload("azure-conv", 40, seed=0), read_workload(path)
    assert np.array_equal(ours.num_prompt_tokens, theirs.num_prompt_tokens)
    assert np.array_equal(ours.num_output_tokens, theirs.num_output_tokens)
    assert np.allclose(ours.arrival_s - ours.arrival_s[0], theirs.arrival_s, atol=1e-9)
    first = json.loads(path.read_text().splitlines()[0])
    assert len(first["hash_ids"]) == -(-first["input_length"] // 512)


def test_shared_prefixes_stay_shared(tmp_path: Path) -> None:
    from infermax_gym.workload import Workload
    from infermax_gym.workload.timed_trace import write_timed_trace

    path = tmp_path / "trace.jsonl"
    workload = Workload(
        [0.0, 1.0], [1100, 1024], [1, 1], prefix_blocks=[5, 6, 5, 7], prefix_start=[0, 2, 4], prefix_block_size=512
    )
    write_timed_trace(workload, path)
    hashes = [json.loads(line)["hash_ids"] for line in path.read_text().splitlines()]
    assert hashes == [[5, 6, 8], [5, 7]]
