"""`infermax replay`, `infermax calibrate` and `infermax fit --profile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infermax_gym.cost import load_cost_model
from tests.cli.conftest import Command
from tests.cost.test_profiles import decode_s, write_profile
from tests.shared import SHARED, needs_shared

ENGINE = ("--kv-tokens", 2000, "--max-num-batched-tokens", 128, "--max-num-seqs", 16)


@pytest.fixture
def log(command: Command, trace: Path) -> Path:
    """What the simulator says of the trace, as a log."""
    path = trace.with_name("log.csv")
    run = command("simulate", "--workload", trace, "--policy", "vllm", *ENGINE, "--requests-out", path, "--json")
    assert run.code == 0
    return path


def test_replay_of_our_own_log_has_no_error(command: Command, log: Path) -> None:
    folder = log.with_name("report")
    run = command("replay", log, *ENGINE, "--report", folder, "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    assert set(document) >= {"schema", "config", "real", "simulated", "error", "correlation"}
    for figure in ("ttft_s", "tpot_s", "latency_s"):
        assert set(document["error"][figure]) == {"mean", "p50", "p90", "p99"}
        assert document["error"][figure]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert json.loads((folder / "replay.json").read_text())["schema"] == 1
    assert (folder / "replay.png").stat().st_size > 10_000


def test_replay_is_readable(command: Command, log: Path) -> None:
    run = command("replay", log, *ENGINE)
    assert run.code == 0 and "TTFT error" in run.out and "median error of a request's latency" in run.out


def test_engine_file_sets_what_is_not_given(command: Command, log: Path) -> None:
    engine = log.with_name("engine.json")
    engine.write_text(
        json.dumps(
            {
                "engine_kwargs": {"max_num_seqs": 16, "max_num_batched_tokens": 64, "max_model_len": None},
                "kv_cache": {"num_kv_tokens": 2000, "block_size": 16, "enable_prefix_caching": True},
                "scheduler_config": None,
            }
        )
    )
    run = command("replay", log, "--engine", engine, "--max-num-batched-tokens", 128, "--json")
    config = json.loads(run.out)["config"]
    assert (config["kv_tokens"], config["max_num_batched_tokens"], config["max_num_seqs"]) == (2000, 128, 16)
    assert config["prefix_caching"] and not config["async_scheduling"]


def test_calibrate(command: Command, log: Path) -> None:
    out, picture = log.with_name("mine.json"), log.with_name("mine.png")
    run = command("calibrate", log, *ENGINE, "-o", out, "--picture", picture, "--json")
    assert run.code == 0
    assert "too few to trust" in run.err  # 30 requests
    document = json.loads(run.out)
    assert set(document["factors"]) == {"overhead", "compute", "attention", "request_s"}
    assert document["second_half"]["before"]["latency_s"]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert load_cost_model(out).name.endswith("-calibrated")
    assert picture.stat().st_size > 10_000
    assert "second half, before" in command("calibrate", log, *ENGINE).out


def test_fit_of_a_profile(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="needs the extra fit")
    out = tmp_path / "mine.json"
    options = ("--layers", 10, "--kv-tokens", 50_000, "--max-num-batched-tokens", 1024, "--max-num-seqs", 64)
    run = command("fit", "--profile", write_profile(tmp_path), *options, "-o", out, "--json")
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out)["errors"]["decode"]["mape"] < 0.005
    assert load_cost_model(out).seconds(decodes=[300] * 16) == pytest.approx(decode_s(16, 300), rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replay", "{folder}/none.csv"), "none.csv: no such file"),
        (("replay", "{trace}"), "first_token_s is missing"),
        (("calibrate", "{trace}"), "first_token_s is missing"),
        (("replay", "{log}", "--engine", "{log}"), "log.csv: not JSON"),
        (("replay", "{log}", "--profile", "{folder}/x"), "--profile needs --kv-tokens"),
        (("replay", "{log}", "--profile", "{folder}/x", "--kv-tokens", "2000"), "--profile needs --layers"),
        (("replay", "{log}", "--profile", "x", "--cost", "llama2-7b-a100"), "exclude each other"),
        (("replay", "{log}", "--policy", "nobody"), "unknown policy 'nobody'"),
        (("replay", "{log}", "--picture", "{folder}/a.nothing"), "cannot be drawn"),
        (("fit", "-o", "{folder}/a.json"), "give either MEASURED.csv or --profile"),
        (
            ("fit", "--profile", "{folder}/x", "--layers", "2", "--tp", "2", "-o", "{folder}/a.json"),
            "--tp above 1 needs --device NAME and --hidden-size",
        ),
        (
            ("fit", "--profile", "x", "--layers", "2", "--device", "rtx-pro-600", "-o", "{folder}/a.json"),
            "did you mean 'rtx-pro-6000'",
        ),
    ],
)
def test_bad_input_is_one_line(
    command: Command, log: Path, trace: Path, arguments: tuple[str, ...], expected: str
) -> None:
    filled = [part.format(folder=trace.parent, trace=trace, log=log) for part in arguments]
    run = command(*filled)
    assert run.code == 2 and expected in run.err and run.err.count("\n") == 1, run.err


@needs_shared
def test_real_log_from_its_profile(command: Command) -> None:
    """The published log of vLLM 0.19 on an RTX 4090: means within 1 %."""
    pytest.importorskip("scipy", reason="needs the extra fit")
    assert SHARED is not None
    name = "rtx4090_llama-3.1-8b_tp1"
    data = SHARED / "data"
    run = command(
        "replay", data / "vllm_logs" / f"{name}.csv.gz", "--engine", data / "vllm_logs" / f"{name}.json",
        "--profile", data / "profiles" / name, "--layers", 32, "--json",
    )  # fmt: skip
    document = json.loads(run.out)
    assert all(abs(document["error"][figure]["mean"]) < 0.01 for figure in ("ttft_s", "tpot_s", "latency_s"))
    assert document["median_request_error"]["latency_s"] < 0.02
