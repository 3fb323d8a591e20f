"""Number formats of weights and KV: bytes of a number, and the rate that its products run at."""

from __future__ import annotations

from dataclasses import dataclass

from infermax_gym.cost.roofline.devices import Device, Efficiency


@dataclass(frozen=True)
class WeightFormat:
    """How weights are held.

    Attributes:
        bytes: of a weight, its share of the scales included.
        products: "16bit", "fp8" or "fp4": the format of the products where the device has it, else 16 bits.
        experts_only: attention and shared MLPs stay in 16 bits where the model has experts.
    """

    bytes: float
    products: str
    experts_only: bool = False


WEIGHTS: dict[str, WeightFormat] = {
    "bf16": WeightFormat(2.0, "16bit"),
    "fp8": WeightFormat(1.0, "fp8"),
    "int8": WeightFormat(1.0, "16bit"),
    "int4": WeightFormat(0.53, "16bit"),  # a 16-bit scale and a zero for 128 weights
    "fp4": WeightFormat(0.5625, "fp4"),  # an 8-bit scale for 16 weights
    "mxfp4": WeightFormat(0.53125, "16bit", experts_only=True),  # an 8-bit scale for 32 weights
}
"""Formats of weights by name; embedding and output head stay in 16 bits."""

KV_BYTES: dict[str, float] = {"bf16": 2.0, "fp8": 1.0}
"""Bytes of a key or a value by format."""


def flops_per_s(device: Device, efficiency: Efficiency, weights: WeightFormat) -> float:
    """FLOP/s that a large GEMM of a whole model sustains with these weights."""
    peaks = {"fp8": device.dense_fp8_tflops, "fp4": device.dense_fp4_tflops}
    peak = peaks.get(weights.products)
    share = efficiency.compute_share_16bit if peak is None else efficiency.compute_share_8bit
    return (peak or device.dense_16bit_tflops) * 1e12 * share * efficiency.sustained_share
