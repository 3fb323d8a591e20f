"""Selectors as JSON objects and weights, read back strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.outlook import FEATURES
from infermax_gym.agents.selector import Selector
from infermax_gym.agents.serialization import policy_from_json, policy_to_json
from infermax_gym.baselines.table.shares import Shares

_SETTINGS = ("interval", "memory", "margin")
_SHARES = ("prefill_efficiency", "decode_efficiency", "headroom")


def selector_to_json(selector: Selector) -> dict[str, Any]:
    """Everything but the weights, and the names of what they weigh."""
    settings = {name: getattr(selector, name) for name in _SETTINGS}
    return {**settings, "features": list(FEATURES), "experts": [_expert_to_json(one) for one in selector.experts]}


def selector_tensors(selector: Selector) -> dict[str, NDArray[np.float32]]:
    """The weights of a selector, as they are stored."""
    return {name: np.ascontiguousarray(getattr(selector, name), np.float32) for name in ("inner", "outer")}


def selector_from_json(record: Any, tensors: Mapping[str, Any]) -> Selector:
    """The selector of `selector_to_json` and `selector_tensors`.

    Raises:
        ValueError: something is missing, unknown, of the wrong type, out of range, or made for other features.
    """
    if not isinstance(record, Mapping) or set(record) != {*_SETTINGS, "features", "experts"}:
        raise ValueError(f"selector must be an object with {', '.join(_SETTINGS)}, features and experts")
    if record["features"] != list(FEATURES):
        raise ValueError(f"was trained for other features than the {len(FEATURES)} of now; train it again")
    if set(tensors) != {"inner", "outer"} or not isinstance(record["experts"], list):
        raise ValueError("holds weights or experts of another selector than its card says")
    settings = {name: _number(name, record[name]) for name in _SETTINGS}
    experts = tuple(_expert_from_json(one) for one in record["experts"])
    return Selector(experts, tensors["inner"], tensors["outer"], **settings)


def _expert_to_json(expert: Shares) -> dict[str, Any]:
    return {**{name: getattr(expert, name) for name in _SHARES}, "policy": policy_to_json(expert.base)}


def _expert_from_json(record: Any) -> Shares:
    if not isinstance(record, Mapping) or set(record) != {*_SHARES, "policy"}:
        raise ValueError(f"an expert must be an object with {', '.join(_SHARES)} and policy")
    shares: dict[str, Any] = {name: None if record[name] is None else _number(name, record[name]) for name in _SHARES}
    return Shares(policy_from_json(record["policy"]), **shares)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)
