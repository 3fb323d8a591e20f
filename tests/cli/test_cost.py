"""`infermax cost`: figures and pictures of a model on a GPU, and one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infermax_gym.cost import load_cost_model
from tests.cli.conftest import Command

CONFIG = {
    "num_hidden_layers": 4,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 1024,
    "vocab_size": 1000,
}


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """Nothing compiled runs here."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def test_a_known_model_on_a_known_gpu(command: Command) -> None:
    run = command("cost", "llama-3.1-8b@rtx-4090")
    assert run.code == 0, run.err
    assert "KV 5.1 GiB: 42,080 KV tokens" in run.out
    assert "--kv-tokens 42080 --max-num-batched-tokens 2048 --max-num-seqs 256" in run.out
    assert "num_tokens" in run.out and "max(" in run.out
    (decode,) = (line for line in run.out.splitlines() if line.startswith("8 x decode at 1,024"))
    assert "memory" in decode and decode.count("w") > 30
    (prefill,) = (line for line in run.out.splitlines() if line.startswith("prefill of 2,048 "))
    assert "compute" in prefill and prefill.count("G") > 30
    assert "to run it: -o cost.json" in run.out


def test_an_engine_of_the_table_is_pointed_at(command: Command) -> None:
    run = command("cost", "qwen3-32b@h100x2")
    assert "qwen3-32b@h100x2: roofline" in run.out and "to run it: --cost qwen3-32b@h100x2" in run.out
    assert json.loads(command("cost", "qwen3-32b@h100x2", "--json").out)["fitted"] == "qwen3-32b@h100x2"
    backend = command("cost", "qwen3-32b@h100x2/sglang")
    assert backend.code == 0 and "measured with sglang" in backend.out
    missing = command("bench", "--cost", "llama-3.1-8b@rtx-4090", "--workload", "azure-conv")
    assert missing.code == 2 and "`infermax cost llama-3.1-8b@rtx-4090 -o cost.json` estimates it" in missing.err


def test_json_and_file(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    run = command("cost", "qwen3-32b@h100x2/fp8", "--kv", "fp8", "--context", 2000, "--json", "-o", out)
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert (document["schema"], document["kind"], document["num_devices"]) == (1, "roofline", 2)
    assert (document["weights"], document["kv"]) == ("fp8", "fp8")
    model = load_cost_model(out)
    assert document["cost"] == json.loads(model.to_json()) and model.name == "qwen3-32b@h100x2/fp8"
    decode = document["batches"][1]
    assert (decode["num_decodes"], decode["context"], decode["bound"]) == (8, 2000, "memory")
    assert decode["seconds"] == pytest.approx(sum(decode["parts_s"].values()))
    assert decode["tokens_per_s"] == pytest.approx(8 / decode["seconds"])


def test_a_config_file(command: Command, config: Path) -> None:
    run = command("cost", "--config", config, "--device", "h100", "--tp", 2, "--weights", "fp8", "--json")
    assert run.code == 0, run.err
    document = json.loads(run.out)
    assert document["name"] == "config@h100x2/fp8"
    same = command("cost", "--config", config, "--device", "h100x2", "--weights", "fp8", "--json")
    assert json.loads(same.out) == document


def test_experts_and_windows(command: Command) -> None:
    run = command("cost", "gpt-oss-20b@h100")
    assert run.code == 0, run.err
    assert "min(" in run.out and "mxfp4 weights" in run.out


def test_a_known_cost(command: Command) -> None:
    run = command("cost", "llama2-7b-a100")
    assert run.code == 0 and "61.12 num_tokens" in run.out
    document = json.loads(command("cost", "llama2-7b-a100", "--json").out)
    assert document["kind"] == "known" and document["cost"]["num_devices"] == 1
    assert command("cost", "llama2-7b-a100", "--device", "h100").code == 2


@pytest.mark.parametrize("width", [60, 80, 200])
def test_any_width(command: Command, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run = command("cost", "llama-3.1-8b@h100")
    assert run.code == 0
    assert width < 80 or "…" not in run.out, "a name gives way before a figure does"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs MODEL@DEVICE"),
        (("llama-3.1-8b",), "is no MODEL@DEVICE"),
        (("llama-3.1-70b@h100",), "leave no room for KV"),
        (("llama-3.1-8b@h10",), "did you mean 'h100'"),
        (("llama-3.1-8b@h100x5",), "32 query heads do not divide among 5 devices"),
        (("llama-3.1-8b@h100x2", "--tp", "4"), "--tp 4: 'llama-3.1-8b@h100x2' says how many"),
        (("llama-3.1-8b@h100/fp8", "--weights", "bf16"), "--weights: 'llama-3.1-8b@h100/fp8' says"),
        (("llama-3.1-8b@h100", "--device", "h100"), "not both"),
        (("--model", "llama-3.1-8b"), "needs MODEL@DEVICE"),
        (("--model", "llama-3.1-8c", "--device", "h100"), "did you mean 'llama-3.1-8b'"),
        (("--model", "llama-3.1-8b", "--device", "h100x2", "--tp", "4"), "--device h100x2 says how many"),
        (("--config", "missing.json", "--device", "h100"), "cannot be read"),
        (("llama-3.1-8b@h100", "--weights", "fp9"), "weights 'fp9' are unknown"),
        (("llama-3.1-8b@h100x0",), "needs at least one"),
        (("llama-3.1-8b@h100", "--max-num-seqs", "9" * 400), "'--max-num-seqs'"),
        (("llama-3.1-8b@h100", "--max-num-batched-tokens", "9" * 400), "'--max-num-batched-tokens'"),
        (("llama-3.1-8b@h100", "--gpu-memory-utilization", "0"), "must be above 0"),
        (("llama-3.1-8b@h100", "-o", "no/such/folder.json"), "does not exist"),
    ],
)
def test_bad_input(command: Command, arguments: tuple[str, ...], message: str) -> None:
    run = command("cost", *arguments)
    assert run.code == 2 and message in run.err and run.err.count("\n") == 1, run


def test_lists(command: Command) -> None:
    devices = json.loads(command("list", "devices", "--json").out)["devices"]
    assert len(devices) >= 20 and all(device["source"] for device in devices)
    models = {model["name"]: model for model in json.loads(command("list", "models", "--json").out)["models"]}
    assert models["gpt-oss-120b"]["experts"] == 128 and models["llama-3.1-8b"]["kv_kib_per_token"] == 128
