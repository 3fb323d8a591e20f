"""What a dense decoder's layers look like: the sizes that its cost depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES_PER_NUMBER = 2
"""Weights and KV are held in 16 bits."""


class ShapeError(ValueError):
    """A model's configuration cannot be used; one line that says what is wrong."""


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated MLP.

    Attributes:
        name: short name.
        num_layers: decoder layers.
        hidden_size: width of the residual stream.
        num_heads: query heads.
        num_kv_heads: key and value heads; divides `num_heads`.
        head_dim: width of a head.
        intermediate_size: width of the MLP.
        vocab_size: entries of the output head.

    Raises:
        ShapeError: a size is below one, or the query heads do not share the key heads evenly.
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "name" and value < 1:
                raise ShapeError(f"model {self.name!r}: {name} must be at least 1, got {value}")
        if self.num_heads % self.num_kv_heads:
            raise ShapeError(
                f"model {self.name!r}: {self.num_heads} query heads cannot share {self.num_kv_heads} key heads evenly"
            )

    @property
    def num_weights(self) -> int:
        """Weights of all layers, the embedding and the output head."""
        attention = self.hidden_size * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        return self.num_layers * layer + 2 * self.vocab_size * self.hidden_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV that a token takes in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * BYTES_PER_NUMBER


SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape("tiny", 2, 64, 4, 2, 16, 128, 256),
        ModelShape("llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128_256),
        ModelShape("llama-3.1-8b", 32, 4096, 32, 8, 128, 14_336, 128_256),
        ModelShape("qwen3-8b", 36, 4096, 32, 8, 128, 12_288, 151_936),
        ModelShape("qwen3-32b", 64, 5120, 64, 8, 128, 25_600, 151_936),
    )
}
"""Shapes by name, from the models' published config.json files; `tiny` is for trying things."""

_KEYS = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "vocab_size": "vocab_size",
}


def shape_from_config(path: str | Path) -> ModelShape:
    """The shape that a Hugging Face config.json describes.

    Raises:
        ShapeError: the file is missing, no JSON, lacks a size, or describes a model that is not dense; one line.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ShapeError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ShapeError(f"{path}: is no JSON ({error})") from None
    if not isinstance(config, Mapping):
        raise ShapeError(f"{path}: must hold an object, as config.json of a model does")
    for key in ("num_experts", "num_local_experts", "n_routed_experts", "kv_lora_rank"):
        if config.get(key):
            raise ShapeError(f"{path}: {key} is set; only dense models with plain attention can be profiled")
    sizes = {name: _size(path, config, key) for name, key in _KEYS.items()}
    kv_heads = _size(path, config, "num_key_value_heads", sizes["num_heads"])
    head_dim = _size(path, config, "head_dim", sizes["hidden_size"] // max(sizes["num_heads"], 1))
    return ModelShape(Path(path).stem, num_kv_heads=kv_heads, head_dim=head_dim, **sizes)


def _size(path: str | Path, config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ShapeError(f"{path}: needs a whole number {key}, got {value!r}")
    return value
