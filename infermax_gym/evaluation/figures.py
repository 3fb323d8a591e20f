"""Figures are nested dictionaries of numbers, the way `summarize` and the JSON reports have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def flatten(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by path.

    Example:
        >>> flatten({"ttft_s": {"mean": 0.5}, "makespan_s": 3.0})
        {'ttft_s.mean': 0.5, 'makespan_s': 3.0}
    """
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def lookup(figures: Mapping[str, Any], path: str) -> Any:
    """The leaf at a dotted path, None where there is none.

    Example:
        >>> lookup({"ttft_s": {"mean": 0.5}}, "ttft_s.mean")
        0.5
    """
    value: Any = figures
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def sorted_names(policies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Policies by mean latency; those that finished the most requests come first."""

    def key(name: str) -> tuple[float, float, str]:
        latency = lookup(policies[name], "latency_s.mean")
        return -policies[name]["num_finished"], math.inf if latency is None else latency, name

    return sorted(policies, key=key)


def combine(many: Sequence[Mapping[str, Any]], function: Callable[[list[float]], float]) -> dict[str, Any]:
    """Join equally shaped figures leaf by leaf.

    A leaf is None if any of them is None or not a finite number. A result that all of several inputs agree on
    keeps its type, so counts stay whole numbers where they can.

    Example:
        >>> combine([{"n": 2, "t": {"mean": 1.0}}, {"n": 2, "t": {"mean": 3.0}}], lambda v: sum(v) / len(v))
        {'n': 2, 't': {'mean': 2.0}}
    """
    joined: dict[str, Any] = {}
    for name, first in many[0].items():
        values = [figures[name] for figures in many]
        if isinstance(first, Mapping):
            joined[name] = combine(values, function)
        else:
            joined[name] = _combine_leaf(values, function)
    return joined


def _combine_leaf(values: list[Any], function: Callable[[list[float]], float]) -> float | int | None:
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    result = function([float(value) for value in values])
    if not math.isfinite(result):
        return None
    return values[0] if result == values[0] else result
