"""The generator of the table of engines: what it tries, what it samples, what it leaves out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra fit")

from experiments.engines.combinations import GPUS, MODELS, Combination, combinations, limits_of
from experiments.engines.fit import Fitted, fitted, row_of, unsound
from experiments.engines.iterations import features_of, iterations
from experiments.engines.page import BEGIN, END, tables
from experiments.engines.silicon import contradicted
from experiments.studies.silicon import Host, Row, fit_host, read, replay, without_artefacts
from experiments.studies.silicon import fitted as fitted_engine
from infermax_gym.cost import COSTS, CostModel
from infermax_gym.cost.engines import EngineName
from infermax_gym.cost.fitting import Fit, RegionError
from infermax_gym.cost.pieces import seconds_of
from infermax_gym.profiler import Limits

ONE = Combination("llama-3.1-8b", "h100", 1, "vllm", "bf16", "bf16")
LIMITS = Limits(2_048, 256, 100_000)


def test_combinations_are_distinct_and_hold_their_weights() -> None:
    found = list(combinations())
    assert len(set(found)) == len(found) > 300
    assert {one.model for one in found} == set(MODELS) and {one.gpu for one in found} == set(GPUS)
    assert not [one for one in found if one.gpu == "a100" and one.weights in ("fp8", "nvfp4")]
    assert not [one for one in found if MODELS[one.model].is_moe and one.weights == "fp8"]
    assert ("llama-3.1-405b", 1) not in {(one.model, one.tp) for one in found}


def test_limits_follow_the_backend_and_the_gpu() -> None:
    assert limits_of("h100", "vllm").max_num_batched_tokens == 8_192
    assert limits_of("a100", "vllm").max_num_batched_tokens == 2_048
    assert limits_of("l40s", "vllm").max_num_seqs == 256
    assert (limits_of("h100", "sglang").block_size, limits_of("h100", "trtllm").block_size) == (1, 32)


def test_iterations_can_occur_and_are_the_same_each_time() -> None:
    batches = iterations(LIMITS, 300)
    assert batches == iterations(LIMITS, 300) and len(batches) == 300
    assert all(LIMITS.allow(batch) for batch in batches)
    kinds = [batch.kind for batch in batches]
    assert min(kinds.count(kind) for kind in ("decode", "prefill", "mixed")) >= 50
    tokens = features_of(batches)[:, 1]
    assert tokens.min() < 4 and tokens.max() > 1_000


def test_hopeless_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="of 300 batches fit"):
        iterations(Limits(64, 8, 8), 300)


def made(one: Combination, factor: float = 1.0, mape: float = 0.02, prefill: float = 1.0) -> Fitted:
    """An engine that reads the weights of an 8B model at the H100's bandwidth."""
    form = (6e-3 * factor, 2e-5 * prefill, 0.0, 4e-10, 0.0, 0.0, 0.0, 4e-8, 1e-6)
    errors = {region: RegionError(10, mape, 2 * mape) for region in ("all", "decode", "prefill", "mixed")}
    none = np.zeros(0)
    fit = Fit(CostModel(one.label, ((form,),)), errors, none.astype(bool), none, {}, ())
    return Fitted(one, fit, 100_008, "0.24.0")


def test_what_is_left_out() -> None:
    fp8 = replace(ONE, weights="fp8", kv="fp8")
    good = {ONE: made(ONE), fp8: made(fp8, 0.6)}
    assert unsound(good[ONE], good) is None and unsound(good[fp8], good) is None
    assert "form does not hold" in str(unsound(made(ONE, mape=0.2), good))
    assert "reading the weights takes 4.8 ms" in str(unsound(made(ONE, 0.5), good))
    assert "slower than BF16" in str(unsound(made(fp8, 1.2), good))
    two = replace(ONE, tp=2)
    assert unsound(made(two, 0.6), good | {two: made(two, 0.6)}) is None
    assert "times as long on 2 of these GPUs as on 1" in str(unsound(made(two), good | {two: made(two, prefill=3.0)}))
    experts = replace(ONE, model="mixtral-8x7b", backend="sglang")
    others = {experts: made(experts, 3.0), replace(experts, backend="vllm"): made(experts)}
    assert "32 decodes take" in str(unsound(others[experts], others))


def test_the_page_shows_the_table_that_ships() -> None:
    page = (Path(__file__).parents[2] / "docs" / "costs.md").read_text(encoding="utf-8")
    assert f"{BEGIN}\n\n{tables()}\n\n{END}" in page, "run python -m experiments.engines.page --out docs/costs.md"


