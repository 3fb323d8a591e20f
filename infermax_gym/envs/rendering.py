"""Render modes, the same for every id: "ansi" is text, "rgb_array" a picture, "human" a view in this terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.console import RenderableType

RENDER_MODES = ("human", "ansi", "rgb_array")
RENDER_FPS = 10

_LEAST_LINES = 16
_HOME = "\x1b[H\x1b[J"  # the next frame takes the place of this one


def checked_mode(mode: Any) -> str | None:
    """A render mode as it was typed.

    Raises:
        ValueError: there is no such mode.
    """
    if mode is not None and mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be {', '.join(RENDER_MODES)} or None, got {mode!r}")
    return mode  # type: ignore[no-any-return]


def show(text: str) -> None:
    """Write a frame to the terminal, over the one before where it is one."""
    sys.stdout.write((_HOME if sys.stdout.isatty() else "") + text.rstrip("\n") + "\n")
    sys.stdout.flush()


def show_view(view: Callable[[int, int], RenderableType]) -> None:
    """Draw a view of so many columns and lines in the terminal, over the one before where it is one."""
    from rich.console import Console

    console = Console(highlight=False)
    size = (console.width, max(console.height - 1, _LEAST_LINES)) if console.is_terminal else (100, 28)
    if console.is_terminal:
        sys.stdout.write(_HOME)
    console.print(view(*size))
    sys.stdout.flush()


def rendered(
    mode: str | None,
    text: Callable[[], str],
    picture: Callable[[], NDArray[np.uint8]],
    view: Callable[[int, int], RenderableType] | None = None,
) -> str | NDArray[np.uint8] | None:
    """What `render` returns in a mode; "human" shows the view, or the text where there is none."""
    if mode == "ansi":
        return text()
    if mode == "rgb_array":
        return picture()
    if mode == "human" and view is not None:
        show_view(view)
    elif mode == "human":
        show(text())
    else:
        gym.logger.warn("render() needs render_mode='ansi', 'rgb_array' or 'human' in gym.make")
    return None
