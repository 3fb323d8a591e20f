"""Operator profiles: reading, interpolating, and costs fitted to them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.cost import CostModel
from infermax_gym.cost.profile_fit import AllReduce, Deployment, fit_profile
from infermax_gym.cost.profiles import Grid, ProfileError, read_profile
from tests.shared import SHARED, needs_shared

LAYERS = 10
ENGINE = Deployment(LAYERS, max_num_batched_tokens=1024, max_num_seqs=64, num_kv_tokens=50_000)


def write_profile(folder: Path, packed: bool = False) -> str:
    """A profile of which every part is linear: per layer 100 us + 2 us a token; 300 us + 5 us a sequence.

    Attention of a layer: 10 us, 0.02 us a token of a decode's context, 1e-4 us for each pair of c^2 + 2 c m.
    """
    dense = [f"mlp,{t},{100 + 2 * t}" for t in (1, 16, 64, 256, 1024)]
    dense += [f"layernorm,{t},1" for t in (1, 1024)] + [f"embedding,{t},7" for t in (1, 1024)]
    heads = [f"lm_head,{n},{300 + 5 * n}" for n in (1, 8, 64)]
    sizes = (0, 16, 128, 1024)
    attention = []
    for c in (0, 16, 128, 1024):
        for m in (0, 16, 128, 1024) if c else (0,):
            for n in (0, 1, 8, 64):
                for kv in sizes[1:] if n else (0,):
                    if c or n:
                        attention.append(f"{c},{m},{n},{kv},{10 + 0.02 * n * kv + 1e-4 * (c * c + 2 * c * m)}")
    files = {
        "dense": ["layer,tokens,time_us", *dense],
        "per_sequence": ["layer,sequences,time_us", *heads],
        "attention": ["prefill_chunk,kv_prefill,n_decode,kv_decode,us", *attention],
    }
    prefix = folder / "card"
    for kind, lines in files.items():
        text = "\n".join(lines) + "\n"
        path = Path(f"{prefix}_{kind}.csv")
        if packed:
            Path(f"{path}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            path.write_text(text)
    return str(prefix)


def decode_s(num_decodes: int, context: int) -> float:
    """What that profile says of decodes alone."""
    dense = LAYERS * (100 + 2 * num_decodes + 2) + 7
    return 1e-6 * (dense + 300 + 5 * num_decodes + LAYERS * (10 + 0.02 * num_decodes * context))


def test_grid_interpolates_and_says_where_it_ends() -> None:
    points = np.array([(x, y) for x in (1.0, 3.0) for y in (0.0, 10.0)])
    grid = Grid.of(points, points[:, 0] * 100.0 + points[:, 1])
    assert grid.at([2.0, 0.5, 3.0], [5.0, 0.0, 10.0]).tolist() == [205.0, 100.0, 310.0]
    assert np.isnan(grid.at(4.0, 5.0)).all()


def test_grid_leaves_out_values_of_which_little_was_measured() -> None:
    points = np.array([(x, y) for x in (1.0, 2.0, 3.0) for y in (0.0, 1.0, 2.0)] + [(2.5, 0.0)])
    grid = Grid.of(points, np.ones(len(points)))
    assert grid.axes[0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("packed", [False, True])
def test_profile_is_read(tmp_path: Path, packed: bool) -> None:
    profile = read_profile(write_profile(tmp_path, packed))
    # Between 16 and 64 tokens, and beyond the 1,024 that were measured.
    expected = [1e-6 * (LAYERS * (100 + 2 * t + 2) + 7) for t in (40, 2048)]
    assert profile.dense_s([40, 2048], LAYERS) == pytest.approx(expected)
    assert profile.per_sequence_s(4) == pytest.approx([320e-6])
    assert profile.decodes.at(8, 128) == pytest.approx([1e-6 * (10 + 0.02 * 8 * 128)])


def test_fit_finds_a_linear_profile_again(tmp_path: Path) -> None:
    fit = fit_profile(read_profile(write_profile(tmp_path)), ENGINE, name="linear")
    for number, context in ((1, 500), (16, 300), (64, 700)):
        assert fit.cost.seconds(decodes=[context] * number) == pytest.approx(decode_s(number, context), rel=0.01)
    assert fit.errors["decode"][0] < 0.005
    assert fit_profile(read_profile(write_profile(tmp_path)), ENGINE, name="linear").cost == fit.cost


def test_all_reduces_are_added(tmp_path: Path) -> None:
    profile = read_profile(write_profile(tmp_path))
    alone = fit_profile(profile, ENGINE, name="one").cost
    two = Deployment(LAYERS, 1024, 64, 50_000, 2, 1000, AllReduce(10e-6, 1e-9, ""))
    shared = fit_profile(profile, two, name="two").cost
    # 2 a layer of 16 x 1,000 x 2 bytes: 20 x (10 + 32) us.
    added = shared.seconds(decodes=[300] * 16) - alone.seconds(decodes=[300] * 16)
    assert added == pytest.approx(20 * 42e-6, rel=0.03)
    assert shared.num_devices == 2


def test_unlike_contexts_cost_more(tmp_path: Path) -> None:
    profile = read_profile(write_profile(tmp_path))
    skewed = Deployment(LAYERS, 1024, 64, 50_000, context_skew=0.5)
    cost = fit_profile(profile, skewed, name="skewed").cost
    # Attention of twice the context is 0.02 us a token dearer; half of that is added.
    more = cost.seconds(decodes=[400] * 32) - decode_s(32, 400)
    assert more == pytest.approx(0.5 * LAYERS * 0.02e-6 * 32 * 400, rel=0.1)


def test_experts_are_woken_by_tokens(tmp_path: Path) -> None:
    prefix = write_profile(tmp_path)
    lines = ["tokens,activated_experts,time_us"]
    # 8 experts, 2 a token, 50 us each; one token wakes 2, two wake 8 (1 - 0.75^2) = 3.5.
    lines += [f"{t},{a},{50 * a}" for t in (1, 2, 64) for a in range(1, min(8, 2 * t) + 1)]
    Path(f"{prefix}_moe.csv").write_text("\n".join(lines) + "\n")
    experts = read_profile(prefix).dense["experts"]
    assert experts.at([1, 2, 64]) == pytest.approx([100e-6, 175e-6, 400e-6])


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("dense", "layer,tokens\nmlp,1\n", "dense.csv:1: column 'time_us' is missing"),
        ("dense", "layer,tokens,time_us\n", "dense.csv: holds no measurement"),
        ("dense", "layer,tokens,time_us\nmlp,one,3\n", "dense.csv:2: cannot read tokens"),
        ("per_sequence", "layer,sequences,time_us\nhead,1,0\n", "per_sequence.csv:2: sizes must not be negative"),
        ("attention", "prefill_chunk,kv_prefill,n_decode,kv_decode,us\n1,0,0,0,5\n", "no line with decodes"),
    ],
)
def test_faulty_files(tmp_path: Path, kind: str, text: str, expected: str) -> None:
    prefix = write_profile(tmp_path)
    Path(f"{prefix}_{kind}.csv").write_text(text)
    with pytest.raises(ProfileError, match=expected) as caught:
        read_profile(prefix)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nothing_dense\.csv: cannot be read"):
        read_profile(tmp_path / "nothing")


def test_tensor_parallelism_needs_an_all_reduce() -> None:
    with pytest.raises(ProfileError, match="hidden size"):
        Deployment(LAYERS, 1024, 64, 50_000, tensor_parallel=2)


@needs_shared
@pytest.mark.parametrize("name", ["rtx4090_llama-3.1-8b_tp1", "rtxpro6000_llama-3.1-8b_tp1"])
def test_real_profiles(name: str) -> None:
    assert SHARED is not None
    profile = read_profile(SHARED / "data" / "profiles" / name)
    fit = fit_profile(profile, Deployment(32, 2048, 128, 41_408), name="real")
    assert isinstance(fit.cost, CostModel)
    assert fit.errors["decode"][0] < 0.02 and fit.errors["mixed"][0] < 0.06