def test_a_row_is_fitted_to_samples(tmp_path: Path) -> None:
    features = features_of(iterations(LIMITS, 300))
    truth = COSTS["llama2-7b-a100"]
    path = tmp_path / f"{ONE.label}.npz"
    np.savez(path, features=features, seconds=seconds_of(truth, features), kv_tokens=100_008, version="0.24.0")
    row = row_of(fitted(ONE, path))
    assert json.loads(json.dumps(row)) == row
    assert (row["name"], row["kv_tokens"], row["block_size"]) == ("llama-3.1-8b@h100", 100_000, 16)
    assert row["errors"]["all"][0] < 1e-3 and row["min_terms"] == []
    assert row["terms"][0][0][1] == pytest.approx(truth.theta[0, 1], rel=1e-3)


def measurement(**changed: str) -> dict[str, str]:
    row = {
        "model_path": "meta-llama/Llama-3.1-70B", "system": "h100_sxm", "backend": "vllm", "precision": "fp8",
        "mode": "agg", "tp_size": "4", "moe_ep_size": "1", "attention_dp_size": "1",
        "silicon_data_source": "dump; silicon_concurrency=16; vllm", "silicon_tpot_ms": "15.0", "silicon_ttft_ms": "90",
    }  # fmt: skip
    return row | changed


def test_measurements_find_their_engine(tmp_path: Path) -> None:
    fields = ("isl", "osl", "batch_size", "pp_size", "gemm_quant_mode")
    base = {**dict.fromkeys(fields, ""), "isl": "1024", "osl": "128", "gemm_quant_mode": "fp8"}
    others = (
        {"mode": "disagg"}, {"attention_dp_size": "4"}, {"pp_size": "2"}, {"moe_ep_size": "8"},
        {"gemm_quant_mode": "int8"}, {"silicon_ttft_ms": ""}, {"model_path": "deepseek-ai/DeepSeek-R1"},
    )  # fmt: skip
    path = tmp_path / "silicon.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*base, *measurement()])
        writer.writeheader()
        writer.writerows({**base, **measurement(**changed)} for changed in ({}, {"tp_size": "3"}, *others))
    row, other = read(path)
    assert fitted_engine(row.engine) is not None and fitted_engine(other.engine) is None
    assert (str(row.engine), row.num_clients, row.is_inferencemax) == ("llama-3.1-70b@h100x4/fp8", 16, False)
    assert (row.tpot_s, row.ttft_s) == (pytest.approx(0.015), pytest.approx(0.09))


def test_rows_that_contradict_others_are_left_out() -> None:
    one = EngineName.parse("llama-3.1-70b@h100x4/fp8")
    ms = ((4, 10.0, 90.0), (8, 11.0, 95.0), (16, 30.0, 99.0), (32, 14.0, 120.0), (64, 16.0, 130.0), (512, 15.0, 9e3))
    rows = [Row(one, clients, 1024, 1024, ttft / 1e3, tpot / 1e3, True) for clients, tpot, ttft in ms]
    kept, left_out = without_artefacts(rows)
    assert [row.num_clients for row in left_out] == [16, 512] and len(kept) == 4


def test_what_the_host_adds_is_found_again() -> None:
    one, host = EngineName.parse("llama-3.1-70b@h100x4/fp8"), Host(iteration_s=1e-3, send_s=0.02)
    rows = []
    for clients in (2, 8):
        row = Row(one, clients, 512, 64, 1.0, 1.0, True)
        made = replay(row, host)
        assert made is not None
        rows.append(replace(row, ttft_s=made.ttft_s, tpot_s=made.tpot_s))
    found = fit_host(rows)
    assert (found.iteration_s, found.send_s) == (pytest.approx(1e-3), pytest.approx(0.02))


def test_engines_that_measurements_contradict_are_left_out_with_their_kin() -> None:
    same = {"model": "m", "backend": "vllm", "weights": "fp8"}
    rows = [
        {**same, "name": "a", "gpu": "h100", "silicon": [9, 0.5, 0.6, 0.1, 0.1]},
        {**same, "name": "b", "gpu": "h100", "silicon": None},
        {**same, "name": "c", "gpu": "h100", "silicon": [9, 0.1, 0.2, 0.1, 0.1]},
        {**same, "name": "d", "gpu": "h200", "silicon": [9, 0.5, 0.6, 0.1, 0.1]},
    ]
    assert set(contradicted(rows)) == {"a", "b"}
