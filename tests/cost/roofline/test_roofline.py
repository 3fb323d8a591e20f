"""All parts together: the cost model, the memory, the breakdown, names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermax_gym.cost import load_cost_model
from infermax_gym.cost.roofline import (
    BARS,
    WEIGHTS,
    Batch,
    ShapeError,
    breakdown,
    estimate,
    known_devices,
    known_models,
    parse_devices,
    parse_name,
)

MODELS, DEVICES = known_models(), known_devices()
DENSE = [name for name, shape in MODELS.items() if shape.is_dense and name != "tiny"]


@pytest.mark.parametrize(
    ("model", "device", "num_devices"),
    [
        ("llama-3.1-8b", "rtx-4090", 1),
        ("qwen3-32b", "h100", 2),
        ("qwen3-30b-a3b", "h100", 2),
        ("gpt-oss-20b", "h100", 1),
    ],
)
def test_the_parts_add_up_to_the_cost_model(model: str, device: str, num_devices: int) -> None:
    found = estimate(MODELS[model], DEVICES[device], num_devices)
    rng = np.random.default_rng(0)
    for _ in range(40):
        prefills, decodes = int(rng.integers(0, 3)), int(rng.integers(0, 64))
        if prefills + decodes == 0:
            continue
        chunk, resident, context = (int(size) for size in 2 ** rng.uniform(0, 11, 3))
        batch = Batch(prefills, chunk, resident, decodes, context)
        one = breakdown(found.parts, batch)
        expected = found.cost.seconds([(chunk, resident)] * prefills, [context] * decodes)
        assert one.seconds == pytest.approx(expected, rel=1e-12)
        assert set(one.bars) == set(BARS) and min(one.bars.values()) >= 0.0
        assert sum(one.bars.values()) == pytest.approx(one.seconds)


def test_dense_models_are_convex_and_others_are_not() -> None:
    assert estimate(MODELS["llama-3.1-8b"], DEVICES["h100"]).cost.is_convex
    assert not estimate(MODELS["qwen3-30b-a3b"], DEVICES["h100"]).cost.is_convex


def test_a_file_brings_the_model_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for model in ("llama-3.1-8b", "gpt-oss-20b"):
        cost = estimate(MODELS[model], DEVICES["h100"]).cost
        path = tmp_path / "cost.json"
        path.write_text(cost.to_json())
        assert load_cost_model(path) == cost


def test_what_bounds_a_batch() -> None:
    found = estimate(MODELS["llama-3.1-8b"], DEVICES["h100"])
    assert breakdown(found.parts, Batch(num_decodes=8, context=1000)).bound == "memory"
    assert breakdown(found.parts, Batch(1, 4096)).bound == "compute"
    small = estimate(MODELS["qwen3-0.6b"], DEVICES["h100"])
    assert breakdown(small.parts, Batch(num_decodes=1, context=10)).bound == "overhead"
    apart = estimate(MODELS["llama-3.1-8b"], DEVICES["l40s"], 4)
    assert breakdown(apart.parts, Batch(1, 2048)).bound == "communication"


def test_kv_capacity() -> None:
    """24 GB x 0.90 less 15 GiB of weights and 1.5 GiB of activations; vLLM 0.19 reports 41,408 there."""
    found = estimate(MODELS["llama-3.1-8b"], DEVICES["rtx-4090"], gpu_memory_utilization=0.90)
    assert found.memory.weights_gib == pytest.approx(8.030e9 * 2 / 2**30, rel=1e-3)
    assert found.memory.other_gib == pytest.approx(5.5 / 4 + 0.15)
    left = 23.5 * 0.90 - found.memory.weights_gib - found.memory.other_gib
    assert found.memory.num_kv_tokens == int(left * 2**30 / 131_072) // 16 * 16
    assert found.memory.num_kv_tokens == pytest.approx(41_408, rel=0.08)
    assert (found.sizes.max_num_batched_tokens, found.sizes.max_num_seqs) == (2048, 256)


def test_fp8_kv_doubles_the_tokens_and_windows_add_some() -> None:
    llama, h100 = MODELS["llama-3.1-8b"], DEVICES["h100"]
    plain, half = estimate(llama, h100), estimate(llama, h100, kv="fp8")
    assert half.memory.num_kv_tokens == pytest.approx(2 * plain.memory.num_kv_tokens, abs=32)
    oss = estimate(MODELS["gpt-oss-20b"], h100)
    everything = oss.memory.kv_gib * 2**30 / MODELS["gpt-oss-20b"].kv_bytes_per_token
    assert everything * 1.7 < oss.memory.num_kv_tokens < everything * 2.0


@pytest.mark.parametrize(
    ("model", "device", "num_devices", "options", "message"),
    [
        ("llama-3.1-70b", "h100", 1, {}, "131.4 GiB of bf16 weights .* leave no room for KV on 1 x h100"),
        ("qwen3-32b", "h100", 3, {}, "64 query heads do not divide among 3"),
        ("llama-3.2-3b", "h100", 6, {}, "8 key heads do not divide among 6"),
        ("qwen2.5-7b", "h100", 7, {}, "4 key heads do not divide among 7"),
        ("llama-3.1-8b", "h100", 16, {}, "at most 8"),
        ("llama-3.1-8b", "h100", 0, {}, "needs at least one"),
        ("llama-3.1-8b", "h100", 1, {"weights": "fp3"}, "weights 'fp3' are unknown"),
        ("llama-3.1-8b", "h100", 1, {"kv": "int4"}, "KV format 'int4' is unknown"),
        ("llama-3.1-8b", "h100", 1, {"gpu_memory_utilization": 1.5}, "at most 1, got 1.5"),
        ("llama-3.1-8b", "h100", 1, {"gpu_memory_utilization": float("nan")}, "got nan"),
    ],
)
def test_what_is_refused(model: str, device: str, num_devices: int, options: dict[str, str], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        estimate(MODELS[model], DEVICES[device], num_devices, **options)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    device=st.sampled_from(sorted(DEVICES)),
    num_devices=st.sampled_from([1, 2, 4, 8]),
    weights=st.sampled_from([None, *WEIGHTS]),
    kv=st.sampled_from(["bf16", "fp8"]),
)
def test_every_pair_is_a_cost_or_one_line(
    model: str, device: str, num_devices: int, weights: str | None, kv: str
) -> None:
    try:
        found = estimate(MODELS[model], DEVICES[device], num_devices, weights=weights, kv=kv)
    except ShapeError as error:
        assert "\n" not in str(error)
        return
    alone, more = (breakdown(found.parts, Batch(num_decodes=count, context=500)) for count in (1, 32))
    assert 0.0 < alone.seconds <= more.seconds < 32 * alone.seconds


def test_names() -> None:
    name = parse_name("qwen3-32b@h100x2/fp8")
    assert (name.shape.name, name.device.name, name.num_devices, name.weights) == ("qwen3-32b", "h100", 2, "fp8")
    assert estimate(name.shape, name.device, 2, weights="fp8").name == "qwen3-32b@h100x2/fp8"
    assert parse_devices("mi300x") == (DEVICES["mi300x"], 1)
    assert parse_devices("mi300xx8") == parse_devices("mi300x8") == (DEVICES["mi300x"], 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama-3.1-8b", "is no MODEL@DEVICE"),
        ("@h100", "is no MODEL@DEVICE"),
        ("llama-3.1-8b@", "is no MODEL@DEVICE"),
        ("llama-3.1-8B@h100", "unknown model 'llama-3.1-8B'; did you mean 'llama-3.1-8b'"),
        ("llama-3.1-8b@h10", "unknown device 'h10'; did you mean 'h100'"),
        ("llama-3.1-8b@h100x", "unknown device 'h100x'; did you mean 'h100'"),
        ("llama-3.1-8b@h100/sglang", "after / comes how weights are held"),
        ("llama-3.1-8b@h100/fp8/fp8", "after / comes how weights are held"),
    ],
)
def test_names_that_mean_nothing(name: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        parse_name(name)
