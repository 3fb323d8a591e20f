"""The table of engines: every row is a sound model with sound limits."""

from __future__ import annotations

import csv
import json
import math
from datetime import date
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.cost import load_cost_model
from infermax_gym.cost.engines import Engine, engines, find_engine
from infermax_gym.cost.pieces import seconds_of
from infermax_gym.engine import EngineConfig

MODELS = {
    "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "qwen3-8b", "qwen3-32b", "qwen3-235b-a22b", "qwen3-30b-a3b",
    "gpt-oss-20b", "gpt-oss-120b", "mixtral-8x7b",
}  # fmt: skip


def batch(prefills: int, chunk: int, before: int, decodes: int, context: int) -> list[float]:
    work = prefills * (chunk * chunk + 2 * chunk * before)
    tokens = prefills * chunk + decodes
    return [1, tokens, prefills > 0, work, prefills, prefills * before, decodes > 0, decodes * context, decodes]


GROWING = (
    [batch(0, 0, 0, n, 1_000) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)],
    [batch(1, n, 0, 0, 0) for n in (1, 16, 64, 256, 512, 1_024, 2_048, 4_096, 8_192)],
    [batch(1, n, 512, 32, 1_000) for n in (1, 16, 64, 256, 512, 1_024, 2_048)],
    [batch(0, 0, 0, 32, n) for n in (1, 16, 256, 1_024, 16_384)],
    [batch(1, 256, n, 8, 100) for n in (0, 16, 256, 4_096, 32_768)],
)


def test_the_table_has_what_it_promises() -> None:
    table = engines()
    assert len(table) >= 80
    assert {one.model for one in table.values()} == MODELS
    assert {one.gpu for one in table.values()} == {"a100", "h100", "h200", "b200", "l40s", "rtx-pro-6000"}
    assert {one.backend for one in table.values()} == {"vllm", "sglang", "trtllm"}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_rows_are_sound(model: str) -> None:
    for one in (one for one in engines().values() if one.model == model):
        assert one.cost.num_devices == one.tensor_parallel, one.name
        assert one.num_kv_tokens % one.block_size == 0 and one.num_kv_tokens >= 16_000, one.name
        assert one.max_num_batched_tokens >= one.max_num_seqs, one.name
        assert set(one.errors) == {"all", "decode", "prefill", "mixed"}
        assert one.errors["all"].mape <= 0.12 and one.errors["all"].p95 <= 0.35, one.name
        coefficients = np.array([form for term in (*one.terms, *one.min_terms) for form in term])
        assert np.isfinite(coefficients).all() and coefficients.shape[1] == 9
        for batches in GROWING:
            seconds = seconds_of(one.cost, np.array(batches, np.float64))
            assert seconds[0] > 5e-4 and (np.diff(seconds) >= -1e-12).all(), one.name


def test_more_gpus_decode_faster_and_hold_more() -> None:
    one, two, four = (find_engine(f"qwen3-32b@h100{size}") for size in ("", "x2", "x4"))
    decode = np.array([batch(0, 0, 0, 32, 1_000)], np.float64)
    times = [float(seconds_of(engine.cost, decode)[0]) for engine in (one, two, four)]
    assert times[0] > times[1] > times[2]
    assert one.num_kv_tokens < two.num_kv_tokens < four.num_kv_tokens


def test_bits_and_gpus_show_in_a_decode() -> None:
    """An 8B model in BF16 reads 16 GB: 4.8 ms at the H100's bandwidth, 7.9 ms at the A100's."""
    decode = np.array([batch(0, 0, 0, 1, 100)], np.float64)
    h100, fp8, a100 = (
        float(seconds_of(find_engine(f"llama-3.1-8b@{name}").cost, decode)[0]) for name in ("h100", "h100/fp8", "a100")
    )
    assert 4.8e-3 < h100 < 8e-3 and fp8 < 0.75 * h100 and 7.9e-3 < a100 < 13e-3


def test_mixtures_bend_down_and_dense_models_mostly_do_not() -> None:
    table = engines().values()
    experts = [one for one in table if one.model in ("qwen3-30b-a3b", "gpt-oss-120b", "mixtral-8x7b")]
    dense = [one for one in table if one.model.startswith(("llama", "qwen3-8b", "qwen3-32b"))]
    assert all(one.min_terms for one in experts)
    assert np.mean([one.cost.is_convex for one in dense]) > 0.85


def test_an_engine_is_an_engine_config_and_a_file(tmp_path: Path) -> None:
    one = find_engine("gpt-oss-120b@h200")
    config = EngineConfig(cost=one.cost, **one.sizes)
    assert (config.num_kv_tokens, config.block_size, config.max_num_seqs) == (one.num_kv_tokens, 16, 1_024)
    path = tmp_path / "cost.json"
    path.write_text(one.cost.to_json())
    assert load_cost_model(path) == one.cost


def test_prices_have_a_date_and_a_source() -> None:
    prices = json.loads((files("infermax_gym.cost.engines") / "prices.json").read_text())
    date.fromisoformat(prices["date"])
    assert prices["source"].startswith("https://")
    for price in prices["usd_per_gpu_hour"].values():
        assert price is None or 0.3 < price < 20.0
    one = find_engine("llama-3.1-70b@h100x4")
    assert one.cost.price_usd_per_device_hour == prices["usd_per_gpu_hour"]["h100"]
    assert find_engine("llama-3.1-8b@l40s").cost.price_usd_per_device_hour is None


def test_what_is_left_out_is_not_in_the_table() -> None:
    path = Path(__file__).parents[3] / "experiments" / "engines" / "left_out.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    present = {_label(one) for one in engines().values()}
    assert rows and all(row["reason"] for row in rows)
    assert not present & {row["engine"] for row in rows}


def _label(one: Engine) -> str:
    size = f"{one.gpu}x{one.tensor_parallel}"
    return f"{one.model}_{size}_{one.backend}_{one.weights_dtype}_{one.kv_dtype}"


def test_lines_are_in_order_and_without_repeats() -> None:
    text = (files("infermax_gym.cost.engines") / "table.jsonl").read_text()
    names = [json.loads(line)["name"] for line in text.splitlines()]
    assert len(set(names)) == len(names) == len(engines())
    assert names == list(engines())
    assert not any(math.isnan(value) for value in (one.errors["all"].mape for one in engines().values()))
