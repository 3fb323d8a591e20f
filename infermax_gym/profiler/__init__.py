"""Measure what an iteration costs: a model's layers with random weights, run on the batches that a fit needs.

Reading order: `shapes` (what a model's layers look like), `design` (which batches), `layers` (the layers in PyTorch),
`measure` (timing, and the file that comes out). torch is imported where it is used.
"""

from infermax_gym.profiler.design import Batch, Limits, design
from infermax_gym.profiler.shapes import SHAPES, ModelShape, ShapeError

__all__ = ["SHAPES", "Batch", "Limits", "ModelShape", "ShapeError", "design"]
