"""Policies by a name and knobs of one's own: `vllm+watermark=0.02`."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.baselines.prefix_aware.sglang import Sglang
    from infermax_gym.engine import Policy

_KINDS: dict[str, type[float] | type[int]] = {"float": float, "int": int, "int | None": int}
_WORDS = {"float": "a number", "int": "a whole number", "int | None": "a whole number", "bool": "true or false"}


def with_knobs(policy: Policy | Sglang, knobs: list[str], name: str) -> Policy | Sglang:
    """A policy of the table, or SGLang's scheduler, with other settings.

    Args:
        policy: whose other settings hold.
        knobs: `knob=value` each; knobs that are numbers or switches.
        name: of the result.

    Raises:
        InputError: a knob is unknown, or its value is none that it may have.
    """
    kinds = {field.name: str(field.type) for field in fields(policy)}
    settable = {knob: kind for knob, kind in kinds.items() if kind in _WORDS}
    settings: dict[str, float | int | bool] = {}
    for knob in knobs:
        key, _, value = knob.partition("=")
        if key not in settable:
            near = get_close_matches(key, settable, 1)
            hint = f"did you mean {near[0]!r}?" if near else "expected a number or a switch of docs/policies.md"
            raise InputError(f"policy {name!r}: unknown knob {key!r}; {hint}")
        settings[key] = _value(settable[key], value, f"policy {name!r}: {key}")
    try:
        return replace(policy, name=name, **settings)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(str(error)) from None


def _value(kind: str, text: str, what: str) -> float | int | bool:
    if kind == "bool" and text in ("true", "false"):
        return text == "true"
    try:
        return _KINDS[kind](text)
    except (KeyError, ValueError):
        raise InputError(f"{what} must be {_WORDS[kind]}, got {text!r}") from None
