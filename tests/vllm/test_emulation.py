"""The emulated engine without vllm: which seconds batches take, which tokens come, and what settings are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infermax_gym.cost.engines import find_engine
from infermax_gym.vllm import PlugInError
from infermax_gym.vllm.emulated_server import server_command
from infermax_gym.vllm.emulation import EmulatedDevice, VirtualClock, read_emulation
from infermax_gym.vllm.model_folder import VOCAB_SIZE, write_model_folder
from infermax_gym.vllm.seconds import batch_seconds
from infermax_gym.vllm.settings import read_settings

ENGINE = "qwen3-32b@h100x2"
COST = find_engine(ENGINE).cost


def scheduled(
    new: dict[str, tuple[int, int]],
    old: dict[str, tuple[int, int]],
    counts: dict[str, int],
    resumed: tuple[str, ...] = (),
) -> Any:
    """A decision of vLLM: (prompt, computed) of new requests, (computed, outputs) of others, tokens of each."""
    return SimpleNamespace(
        finished_req_ids=[],
        scheduled_new_reqs=[
            SimpleNamespace(
                req_id=name,
                prompt_token_ids=[1] * prompt,
                num_computed_tokens=computed,
                sampling_params=SimpleNamespace(all_stop_token_ids={2, 77}, eos_token_id=2),
            )
            for name, (prompt, computed) in new.items()
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=list(old),
            resumed_req_ids=set(resumed),
            num_computed_tokens=[computed for computed, _ in old.values()],
            num_output_tokens=[outputs for _, outputs in old.values()],
        ),
        num_scheduled_tokens=counts,
    )


def test_batches_take_what_they_cost_one_after_another() -> None:
    """A chunk, the rest of the prompt beside nothing, a decode, and a prefill anew after a preemption."""
    clock = VirtualClock()
    device = EmulatedDevice(COST, clock, VOCAB_SIZE)
    first = device.launch(scheduled({"a": (100, 0)}, {}, {"a": 60}))
    assert first.end_s == batch_seconds(COST, 60, 60 * 60, 1)
    assert first.tokens == [[]]
    second = device.launch(scheduled({}, {"a": (60, 0)}, {"a": 40}))  # decided before the first has ended
    assert second.end_s == first.end_s + batch_seconds(COST, 40, 40 * 40 + 2 * 40 * 60, 1, 60)
    assert len(second.tokens[0]) == 1
    clock.wait_until(second.end_s + 1.0)
    third = device.launch(scheduled({"b": (30, 16)}, {"a": (100, 1)}, {"b": 14, "a": 1}))
    seconds = batch_seconds(COST, 15, 14 * 14 + 2 * 14 * 16, 1, 16, 100, 1)
    assert third.end_s == second.end_s + 1.0 + seconds
    assert [len(tokens) for tokens in third.tokens] == [1, 1]
    clock.wait_until(third.end_s)
    again = device.launch(scheduled({}, {"a": (0, 2)}, {"a": 102}, resumed=("a",)))
    assert again.end_s == third.end_s + batch_seconds(COST, 102, 102 * 102, 1)


def test_answers_never_stop_early_and_differ() -> None:
    device = EmulatedDevice(COST, VirtualClock(), 80)  # of 64 tokens to choose from, 77 would stop it
    device.launch(scheduled({"a": (4, 0), "b": (4, 0)}, {}, {"a": 4, "b": 4}))
    answers = [
        device.launch(scheduled({}, {"a": (4 + i, 1), "b": (4 + i, 1)}, {"a": 1, "b": 1})).tokens for i in range(300)
    ]
    a, b = ([tokens[place][0] for tokens in answers] for place in (0, 1))
    assert 77 not in a and 77 not in b and min(a + b) >= 16 and max(a + b) < 80
    assert a != b and len(set(a)) > 50


def test_a_virtual_clock_never_goes_back() -> None:
    clock = VirtualClock()
    clock.wait_until(3.0)
    clock.wait_until(2.0)
    assert clock.now() == 3.0


def test_an_engine_of_the_table_brings_its_memory_and_the_policy_its_cost() -> None:
    settings = read_settings({"infermax": {"emulate": ENGINE, "policy": "llf"}})
    assert settings.emulation is not None
    assert settings.emulation.num_kv_tokens == find_engine(ENGINE).num_kv_tokens
    assert not settings.emulation.virtual
    assert settings.cost == COST
    own = read_emulation({"engine": ENGINE, "kv_tokens": 500, "clock": "virtual", "async_scheduling": True})
    assert (own.num_kv_tokens, own.virtual, own.async_scheduling) == (500, True, True)
    assert read_emulation("llama2-7b-a100").num_kv_tokens is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "emulate must be an engine"),
        ({"clock": "virtual"}, "emulate must be an engine"),
        ({"engine": ENGINE, "speed": 2}, "unknown entry 'speed'"),
        ({"engine": ENGINE, "clock": "fast"}, "clock must be real or virtual"),
        ({"engine": ENGINE, "kv_tokens": 0}, "kv_tokens must be a whole number"),
        ({"engine": ENGINE, "async_scheduling": 1}, "async_scheduling must be true or false"),
        ("qwen3-32b@h100x3", "no engine 'qwen3-32b@h100x3'"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_what_cannot_be_emulated_is_one_line(given: Any, says: str) -> None:
    with pytest.raises(PlugInError, match=says) as caught:
        read_emulation(given)
    assert "\n" not in str(caught.value)


def test_the_model_folder_has_words_for_every_token(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "m", 2048, hidden_size=256)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    tokenizer = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    assert (config["hidden_size"], config["max_position_embeddings"]) == (256, 2048)
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(config["vocab_size"]))


def test_the_server_gets_the_executor_and_the_scheduler_of_its_kind(tmp_path: Path) -> None:
    emulate = {"engine": ENGINE, "async_scheduling": True}
    command = server_command(tmp_path, {"emulate": emulate}, {"port": 8001, "host": None}, ["--seed=1"])
    assert "--port=8001" in command and "--seed=1" in command
    assert "--scheduler-cls=infermax_gym.vllm.AsyncPolicyScheduler" in command
    assert "--distributed-executor-backend=infermax_gym.vllm.EmulatedExecutor" in command
    assert not any("host" in part for part in command)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["qwen3-32b"], "not an engine; expected MODEL@GPU"),
        (["qwen3-32b@h100x2", "--policy", "vllm-v0"], "phase_order is PREFILL_FIRST"),
        (["qwen3-32b@h100x2"], "vllm is not installed"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "infermax_gym", "serve-emulated", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
