"""Measure what an iteration costs: a model's layers with random weights, run on the batches that a fit needs.

Reading order: `shapes` (which models), `design` (which batches), `layers` (the layers in PyTorch),
`measure` (timing, and the file that comes out). torch is imported where it is used.
"""

from infermax_gym.profiler.design import Batch, Limits, design
from infermax_gym.profiler.shapes import ModelShape, ShapeError, dense_shapes

__all__ = ["Batch", "Limits", "ModelShape", "ShapeError", "dense_shapes", "design"]
