"""The parts of an iteration, against figures by hand."""

from __future__ import annotations

import pytest

from infermax_gym.cost.roofline import (
    Batch,
    Device,
    Experts,
    ModelShape,
    Roofline,
    SlidingWindow,
    estimate,
    known_devices,
    known_models,
)
from infermax_gym.cost.roofline.breakdown import seconds_of
from infermax_gym.cost.roofline.parts import woken_experts

H100 = known_devices()["h100"]
LLAMA = known_models()["llama-3.1-8b"]
READ = 3.35e12 * 0.9
MULTIPLY = 989e12 * 0.84 * 0.8


def seconds(found: Roofline, name: str, batch: Batch) -> float:
    return sum(seconds_of(part, batch.features) for part in found.parts if part.name == name)


def test_reading_weights_bounds_few_tokens_and_multiplying_bounds_many() -> None:
    found = estimate(LLAMA, H100)
    layers = 32 * (4096 * 128 * 80 + 3 * 4096 * 14_336)
    few, many = Batch(num_decodes=2, context=9), Batch(1, 4096)
    assert seconds(found, "matrix products", few) == pytest.approx(2 * layers / READ)
    between = 0.7 * (2 * layers / READ + 2 * layers * 256 / MULTIPLY)
    assert seconds(found, "matrix products", Batch(1, 256)) == pytest.approx(between)
    assert seconds(found, "matrix products", many) == pytest.approx(2 * layers * 4096 / MULTIPLY)
    assert seconds(found, "output head", many) == pytest.approx(2 * 128_256 * 4096 / READ)


def test_two_devices_share_weights_and_attention() -> None:
    one, two = estimate(LLAMA, H100), estimate(LLAMA, H100, 2)
    batch = Batch(1, 4096, 100, 32, 2048)
    for name in ("matrix products", "output head", "prefill attention", "decode attention"):
        assert seconds(two, name, batch) == pytest.approx(seconds(one, name, batch) / 2), name
    assert seconds(two, "floors", batch) == seconds(one, "floors", batch)
    message = 2 * 4096 * (4096 + 32)
    expected = 64 * (8.5e-6 + message / (0.54 * 450e9))  # two a layer; a byte crosses a link once
    assert seconds(two, "all-reduce", batch) == pytest.approx(expected)


def test_attention() -> None:
    found = estimate(LLAMA, H100)
    work = 32 * 2 * 32 * 128 * (4096**2) / (989e12 * 0.61)
    assert seconds(found, "prefill attention", Batch(1, 4096)) == pytest.approx(work)
    # A short chunk reads its context, or walks through it where that is slower.
    short = 131_072 * 4096 / (3.35e12 * 0.91)
    assert seconds(found, "prefill attention", Batch(1, 1, 4096)) == pytest.approx(short)
    walk = estimate(LLAMA, known_devices()["rtx-4090"])
    assert seconds(walk, "prefill attention", Batch(1, 1, 4096)) == pytest.approx(32 * 32e-6 * 4096 / 1024)
    read = 131_072 * 32 * 2048 / (3.35e12 * 0.91)
    assert seconds(found, "decode attention", Batch(num_decodes=32, context=2048)) == pytest.approx(read)
    assert seconds(found, "attention floors", Batch(1, 5, 0, 2, 7)) == pytest.approx(32 * 12e-6)
    half = estimate(LLAMA, H100, kv="fp8")
    assert seconds(half, "decode attention", Batch(num_decodes=32, context=2048)) == pytest.approx(read / 2)


def test_more_devices_than_key_heads_hold_copies() -> None:
    shape = ModelShape("few", 2, 512, 8, 2, 64, 512, 100)
    two, eight = estimate(shape, H100, 2), estimate(shape, H100, 8)
    batch = Batch(num_decodes=4, context=1000)
    assert seconds(eight, "decode attention", batch) == seconds(two, "decode attention", batch)


