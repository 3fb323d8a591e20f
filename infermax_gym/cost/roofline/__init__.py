"""Costs and KV capacities of models on GPUs that nobody measured them on: data sheets and measured efficiencies.

Reading order: `shapes` and `hf_config` (a model's sizes), `devices` (a GPU's figures), `parts` (the parts of an
iteration), `memory` (what is left for KV), `roofline` (all together), `names`. The facts are the CSV files here.
"""

from infermax_gym.cost.roofline.breakdown import BARS, Batch, Breakdown, breakdown
from infermax_gym.cost.roofline.devices import Device, DeviceError, known_devices
from infermax_gym.cost.roofline.hf_config import shape_from_config
from infermax_gym.cost.roofline.memory import BLOCK_SIZE, GPU_MEMORY_UTILIZATION
from infermax_gym.cost.roofline.models import known_models
from infermax_gym.cost.roofline.names import model_named, parse_devices, parse_name
from infermax_gym.cost.roofline.number_formats import KV_BYTES, WEIGHTS
from infermax_gym.cost.roofline.roofline import Roofline, estimate
from infermax_gym.cost.roofline.shapes import Experts, ModelShape, ShapeError, SlidingWindow

__all__ = [
    "BARS",
    "BLOCK_SIZE",
    "GPU_MEMORY_UTILIZATION",
    "KV_BYTES",
    "WEIGHTS",
    "Batch",
    "Breakdown",
    "Device",
    "DeviceError",
    "Experts",
    "ModelShape",
    "Roofline",
    "ShapeError",
    "SlidingWindow",
    "breakdown",
    "estimate",
    "known_devices",
    "known_models",
    "model_named",
    "parse_devices",
    "parse_name",
    "shape_from_config",
]
