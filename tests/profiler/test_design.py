"""Batches to measure: possible ones, with the features that the engine counts."""

from __future__ import annotations

import pytest

from infermax_gym.cost.features import FEATURE_NAMES
from infermax_gym.profiler import Limits, ModelShape, ShapeError, dense_shapes, design
from infermax_gym.profiler.design import Batch
from infermax_gym.profiler.shapes import shape_from_config

LIMITS = Limits(2_048, 64, 50_000)


def test_every_batch_is_possible_and_every_feature_is_seen() -> None:
    batches = design(LIMITS, num_random=30)
    assert len(batches) == len(design(LIMITS)) + 30
    assert all(LIMITS.allow(batch) for batch in batches)
    assert {batch.kind for batch in batches} == {"decode", "prefill", "mixed"}
    for k, name in enumerate(FEATURE_NAMES[1:], 1):
        assert len({batch.features[k] for batch in batches}) > 1, f"{name} never changes"


def test_random_batches_are_the_same_for_a_seed() -> None:
    assert design(LIMITS, 9, seed=1) == design(LIMITS, 9, seed=1) != design(LIMITS, 9, seed=2)


def test_features_are_those_of_the_cost_model() -> None:
    batch = Batch(2, 10, 100, 3, 50)
    assert batch.features == (1, 23, 1, 2 * (10**2 + 2 * 10 * 100), 2, 200, 1, 150, 3)
    assert batch.num_kv_tokens == 2 * 110 + 3 * 51


def test_sizes_of_a_model() -> None:
    llama = dense_shapes()["llama-3.1-8b"]
    assert llama.kv_bytes_per_token == 131_072
    assert llama.num_weights == pytest.approx(8.03e9, rel=0.001)


def test_a_config_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "config.json"
    file.write_text(
        '{"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 4, "intermediate_size": 16, "vocab_size": 9}'
    )
    assert shape_from_config(file) == ModelShape("config", 2, 8, 4, 4, 2, 16, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is no JSON"),
        ("[]", "must hold an object"),
        ("{}", "needs a whole number num_hidden_layers, got None"),
        (
            '{"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 4, "intermediate_size": 16,'
            ' "vocab_size": 9, "num_local_experts": 8, "num_experts_per_tok": 2}',
            "only dense models",
        ),
        (
            '{"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 3, "num_key_value_heads": 2,'
            ' "intermediate_size": 16, "vocab_size": 9}',
            "3 query heads cannot share 2 key heads evenly",
        ),
    ],
)
def test_unusable_configs(tmp_path, text: str, message: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ShapeError, match=message):
        shape_from_config(file)


def test_a_missing_config_file() -> None:
    with pytest.raises(ShapeError, match="cannot be read"):
        shape_from_config("nowhere.json")
