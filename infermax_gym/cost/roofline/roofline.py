"""A cost model and a KV capacity from a model's shape and a device's data sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from infermax_gym.cost.model import CostModel
from infermax_gym.cost.roofline.devices import Device, DeviceError, all_reduce_of, efficiency_of
from infermax_gym.cost.roofline.memory import GPU_MEMORY_UTILIZATION, EngineSizes, Memory, engine_sizes, memory_of
from infermax_gym.cost.roofline.number_formats import KV_BYTES, WEIGHTS
from infermax_gym.cost.roofline.parts import Part, Setting, parts_of
from infermax_gym.cost.roofline.shapes import ModelShape


@dataclass(frozen=True)
class Roofline:
    """What a model costs on devices that nobody measured it on.

    Attributes:
        name: MODEL@DEVICE[xN][/WEIGHTS].
        shape: the model.
        device: one of the devices.
        num_devices: devices that share the model (tensor parallel).
        weights: format of the weights.
        kv: format of the KV.
        parts: the parts of an iteration.
        cost: the same as a cost model.
        memory: what the memory holds.
        sizes: the engine's token budget, requests and share of the memory.
        assumed: what nobody measured on this device, and where the figure comes from.
    """

    name: str
    shape: ModelShape
    device: Device
    num_devices: int
    weights: str
    kv: str
    parts: tuple[Part, ...]
    cost: CostModel
    memory: Memory
    sizes: EngineSizes
    assumed: Mapping[str, str]


def estimate(
    shape: ModelShape,
    device: Device,
    num_devices: int = 1,
    *,
    weights: str | None = None,
    kv: str = "bf16",
    gpu_memory_utilization: float = GPU_MEMORY_UTILIZATION,
    max_num_batched_tokens: int | None = None,
    max_num_seqs: int | None = None,
) -> Roofline:
    """Cost and capacity of a model on devices.

    Args:
        shape: the model.
        device: the device.
        num_devices: how many share the model (tensor parallel).
        weights: format of the weights, a key of `WEIGHTS`; the checkpoint's own by default.
        kv: format of the KV, a key of `KV_BYTES`.
        gpu_memory_utilization: share of the memory that the engine may take.
        max_num_batched_tokens: token budget, which activations grow with; vLLM's for the device by default.
        max_num_seqs: most requests running at once; vLLM's for the device by default.

    Raises:
        ShapeError: the model does not fit into memory, does not divide among the devices, or something is unknown.

    Example:
        >>> from infermax_gym.cost.roofline import estimate, known_devices, known_models
        >>> found = estimate(known_models()["llama-3.1-8b"], known_devices()["h100"])
        >>> round(1000 * found.cost.seconds(decodes=[1000]), 1)
        6.3
    """
    weights = _weights(shape, weights)
    if kv not in KV_BYTES:
        raise DeviceError(f"KV format {kv!r} is unknown; known are {', '.join(KV_BYTES)}")
    if not (math.isfinite(gpu_memory_utilization) and 0.0 < gpu_memory_utilization <= 1.0):
        raise DeviceError(f"gpu_memory_utilization must be above 0 and at most 1, got {gpu_memory_utilization:g}")
    _check_division(shape, num_devices)
    all_reduce = all_reduce_of(device, num_devices) if num_devices > 1 else None
    sizes = engine_sizes(device, gpu_memory_utilization, max_num_batched_tokens, max_num_seqs)
    memory = memory_of(shape, device, num_devices, weights, kv, sizes)
    efficiency = efficiency_of(device)
    most_kv_tokens = int(memory.total_gib * 2**30 / (shape.num_layers * shape.kv_numbers_per_token_and_layer))
    setting = Setting(shape, device, efficiency, all_reduce, num_devices, weights, kv, most_kv_tokens)
    parts = parts_of(setting)
    assumed = dict(efficiency.assumed)
    if all_reduce is not None and all_reduce.assumed:
        assumed["all_reduce"] = all_reduce.assumed
    name = _name(shape, device, num_devices, weights)
    return Roofline(
        name, shape, device, num_devices, weights, kv, parts, _cost(name, parts, num_devices), memory, sizes, assumed
    )


def _weights(shape: ModelShape, weights: str | None) -> str:
    chosen = weights or shape.weights
    if chosen is None:
        raise DeviceError(
            f"{shape.name}: its quantization_config is not known; say which of {', '.join(WEIGHTS)} it is"
        )
    if chosen not in WEIGHTS:
        raise DeviceError(f"weights {chosen!r} are unknown; known are {', '.join(WEIGHTS)}")
    return chosen


def _check_division(shape: ModelShape, num_devices: int) -> None:
    if num_devices < 1:
        raise DeviceError(f"{num_devices} devices: needs at least one")
    if shape.num_heads % num_devices:
        raise DeviceError(f"{shape.name}: {shape.num_heads} query heads do not divide among {num_devices} devices")
    if shape.num_kv_heads % num_devices and num_devices % shape.num_kv_heads:
        raise DeviceError(f"{shape.name}: {shape.num_kv_heads} key heads do not divide among {num_devices} devices")
    experts = shape.experts
    widths = [shape.intermediate_size] if experts is None or experts.num_layers < shape.num_layers else []
    widths += [] if experts is None else [experts.intermediate_size]
    for width in widths:
        if width % num_devices:
            raise DeviceError(f"{shape.name}: an MLP of {width} does not divide among {num_devices} devices")


def _name(shape: ModelShape, device: Device, num_devices: int, weights: str) -> str:
    name = f"{shape.name}@{device.name}" + (f"x{num_devices}" if num_devices > 1 else "")
    return name if weights == shape.weights else f"{name}/{weights}"


def _cost(name: str, parts: tuple[Part, ...], num_devices: int) -> CostModel:
    """The parts as one model; parts without any weight in them are left out."""
    largest = [part.term for part in parts if not part.concave and any(map(any, part.term))]
    smallest = [part.term for part in parts if part.concave and any(map(any, part.term))]
    merged = _merged(largest)
    source = "roofline: data sheet and measured efficiencies (docs/roofline.md)"
    return CostModel(name=name, terms=merged, min_terms=tuple(smallest), num_devices=num_devices, source=source)


def _merged(terms: list[tuple[tuple[float, ...], ...]]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Terms of one form added up into one, since every term costs the simulator time."""
    alone = [term[0] for term in terms if len(term) == 1]
    total = tuple(sum(values) for values in zip(*alone, strict=True))
    return (((total,),) if alone else ()) + tuple(term for term in terms if len(term) > 1)
