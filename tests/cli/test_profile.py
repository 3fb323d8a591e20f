"""`infermax profile`: batches in, a CSV of seconds out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from infermax_gym.cost.features import FEATURE_NAMES
from tests.cli.conftest import Command

pytest.importorskip("torch")
QUICK = ("--device", "cpu", "--max-num-batched-tokens", "48", "--kv-tokens", "2000", "--seconds-per-batch", "0")


def test_measures_a_model(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "tiny.csv"
    run = command("profile", "--model", "tiny", *QUICK, "--random", "3", "-o", str(out))
    assert run.code == 0, run.err
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) > 3
    assert all(float(line["seconds"]) > 0.0 and all(int(line[name]) >= 0 for name in FEATURE_NAMES) for line in lines)
    described = json.loads(out.with_suffix(".json").read_text())
    assert described["device"] == "cpu" and described["model"]["name"] == "tiny"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "gpt-9"), "neither a config.json nor one of tiny"),
        (("--model", "missing.json"), "cannot be read"),
        (("--model", "tiny", "--max-num-seqs", "1", "--kv-tokens", "3", "--random", "0"), "no batch fits"),
    ],
)
def test_bad_options(command: Command, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    run = command("profile", *QUICK, *options, "-o", str(tmp_path / "x.csv"))
    assert run.code == 2 and message in run.err and run.err.count("\n") == 1
    assert not (tmp_path / "x.csv").exists()
