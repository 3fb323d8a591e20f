"""The scale of every observation: squash(x, half) = x / (x + half) maps 0 .. infinity to 0 .. 1, `half` to one half."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import inlined


@inlined
def squash(x: float, half: float) -> Any:
    """Map 0 .. infinity to 0 .. 1: x / (x + half)."""
    return x / (x + half)