def test_fp8_weights_are_read_and_multiplied_faster_where_the_device_can() -> None:
    few, many = Batch(num_decodes=2), Batch(1, 8192)
    slow, fast = estimate(LLAMA, H100), estimate(LLAMA, H100, weights="fp8")
    assert seconds(fast, "matrix products", few) == pytest.approx(seconds(slow, "matrix products", few) / 2)
    rate = (1978 * 0.58) / (989 * 0.84)
    assert seconds(fast, "matrix products", many) == pytest.approx(seconds(slow, "matrix products", many) / rate)
    a100 = known_devices()["a100"]
    slow, same = estimate(LLAMA, a100), estimate(LLAMA, a100, weights="fp8")
    assert seconds(same, "matrix products", many) == seconds(slow, "matrix products", many)


def test_decodes_beside_prefills() -> None:
    found = estimate(LLAMA, known_devices()["rtx-4090"])
    alone, beside = Batch(num_decodes=16, context=1024), Batch(1, 512, 0, 16, 1024)
    read = seconds(found, "decode attention", alone)
    assert seconds(found, "decodes beside prefills", alone) == 0.0
    assert seconds(found, "decodes beside prefills", beside) == pytest.approx((4 * 0.51 - 1) * read)


@pytest.mark.parametrize(("num_experts", "top"), [(128, 8), (32, 4), (8, 2), (4, 3), (2, 2)])
def test_woken_experts(num_experts: int, top: int) -> None:
    lines = woken_experts(num_experts, top)
    for tokens in (1, 2, 3, 5, 8, 13, 21, 50, 100, 200, 1000, 10_000):
        expected = num_experts * (1 - (1 - top / num_experts) ** tokens)
        found = min(number + slope * tokens for number, slope in lines)
        assert expected * 0.999_999 <= found <= expected * 1.045, tokens
    assert min(number + slope for number, slope in lines) == pytest.approx(top)


def test_experts_are_read_then_multiplied() -> None:
    shape = ModelShape("moe", 2, 256, 8, 8, 32, 512, 100, Experts(8, 2, 512, 0, 2))
    found = estimate(shape, H100)
    expert = 2 * 3 * 256 * 512  # of both layers
    one, many = Batch(num_decodes=1), Batch(1, 8192)
    assert seconds(found, "floors", one) == pytest.approx(2 * (28e-6 + 28e-6))
    assert seconds(found, "experts read", one) == pytest.approx(2 * expert * 2 / READ)
    assert seconds(found, "experts multiplied", one) == 0.0
    both = seconds(found, "experts read", many) + seconds(found, "experts multiplied", many)
    assert both == pytest.approx(2 * expert * 2 * 8192 / MULTIPLY)


def test_windows_bound_attention() -> None:
    full = ModelShape("full", 2, 256, 8, 8, 32, 512, 100)
    windowed = ModelShape("windowed", 2, 256, 8, 8, 32, 512, 100, window=SlidingWindow(100, 1))
    a, b = estimate(full, H100), estimate(windowed, H100)
    for context, seen in ((50, 50), (100, 100), (1000, 100)):
        batch, short = Batch(num_decodes=4, context=context), Batch(num_decodes=4, context=seen)
        inside = seconds(b, "decode attention in windows", batch)
        assert inside == pytest.approx(seconds(a, "decode attention", short) / 2)
        assert seconds(b, "decode attention", batch) == pytest.approx(seconds(a, "decode attention", batch) / 2)
    # A long prefill's token sees a window: 2 x 1000 x 100 pairs, twice, instead of 1000^2.
    long = seconds(b, "prefill attention in windows", Batch(1, 1000))
    assert long == pytest.approx(seconds(a, "prefill attention", Batch(1, 1000)) / 2 * 0.2)


def test_a_device_of_ones() -> None:
    """With round figures a batch's time is plain arithmetic."""
    device = Device("plain", "none", None, 100.0, None, None, 1.0, 100.0, None, "made up")
    found = estimate(ModelShape("small", 1, 64, 1, 1, 64, 64, 64), device)
    read = 2 * (4 * 64 * 64 + 3 * 64 * 64) / (1e12 * 0.81)
    assert seconds(found, "matrix products", Batch(num_decodes=1)) == pytest.approx(read)
