"""Sizes of well-known models, from models.csv beside this file."""

from __future__ import annotations

from collections.abc import Mapping

from infermax_gym.cost.roofline.shapes import Experts, ModelShape, SlidingWindow
from infermax_gym.cost.roofline.tables import table


def known_models() -> dict[str, ModelShape]:
    """Every model by name."""
    return {line["name"]: _shape(line) for line in table("models.csv")}


def _shape(line: Mapping[str, str]) -> ModelShape:
    def size(name: str) -> int:
        return int(line[name])

    experts = window = None
    if line["num_experts"]:
        names = ("num_experts", "experts_per_token", "expert_size", "shared_size", "num_expert_layers")
        experts = Experts(*(size(name) for name in names))
    if line["window"]:
        window = SlidingWindow(size("window"), size("num_window_layers"))
    return ModelShape(
        line["name"],
        size("num_layers"),
        size("hidden_size"),
        size("num_heads"),
        size("num_kv_heads"),
        size("head_dim"),
        size("intermediate_size"),
        size("vocab_size"),
        experts,
        window,
        line["tied_embeddings"] == "1",
        line["weights"],
    )
