"""Hugging Face's config.json of a model, read into a shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infermax_gym import files
from infermax_gym.cost.roofline.shapes import Experts, ModelShape, ShapeError, SlidingWindow

_OTHER_ATTENTION = {
    "kv_lora_rank": "multi-head latent attention",
    "ssm_state_size": "a state-space model",
    "mamba_d_state": "a state-space model",
    "linear_num_key_heads": "linear attention",
    "full_attention_interval": "linear attention",
    "attn_layer_indices": "a state-space model",
    "is_encoder_decoder": "an encoder",
}
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def shape_from_config(path: str | Path) -> ModelShape:
    """The shape that a config.json describes: dense or with experts, with or without a sliding window.

    A model that also sees pictures is taken by its `text_config`.

    Raises:
        ShapeError: the file is missing, no JSON, lacks a size, or describes attention that is not grouped-query (such
            as multi-head latent attention); one line.
    """
    try:
        config = json.loads(files.read_text(path))
    except OSError as error:
        raise ShapeError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ShapeError(f"{path}: is no JSON ({error})") from None
    if not isinstance(config, Mapping):
        raise ShapeError(f"{path}: must hold an object, as config.json of a model does")
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = {"quantization_config": config.get("quantization_config"), **text}
    return _Reader(str(path), config).shape()


class _Reader:
    """Looks sizes up and says which one is missing."""

    def __init__(self, where: str, config: Mapping[str, Any]) -> None:
        self.where = where
        self.config = config

    def size(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool):
            raise ShapeError(f"{self.where}: needs a whole number {key}, got {_short(value)}")
        return value

    def shape(self) -> ModelShape:
        for key, what in _OTHER_ATTENTION.items():
            if self.config.get(key):
                raise ShapeError(f"{self.where}: {key} is set: {what}, which this cost model does not describe")
        num_layers = self.size("num_hidden_layers")
        hidden_size, num_heads = self.size("hidden_size"), self.size("num_attention_heads")
        experts = self.experts(num_layers)
        wide = self.size("intermediate_size", experts.intermediate_size if experts else None)
        return ModelShape(
            Path(self.where).stem,
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=self.size("num_key_value_heads", num_heads),
            head_dim=self.size("head_dim", hidden_size // max(num_heads, 1)),
            intermediate_size=wide,
            vocab_size=self.size("vocab_size"),
            experts=experts,
            window=self.window(num_layers),
            tied_embeddings=self.config.get("tie_word_embeddings") is True,
            weights=weights_of(self.config.get("quantization_config")),
        )

    def experts(self, num_layers: int) -> Experts | None:
        key = next((key for key in _EXPERT_COUNTS if self.config.get(key)), None)
        if key is None or self.size(key) == 1:
            return None
        size = self.size("moe_intermediate_size", self.config.get("intermediate_size"))
        shared = self.size("shared_expert_intermediate_size", self.size("n_shared_experts", 0) * size)
        num_expert_layers = self.expert_layers(num_layers)
        if num_expert_layers == 0:
            return None
        top = self.size("num_experts_per_tok", self.config.get("experts_per_token"))
        return Experts(self.size(key), top, size, shared, num_expert_layers)

    def expert_layers(self, num_layers: int) -> int:
        """Layers with experts: all, all but the first few, or every n-th."""
        first = self.size("first_k_dense_replace", 0)
        step = max(self.size("decoder_sparse_step", 1), self.size("interleave_moe_layer_step", 1), 1)
        dense = self.config.get("mlp_only_layers")
        dense = dense if isinstance(dense, list) else []
        return max(0, (num_layers - max(first, 0)) // step - len(dense))

    def window(self, num_layers: int) -> SlidingWindow | None:
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list):
            others = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
            if others:
                raise ShapeError(f"{self.where}: layer_types has {_short(others[0])}, which this cost model lacks")
            count = kinds.count("sliding_attention")
        elif self.config.get("sliding_window") is None or self.config.get("use_sliding_window") is False:
            count = 0
        elif self.config.get("sliding_window_pattern") is not None:
            count = num_layers - num_layers // max(self.size("sliding_window_pattern"), 1)
        else:
            first = self.size("max_window_layers", 0) if self.config.get("use_sliding_window") else 0
            count = max(0, num_layers - first)
        return SlidingWindow(self.size("sliding_window"), count) if count else None


def weights_of(quantization: Any) -> str | None:
    """How a checkpoint holds its weights, from its `quantization_config`; None if it has one that is not known."""
    if quantization is None:
        return "bf16"
    if not isinstance(quantization, Mapping):
        return None
    method, bits = quantization.get("quant_method"), quantization.get("bits")
    algorithm = str(quantization.get("quant_algo") or "").lower()
    if method in ("fp8", "fbgemm_fp8") or (method == "modelopt" and algorithm == "fp8"):
        return "fp8"
    if method == "mxfp4":
        return "mxfp4"
    if algorithm == "nvfp4":
        return "fp4"
    if method in ("awq", "gptq"):
        return {4: "int4", 8: "int8"}.get(bits) if isinstance(bits, int) else None
    return _compressed(quantization) if method == "compressed-tensors" else None


def _compressed(quantization: Mapping[str, Any]) -> str | None:
    groups = quantization.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        return None
    known = {("float", 8): "fp8", ("float", 4): "fp4", ("int", 8): "int8", ("int", 4): "int4"}
    return known.get((str(weights.get("type")), weights["num_bits"])) if type(weights.get("num_bits")) is int else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
