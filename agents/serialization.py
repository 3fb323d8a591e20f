"""Policies and environments as JSON objects, read back strictly: unknown names and wrong types are errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.controller_layout import CONTROLLER_FEATURES, CONTROLLER_KNOBS, NUM_FEATURES, NUM_KNOBS
from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QUEUE_FEATURES, VICTIM_FEATURES
from infermax_gym.envs.scheduling.config import EnvConfig

if TYPE_CHECKING:
    from infermax_gym.agents.controller import Controller

INTERFACE = (
    "num_waiting_slots",
    "num_running_slots",
    "level_shares",
    "decide",
    "admit_within_budget",
    "information",
    "prediction_sigma",
    "block_size",
    "max_num_batched_tokens",
)
"""Settings of `EnvConfig` that a scorer's meaning depends on; `base` is stored beside them."""

_CONTROLLER: dict[str, Any] = {
    "interval_s": float,
    "estimates_lengths": bool,
    "classes": bool,
    "sigma": float | None,
    "prior": tuple[float, float, float],
}
"""Settings of `Controller` besides its weights, and their types."""


FORMERLY = {
    "row": "policy",
    "preempt_for_newcomer": "preempt_for_waiting",
    "num_levels": "mlfq_levels",
    "believes": "estimates_lengths",
    "late": "shed",
    "push_out": "preempt",
    "late_share": "missed_share",
    "seats": "max_num_seqs",
    "gate_inner": "gating_inner",
    "gate_outer": "gating_outer",
}
"""Words of cards with schema 1, and what they are called now."""


def modern_word(word: str) -> str:
    """A word of schema 1 in today's."""
    return FORMERLY.get(word, word)


