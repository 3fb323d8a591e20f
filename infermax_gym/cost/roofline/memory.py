"""What is left for KV beside the weights, as vLLM divides a GPU's memory."""

from __future__ import annotations

from dataclasses import dataclass

from infermax_gym.cost.roofline.devices import Device, DeviceError
from infermax_gym.cost.roofline.number_formats import KV_BYTES, WEIGHTS
from infermax_gym.cost.roofline.shapes import ModelShape

GPU_MEMORY_UTILIZATION = 0.92
"""vLLM's default since 0.20."""

BLOCK_SIZE = 16
_GIB = 2.0**30
# Activations of a step, for a token budget of 8,192 (they grow with it), and what else a GPU of a group holds. The
# figures are those of BLIS (inference-sim), the proportion to the budget is ours: it gives an RTX 4090 with
# Llama-3.1-8B 38,240 KV tokens at a utilization of 0.90, where vLLM 0.19 reports 41,408.
_ACTIVATIONS_GIB = {"dense": 5.5, "experts": 8.0}
_ACTIVATIONS_BUDGET = 8192
_OTHER_ALONE_GIB = 0.15
_OTHER_IN_GROUP_GIB = 0.6


@dataclass(frozen=True)
class EngineSizes:
    """What vLLM sets by itself, unless it is told.

    Attributes:
        gpu_memory_utilization: share of a GPU's memory that the engine may take.
        max_num_batched_tokens: token budget of an iteration.
        max_num_seqs: most requests running at once.
    """

    gpu_memory_utilization: float
    max_num_batched_tokens: int
    max_num_seqs: int


@dataclass(frozen=True)
class Memory:
    """A group's memory, in GiB over all its devices, and the KV tokens that fit.

    Attributes:
        total_gib: of all devices.
        weights_gib: the model.
        other_gib: activations and what else the engine holds.
        kv_gib: left for KV.
        num_kv_tokens: tokens that fit, whole blocks.
    """

    total_gib: float
    weights_gib: float
    other_gib: float
    kv_gib: float
    num_kv_tokens: int


def engine_sizes(
    device: Device, gpu_memory_utilization: float, max_num_batched_tokens: int | None, max_num_seqs: int | None
) -> EngineSizes:
    """The defaults of vLLM: large devices get a budget of 8,192 tokens and 1,024 requests, others 2,048 and 256."""
    large = device.memory_gib >= 70.0 and not device.name.startswith("a100")
    tokens, seqs = (8192, 1024) if large else (2048, 256)
    return EngineSizes(gpu_memory_utilization, max_num_batched_tokens or tokens, max_num_seqs or seqs)


def weight_bytes(shape: ModelShape, weights: str) -> float:
    """Bytes of a model's weights over all devices."""
    kind = WEIGHTS[weights]
    ends = shape.num_head_weights * (1 if shape.tied_embeddings else 2)
    common = shape.num_attention_weights + shape.num_mlp_weights
    common_bytes = 2.0 if kind.experts_only and shape.experts is not None else kind.bytes
    return 2.0 * ends + common_bytes * common + kind.bytes * shape.num_expert_weights


def memory_of(shape: ModelShape, device: Device, num_devices: int, weights: str, kv: str, sizes: EngineSizes) -> Memory:
    """Divide the memory of a group.

    Raises:
        DeviceError: the weights leave no room for one block of KV.
    """
    weights_gib = weight_bytes(shape, weights) / _GIB
    activations = _ACTIVATIONS_GIB["dense" if shape.experts is None else "experts"]
    other = activations * sizes.max_num_batched_tokens / _ACTIVATIONS_BUDGET
    other += _OTHER_ALONE_GIB if num_devices == 1 else _OTHER_IN_GROUP_GIB * num_devices
    total = device.memory_gib * num_devices
    left = total * sizes.gpu_memory_utilization - weights_gib - other
    tokens = _tokens(shape, num_devices, kv, left * _GIB, sizes.max_num_seqs)
    if tokens < BLOCK_SIZE:
        raise DeviceError(
            f"{shape.name}: {weights_gib:.1f} GiB of {weights} weights and {other:.1f} GiB of activations leave no "
            f"room for KV on {num_devices} x {device.name} ({sizes.gpu_memory_utilization:g} of {total:g} GiB); "
            f"take more devices or smaller weights"
        )
    return Memory(total, weights_gib, other, left, tokens)


def _tokens(shape: ModelShape, num_devices: int, kv: str, num_bytes: float, max_num_seqs: int) -> int:
    """KV tokens in so many bytes; layers with a window keep no more than that of each running request."""
    copies = max(1, num_devices // shape.num_kv_heads)
    per_layer = shape.kv_numbers_per_token_and_layer * KV_BYTES[kv] * copies
    tokens = num_bytes / (per_layer * shape.num_layers)
    window = shape.window
    if window is not None and window.num_layers < shape.num_layers:
        apart = num_bytes - per_layer * window.num_layers * window.num_tokens * max_num_seqs
        tokens = max(tokens, apart / (per_layer * (shape.num_layers - window.num_layers)))
    return max(0, int(tokens) // BLOCK_SIZE * BLOCK_SIZE)
