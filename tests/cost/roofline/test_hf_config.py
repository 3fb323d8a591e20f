"""config.json files: what they say of a model, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infermax_gym.cost.roofline import (
    Experts,
    ModelShape,
    ShapeError,
    SlidingWindow,
    estimate,
    known_devices,
    known_models,
    shape_from_config,
)

DENSE = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
}


def read(folder: Path, **changes: Any) -> ModelShape:
    path = folder / "config.json"
    path.write_text(json.dumps({**DENSE, **changes}))
    return shape_from_config(path)


def test_a_dense_model(tmp_path: Path) -> None:
    assert read(tmp_path) == ModelShape("config", 4, 64, 8, 2, 8, 96, 100)
    assert read(tmp_path, head_dim=16, num_key_value_heads=None).head_dim == 16
    assert read(tmp_path, num_key_value_heads=None).num_kv_heads == 8
    assert read(tmp_path, tie_word_embeddings=True).tied_embeddings


def test_a_model_that_sees_pictures(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": DENSE, "vision_config": {"hidden_size": 7}}))
    assert shape_from_config(path) == ModelShape("config", 4, 64, 8, 2, 8, 96, 100)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Mixtral: experts as wide as the MLP it has not.
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, Experts(8, 2, 96, 0, 4)),
        # Qwen3: width of its own, every second layer.
        (
            {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 2},
            Experts(8, 2, 16, 0, 2),
        ),
        (
            {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "mlp_only_layers": [0]},
            Experts(8, 2, 16, 0, 3),
        ),
        # GLM: a dense layer first, a shared expert.
        (
            {
                "n_routed_experts": 8,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 16,
                "n_shared_experts": 1,
                "first_k_dense_replace": 1,
            },
            Experts(8, 2, 16, 16, 3),
        ),
        # gpt-oss has both names.
        ({"num_local_experts": 4, "experts_per_token": 2}, Experts(4, 2, 96, 0, 4)),
    ],
)
def test_experts(tmp_path: Path, changes: dict[str, Any], expected: Experts) -> None:
    assert read(tmp_path, **changes).experts == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": 32}, SlidingWindow(32, 4)),
        ({"sliding_window": None}, None),
        ({"sliding_window": 32, "use_sliding_window": False}, None),
        ({"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 3}, SlidingWindow(32, 1)),
        ({"sliding_window": 32, "sliding_window_pattern": 2}, SlidingWindow(32, 2)),
        ({"sliding_window": 32, "layer_types": ["full_attention"] * 4}, None),
        (
            {"sliding_window": 32, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
            SlidingWindow(32, 3),
        ),
    ],
)
def test_windows(tmp_path: Path, changes: dict[str, Any], expected: SlidingWindow | None) -> None:
    assert read(tmp_path, **changes).window == expected


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        (None, "bf16"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8}}},
            },
            "fp8",
        ),
        ({"quant_method": "something"}, None),
        ([], None),
    ],
)
def test_weights(tmp_path: Path, quantization: Any, expected: str | None) -> None:
    assert read(tmp_path, quantization_config=quantization).weights == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no JSON"),
        ("\udcff", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "must hold an object"),
        ("{}", "needs a whole number num_hidden_layers, got None"),
        (json.dumps({**DENSE, "hidden_size": 64.0}), "needs a whole number hidden_size, got 64.0"),
        (json.dumps({**DENSE, "hidden_size": True}), "needs a whole number hidden_size, got True"),
        (json.dumps({**DENSE, "hidden_size": -64}), "head_dim must be at least 1|hidden_size must be at least 1"),
        (json.dumps({**DENSE, "vocab_size": 10**12}), "vocab_size must be at most 10,000,000"),
        (json.dumps({**DENSE, "num_attention_heads": 0}), "num_heads must be at least 1"),
        (json.dumps({**DENSE, "num_key_value_heads": 3}), "8 query heads cannot share 3 key heads"),
        (json.dumps({**DENSE, "kv_lora_rank": 512}), "kv_lora_rank is set: multi-head latent attention"),
        (json.dumps({**DENSE, "layer_types": ["linear_attention"]}), "layer_types has 'linear_attention'"),
        (json.dumps({**DENSE, "num_experts": 4, "num_experts_per_tok": 5}), "cannot wake 5 of 4 experts"),
        (json.dumps({**DENSE, "num_experts": 4}), "needs a whole number num_experts_per_tok, got None"),
    ],
)
def test_unusable_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ShapeError, match=message) as error:
        shape_from_config(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["nowhere.json", ".", "a\0b"])
def test_files_that_cannot_be_read(path: str) -> None:
    with pytest.raises(ShapeError):
        shape_from_config(path)


KEYS = (
    *DENSE,
    "head_dim",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_shared_experts",
    "first_k_dense_replace",
    "decoder_sparse_step",
    "mlp_only_layers",
    "sliding_window",
    "sliding_window_pattern",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "quantization_config",
    "tie_word_embeddings",
    "text_config",
)
SIZES = st.sampled_from([0, 1, 2, 3, 4, 8, 64, 128, 4096, 10**7, 10**30, -1])
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), SIZES, st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), st.one_of(SIZES, ANYTHING), max_size=8),
    device=st.sampled_from(["h100", "rtx-4090", "mi300x", "gaudi3"]),
    num_devices=st.sampled_from([1, 2, 3, 8, 16]),
)
def test_any_content_is_a_cost_or_one_line(
    tmp_path: Path, changes: dict[str, Any], device: str, num_devices: int
) -> None:
    try:
        shape = read(tmp_path, **changes)
        found = estimate(shape, known_devices()[device], num_devices)
    except ShapeError as error:
        assert "\n" not in str(error)
        return
    assert found.memory.num_kv_tokens >= 16


def test_known_models_have_their_published_sizes() -> None:
    models = known_models()
    published = {
        "llama-3.1-8b": 8.03,
        "llama-3.1-70b": 70.55,
        "llama-3.1-405b": 405.8,
        "llama-3.2-1b": 1.236,
        "qwen3-32b": 32.76,
        "qwen3-30b-a3b": 30.5,
        "qwen3-235b-a22b": 235.1,
        "gpt-oss-20b": 20.9,
        "gpt-oss-120b": 116.8,
        "mixtral-8x7b": 46.7,
        "mixtral-8x22b": 140.6,
        "glm-4.5-air": 106.9,
    }
    for name, billions in published.items():
        assert models[name].num_weights / 1e9 == pytest.approx(billions, rel=0.003), name
    assert models["llama-3.1-8b"].kv_bytes_per_token == 131_072
    assert all(name == shape.name for name, shape in models.items())