def modern(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card of schema 1 in today's words: its kind, its keys, and the names of knobs and features in its lists."""

    def translated(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {modern_word(str(key)): translated(item) for key, item in value.items()}
        if isinstance(value, list):
            return [modern_word(item) if isinstance(item, str) else translated(item) for item in value]
        return value

    parts = {
        name: translated(card[name]) for name in ("policy", "controller", "interface", "observation") if name in card
    }
    return {**card, **parts, "kind": modern_word(str(card["kind"]))}


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """Every knob by name; choices by their names."""
    return {item.name: _plain(getattr(policy, item.name)) for item in fields(policy)}


def policy_from_json(record: Any) -> Policy:
    """The policy of `policy_to_json`; knobs and features that a record of an earlier version lacks have their defaults.

    Raises:
        ValueError: something is missing, unknown, of the wrong type or out of range.
    """
    kinds = get_type_hints(Policy)
    _same_names(record, kinds, "policy", optional=kinds.keys() - {"name"})
    knobs = {name: _knob(name, value, kinds[name]) for name, value in record.items()}
    for name, features in (("queue_weights", QUEUE_FEATURES), ("victim_weights", VICTIM_FEATURES)):
        if name in knobs:
            knobs[name] += (0.0,) * (len(features) - len(knobs[name]))
    return Policy(**knobs)


def interface_to_json(config: EnvConfig) -> dict[str, Any]:
    """What a scorer's meaning depends on."""
    return {**{name: _plain(getattr(config, name)) for name in INTERFACE}, "base": policy_to_json(config.base)}


def interface_from_json(record: Any) -> EnvConfig:
    """The environment of `interface_to_json`, with default ranges.

    Raises:
        ValueError: something is missing, unknown, of the wrong type or out of range.
    """
    kinds = {name: kind for name, kind in get_type_hints(EnvConfig).items() if name in INTERFACE}
    _same_names(record, (*INTERFACE, "base"), "interface")
    settings = {name: _knob(name, record[name], kinds[name]) for name in INTERFACE}
    return EnvConfig(**settings, base=policy_from_json(record["base"]))


def controller_to_json(controller: Controller) -> dict[str, Any]:
    """Everything but the weights, and the names of what they connect."""
    settings = {name: _plain(getattr(controller, name)) for name in _CONTROLLER}
    return {**settings, "knobs": list(CONTROLLER_KNOBS), "features": list(CONTROLLER_FEATURES)}


def controller_tensors(controller: Controller) -> dict[str, NDArray[np.float32]]:
    """The numbers of a controller, as they are stored."""
    tensors = {"weights": controller.weights}
    if controller.gating is not None:
        tensors |= {"gating_inner": controller.gating.inner, "gating_outer": controller.gating.outer}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in tensors.items()}


def controller_from_json(record: Any, tensors: Mapping[str, Any]) -> Controller:
    """The controller of `controller_to_json` and `controller_tensors`.

    Raises:
        ValueError: something is missing, unknown, of the wrong type, out of range, or made for other knobs or features.
    """
    from infermax_gym.agents.controller import Controller, GatingNetwork

    settings, weights, gating = controller_parts(record, tensors)
    return Controller(weights, gating=None if gating is None else GatingNetwork(*gating), **settings)


def controller_parts(
    record: Any, tensors: Mapping[str, Any]
) -> tuple[dict[str, Any], NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """What a controller is made of, without the code that runs it: its settings, its weights, its gating network's.

    Raises:
        ValueError: as `controller_from_json`.
    """
    _same_names(record, (*_CONTROLLER, "knobs", "features"), "controller")
    knobs, features = (_places(record[name], now, name) for name, now in _AXES)
    if set(tensors) not in ({"weights"}, {"weights", "gating_inner", "gating_outer"}):
        raise ValueError(_ANOTHER)
    weights = _spread(_spread(tensors["weights"], knobs, -2, NUM_KNOBS), features, -1, NUM_FEATURES)
    gating = None
    if "gating_inner" in tensors:
        inner = _spread(tensors["gating_inner"], features, -1, NUM_FEATURES)
        gating = (inner, np.asarray(tensors["gating_outer"], np.float64))
    settings = {name: _knob(name, record[name], kind) for name, kind in _CONTROLLER.items()}
    return settings, weights, gating


_ANOTHER = "holds weights of another network than its card says"


def _spread(array: Any, places: list[int], axis: int, size: int) -> NDArray[np.float64]:
    """The array with the entries along an axis in their places, zeros in all others."""
    if array.ndim < -axis or array.shape[axis] != len(places):
        raise ValueError(_ANOTHER)
    shape = list(array.shape)
    shape[axis] = size
    spread = np.zeros(shape)
    index: list[Any] = [slice(None)] * array.ndim
    index[axis] = places
    spread[tuple(index)] = array
    return spread


_AXES = (("knobs", CONTROLLER_KNOBS), ("features", CONTROLLER_FEATURES))


def _places(stored: Any, now: tuple[str, ...], what: str) -> list[int]:
    """Where stored knobs or features belong; what has been added since gets no weight."""
    if not isinstance(stored, list) or not set(stored) <= set(now):
        raise ValueError(f"was trained for other {what} than the {len(now)} of now; train it again")
    return [now.index(name) for name in stored]


def _plain(value: Any) -> Any:
    if isinstance(value, IntEnum):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def _same_names(record: Any, expected: Any, what: str, optional: Collection[str] = ()) -> None:
    if not isinstance(record, Mapping):
        raise ValueError(f"{what} must be an object")
    for name in expected:
        if name not in record and name not in optional:
            raise ValueError(f"{what} has no {name!r}")
    for name in record:
        if name not in expected:
            raise ValueError(f"{what} has an unknown entry {name!r}")


def _knob(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, which is a type of `Policy` or `EnvConfig`."""
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        if value not in kind.__members__:
            raise ValueError(f"{name} must be one of {', '.join(kind.__members__)}, got {value!r}")
        return kind[value]
    text = str(kind)
    if text.startswith("tuple"):
        if not isinstance(value, list) or not all(_is_number(item) for item in value):
            raise ValueError(f"{name} must be a list of numbers, got {value!r}")
        return tuple(float(item) for item in value)
    if value is None and "None" in text:
        return None
    if text == "float | None" and _is_number(value):
        return float(value)
    whole = kind is int or text.startswith("int")
    if whole and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and _is_number(value):
        return float(value)
    if (kind is str or "Literal" in text) and isinstance(value, str):
        return value
    raise ValueError(f"{name} must be of type {getattr(kind, '__name__', text)}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
