"""`infermax fit`: measured batches in, a cost model, its errors and a picture out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra fit")

from infermax_gym.cost import load_cost_model
from infermax_gym.cost.features import FEATURE_NAMES
from infermax_gym.cost.pieces import seconds_of
from tests.cli.conftest import Command
from tests.cost.test_fitting import TRUTH, batches


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Noisy measurements of a known model."""
    x = batches(240)
    seconds = seconds_of(TRUTH, x) * np.exp(np.random.default_rng(1).normal(0.0, 0.02, len(x)))
    lines = [",".join(f"{value:.17g}" for value in (*row, y)) for row, y in zip(x, seconds, strict=True)]
    path = tmp_path / "measured.csv"
    path.write_text("\n".join([",".join((*FEATURE_NAMES, "seconds")), *lines]) + "\n")
    return path


def test_recovers_a_known_model(command: Command, measured: Path) -> None:
    out = measured.with_name("mine.json")
    run = command("fit", str(measured), "-o", str(out), "--convex", "--devices", "2", "--price", "3.2", "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    assert document["schema"] == 1 and document["config"]["num_batches"] == 240 and document["is_convex"]
    assert set(document["held_out"]) == {"all", "decode", "prefill", "mixed"}
    assert 0.01 < document["held_out"]["all"]["mape"] < 0.03
    model = load_cost_model(out)
    assert (model.name, model.num_devices, model.price_usd_per_device_hour) == ("mine", 2, 3.2)
    fresh = batches(200, seed=9)
    assert np.abs(seconds_of(model, fresh) / seconds_of(TRUTH, fresh) - 1.0).mean() < 0.015


def test_prints_errors_by_region_and_draws(command: Command, measured: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra fit")
    picture = measured.with_name("residuals.png")
    out = measured.with_name("mine.json")
    run = command("fit", str(measured), "-o", str(out), "--picture", str(picture), "--convex")
    assert (run.code, run.err) == (0, "")
    assert all(word in run.out for word in ("decode", "prefill", "mixed", "MAPE", "p95", "measured up to"))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_warns_of_what_was_not_measured(command: Command, measured: Path) -> None:
    out = measured.with_name("mine.json")
    options = ("--max-num-batched-tokens", "100000", "--max-num-seqs", "128", "--convex")
    run = command("fit", str(measured), "-o", str(out), *options)
    assert run.code == 0 and "num_tokens up to 100000 is asked for" in run.err and run.err.count("\n") == 1
    header, *lines = measured.read_text().splitlines()
    decodes = [line for line in lines if line.split(",")[4] == "0"]
    measured.write_text("\n".join([header, *decodes]) + "\n")
    run = command("fit", str(measured), "-o", str(out))
    assert run.code == 0 and "no prefill and no mixed batch was held out" in run.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kv-tokens", "40"), "needs at least 24 different batches"),
        (("--picture", "residuals.txt"), "expected a name that ends in .png"),
    ],
)
def test_bad_options(command: Command, measured: Path, options: tuple[str, ...], message: str) -> None:
    out = measured.with_name("mine.json")
    run = command("fit", str(measured), "-o", str(out), *options)
    assert run.code == 2 and message in run.err and run.err.count("\n") == 1
    assert not out.exists()
