"""GPUs: what their data sheets say, and which share of it was measured to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields

from infermax_gym.cost.roofline.shapes import ShapeError
from infermax_gym.cost.roofline.tables import table

_OF_SOME_KERNELS = ("prefill_walk_us", "mixed_decode_factor_per_head")
_ALL_REDUCE_SIZES = (2, 4, 8)
# Engines on H100 and B200 show 8 to 12 us for an all-reduce that takes 5 to 7 alone: devices wait for each other.
_WAIT_S = 4e-6


class DeviceError(ShapeError):
    """A device cannot be used so; one line that says why."""


@dataclass(frozen=True)
class Device:
    """A GPU as its data sheet has it; None where that is silent.

    Attributes:
        name: short name.
        family: its architecture.
        link: "nvlink", "fabric" (AMD's) or "pcie", what joins GPUs of one machine.
        dense_16bit_tflops: tensor TFLOP/s in bf16 (fp16 where there is no bf16), without sparsity.
        dense_fp8_tflops: the same in fp8.
        dense_fp4_tflops: the same in fp4.
        memory_tb_per_s: memory bandwidth in 10^12 bytes/s.
        memory_gib: memory in GiB.
        link_gb_per_s: bandwidth to other GPUs, one way, in 10^9 bytes/s.
        source: where the figures are from.
    """

    name: str
    family: str
    link: str | None
    dense_16bit_tflops: float
    dense_fp8_tflops: float | None
    dense_fp4_tflops: float | None
    memory_tb_per_s: float
    memory_gib: float
    link_gb_per_s: float | None
    source: str


@dataclass(frozen=True)
class Efficiency:
    """What of a data sheet is reached, and the floors that no size goes below.

    Attributes:
        memory_share: of the bandwidth, by GEMMs of 64 tokens and fewer.
        compute_share_16bit: of the TFLOP/s, by a 16-bit GEMM of 2,048 tokens.
        compute_share_8bit: the same for fp8 and fp4.
        sustained_share: a whole model's GEMM rate over that of one GEMM alone (clocks fall under load).
        decode_share: of the bandwidth, by decode attention.
        prefill_share: of the 16-bit TFLOP/s, by causal attention of long prompts.
        prefill_walk_us: microseconds that a block of queries takes to walk through 1,024 tokens of context, which
            bounds a short chunk behind a long context.
        attention_floor_us: microseconds of an attention kernel with next to no work.
        layer_floor_us: microseconds of a layer's small kernels (norms, rotary embedding, activation) together.
        expert_floor_us: microseconds that routing, sorting and combining add to a layer with experts.
        mixed_decode_factor_per_head: how much longer decodes' KV reads take beside prefills, in one kernel that does
            not read them once for the query heads of a key head: for each of these heads.
        assumed: fields that nobody measured on this device, each with where its figure comes from.
    """

    memory_share: float
    compute_share_16bit: float
    compute_share_8bit: float
    sustained_share: float
    decode_share: float
    prefill_share: float
    prefill_walk_us: float
    attention_floor_us: float
    layer_floor_us: float
    expert_floor_us: float
    mixed_decode_factor_per_head: float
    assumed: Mapping[str, str]


@dataclass(frozen=True)
class AllReduce:
    """The sum over the GPUs of a tensor-parallel group.

    Attributes:
        latency_s: seconds of a short message within a step.
        seconds_per_byte: what each byte of the message adds.
        assumed: where the figures come from if nobody measured them on this device, else "".
    """

    latency_s: float
    seconds_per_byte: float
    assumed: str


def known_devices() -> dict[str, Device]:
    """Every device by name."""
    return {line["name"]: _device(line) for line in table("devices.csv")}


def _device(line: Mapping[str, str]) -> Device:
    def number(name: str) -> float | None:
        return float(line[name]) if line[name] else None

    return Device(
        line["name"],
        line["family"],
        line["link"] or None,
        float(line["dense_16bit_tflops"]),
        number("dense_fp8_tflops"),
        number("dense_fp4_tflops"),
        float(line["memory_tb_per_s"]),
        float(line["memory_gib"]),
        number("link_gb_per_s"),
        line["source"],
    )


def efficiency_of(device: Device) -> Efficiency:
    """Measured shares where they are known, else the median of the device's family, else of all devices.

    The walk and what decodes beside prefills take are properties of some kernels: nothing where they were not measured.
    """
    devices = known_devices()
    values: dict[str, float] = {}
    assumed: dict[str, str] = {}
    for name in (field.name for field in fields(Efficiency) if field.name != "assumed"):
        measured = {line["device"]: float(line[name]) for line in table("efficiencies.csv") if line[name]}
        family = [value for other, value in measured.items() if devices[other].family == device.family]
        if device.name in measured:
            values[name] = measured[device.name]
        elif name in _OF_SOME_KERNELS:
            values[name], assumed[name] = 0.0, "taken as none"
        elif family:
            values[name], assumed[name] = statistics.median(family), f"median of {device.family}"
        else:
            values[name], assumed[name] = statistics.median(measured.values()), "median of all measured"
    return Efficiency(**values, assumed=assumed)


def all_reduce_of(device: Device, num_devices: int) -> AllReduce:
    """What a sum over so many of these devices costs; group sizes between the measured ones take the next larger.

    A byte of the message crosses a link 2 (n - 1) / n times.

    Raises:
        DeviceError: the link is not known, or there are more devices than were measured.
    """
    if device.link_gb_per_s is None or device.link is None:
        raise DeviceError(f"{device.name}: its bandwidth between devices is not known, so it runs on one device only")
    if num_devices > _ALL_REDUCE_SIZES[-1]:
        raise DeviceError(f"{num_devices} devices: at most {_ALL_REDUCE_SIZES[-1]} of one machine share a model here")
    size = next(size for size in _ALL_REDUCE_SIZES if size >= num_devices)
    lines = [line for line in table("all_reduce.csv") if int(line["num_devices"]) == size]
    own = [line for line in lines if line["device"] == device.name]
    kind = "pcie" if device.link == "pcie" else "nvlink"
    devices = known_devices()
    alike = own or [line for line in lines if devices[line["device"]].link == kind]
    latency_us = statistics.median(float(line["latency_us"]) for line in alike)
    share = statistics.median(float(line["link_share"]) for line in alike)
    crossings = 2.0 * (num_devices - 1) / num_devices
    assumed = "" if own else f"median of devices with {kind}"
    return AllReduce(latency_us * 1e-6 + _WAIT_S, crossings / (share * device.link_gb_per_s * 1e9), assumed)
