"""The scripts that compare the roofline with measurements read their files rightly."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest

from experiments.studies import roofline_errors
from infermax_gym.cost.roofline import Batch


def write(path: Path, header: str, *lines: str) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join([header, *lines]) + "\n")


def test_the_measurements_of_this_project(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["roofline_errors"])
    roofline_errors.main()
    lines = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    found = {(line[1].strip(), line[2].strip()): float(line[4]) for line in lines[2:]}
    assert len(found) == 16
    # As docs/roofline.md has it, with some room: plain PyTorch has more small kernels than an engine.
    assert found["qwen3-32b, H100", "all"] < 18.0 and found["llama-3.1-8b, H100", "all"] < 24.0


def test_a_profile_is_summed_up(tmp_path: Path) -> None:
    write(
        tmp_path / "p_dense.csv.gz",
        "layer,tokens,time_us",
        *("qkv_proj,1,10", "qkv_proj,3,30", "layernorm,1,2", "layernorm,3,2", "embedding,1,5", "embedding,3,5"),
    )
    write(tmp_path / "p_per_sequence.csv.gz", "layer,sequences,time_us", "lm_head,1,100", "sampler,1,7")
    write(tmp_path / "p_attention.csv.gz", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", "2,8,0,0,50")
    ((kind, features, seconds),) = roofline_errors.summed_profile(tmp_path, "p", num_layers=4)
    assert (kind, features) == ("prefill", Batch(1, 2, 8).features)
    assert seconds == pytest.approx((4 * (20 + 2 * 2 + 50) + 5 + 100) * 1e-6)
