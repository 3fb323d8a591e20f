"""The shapes of models whose layers the profiler can run: dense decoders whose attention sees all tokens."""

from __future__ import annotations

from pathlib import Path

from infermax_gym.cost.roofline import ModelShape, ShapeError, known_models
from infermax_gym.cost.roofline import shape_from_config as any_shape_from_config

__all__ = ["ModelShape", "ShapeError", "dense_shapes", "shape_from_config"]


def dense_shapes() -> dict[str, ModelShape]:
    """Known dense models by name."""
    return {name: shape for name, shape in known_models().items() if shape.is_dense}


def shape_from_config(path: str | Path) -> ModelShape:
    """The shape that a Hugging Face config.json describes.

    Raises:
        ShapeError: the file is missing, no JSON, lacks a size, or describes a model that is not dense; one line.
    """
    shape = any_shape_from_config(path)
    if not shape.is_dense:
        raise ShapeError(f"{path}: only dense models with plain attention can be profiled")
    return shape
