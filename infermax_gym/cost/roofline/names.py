"""Names of engines, MODEL@DEVICE[xN][/WEIGHTS], and what they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from infermax_gym.cost.roofline.devices import Device, DeviceError, known_devices
from infermax_gym.cost.roofline.models import known_models
from infermax_gym.cost.roofline.number_formats import WEIGHTS
from infermax_gym.cost.roofline.shapes import ModelShape


@dataclass(frozen=True)
class RooflineName:
    """An engine's name, taken apart.

    Attributes:
        shape: the model.
        device: the device.
        num_devices: how many share the model.
        weights: format of the weights, or None for the checkpoint's own.
    """

    shape: ModelShape
    device: Device
    num_devices: int
    weights: str | None


def parse_name(name: str) -> RooflineName:
    """Take MODEL@DEVICE[xN][/WEIGHTS] apart.

    Raises:
        ShapeError: a part is missing or unknown; the line has the closest name.
    """
    model, at, rest = name.partition("@")
    if not (model and at and rest):
        raise DeviceError(f"{name!r} is no MODEL@DEVICE[xN], such as llama-3.1-8b@h100 or qwen3-32b@h100x2/fp8")
    device, *formats = rest.split("/")
    if len(formats) > 1 or (formats and formats[0] not in WEIGHTS):
        raise DeviceError(f"{name!r}: after / comes how weights are held, one of {', '.join(WEIGHTS)}")
    found, num_devices = parse_devices(device)
    return RooflineName(model_named(model), found, num_devices, formats[0] if formats else None)


def model_named(name: str) -> ModelShape:
    """The model of a name.

    Raises:
        ShapeError: there is none; the line has the closest one.
    """
    models = known_models()
    if name not in models:
        raise DeviceError(f"unknown model {name!r}{_closest(name, models)}; or give its config.json")
    return models[name]


def parse_devices(text: str) -> tuple[Device, int]:
    """The device and how many of it: `h100x2` is two, `h100` one, `mi300xx8` or `mi300x8` eight of `mi300x`.

    Raises:
        DeviceError: there is no such device; the line has the closest one.
    """
    devices = known_devices()
    if text in devices:
        return devices[text], 1
    counted = re.fullmatch(r"(.+)x([0-9]{1,4})", text)
    if counted:
        for name in (counted.group(1), counted.group(1) + "x"):
            if name in devices:
                return devices[name], int(counted.group(2))
    name = counted.group(1) if counted else text
    raise DeviceError(f"unknown device {name!r}{_closest(name, devices)}; `infermax list devices` shows all")


def _closest(name: str, known: dict[str, ModelShape] | dict[str, Device]) -> str:
    close = get_close_matches(name.lower(), list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""
