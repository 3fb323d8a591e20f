"""A canvas of pixels with boxes, steps over time and small letters: all that pictures of environments need."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Colour = tuple[int, int, int]

INK, SOFT, RULE, PAPER = (34, 38, 46), (123, 132, 148), (230, 233, 238), (255, 255, 255)
QUEUE, DECODE, PREFILL, KV = (209, 73, 91), (43, 122, 155), (237, 174, 73), (91, 95, 151)

_ROWS = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 15),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "J": (7, 2, 2, 2, 2, 18, 12),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "Q": (14, 17, 17, 17, 21, 18, 13),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "V": (17, 17, 17, 17, 17, 10, 4),
    "W": (17, 17, 17, 21, 21, 27, 17),
    "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 10, 4, 4, 4, 4),
    "Z": (31, 1, 2, 4, 8, 16, 31),
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 6, 8, 16, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    ".": (0, 0, 0, 0, 0, 12, 12),
    ",": (0, 0, 0, 0, 12, 4, 8),
    ":": (0, 12, 12, 0, 12, 12, 0),
    "%": (24, 25, 2, 4, 8, 19, 3),
    "/": (0, 1, 2, 4, 8, 16, 0),
    "-": (0, 0, 0, 31, 0, 0, 0),
    " ": (0, 0, 0, 0, 0, 0, 0),
}
"""Capital letters of five columns and seven lines; a line is a number of five bits."""

_WIDE, _HIGH = 5, 7


@lru_cache(maxsize=256)
def _stamp(text: str, size: int) -> NDArray[np.bool_]:
    """The pixels of a text, (7 size, 6 size len(text)) bool."""
    lines = np.zeros((_HIGH, (_WIDE + 1) * len(text)), bool)
    for place, letter in enumerate(text.upper()):
        rows = np.array(_ROWS.get(letter, _ROWS["-"]))
        bits = (rows[:, None] >> np.arange(_WIDE - 1, -1, -1)) & 1
        lines[:, place * (_WIDE + 1) : place * (_WIDE + 1) + _WIDE] = bits
    return lines.repeat(size, 0).repeat(size, 1)


class Canvas:
    """A picture in the making.

    Args:
        height: pixels.
        width: pixels.

    Attributes:
        pixels: (height, width, 3) uint8.
    """

    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.full((height, width, 3), 255, np.uint8)

    def box(self, top: int, left: int, bottom: int, right: int, colour: Colour) -> None:
        """A filled rectangle; bottom and right are not part of it."""
        self.pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = colour

    def text(self, top: int, left: int, text: str, colour: Colour = INK, size: int = 2) -> int:
        """Write in capital letters; returns where the text ends."""
        stamp = _stamp(text, size)
        part = self.pixels[top : top + stamp.shape[0], left : left + stamp.shape[1]]
        part[stamp[: part.shape[0], : part.shape[1]]] = colour
        return left + int(stamp.shape[1])

    def text_to(self, top: int, right: int, text: str, colour: Colour = INK, size: int = 2) -> None:
        """Write so that the text ends at `right`."""
        self.text(top, right - len(text) * (_WIDE + 1) * size + size, text, colour, size)

    def strip(self, top: int, bottom: int, starts: ArrayLike, ends: ArrayLike, colours: list[Colour]) -> None:
        """Rectangles side by side; starts and ends in pixels."""
        for start, end, colour in zip(np.asarray(starts, int), np.asarray(ends, int), colours, strict=True):
            self.box(top, int(start), bottom, int(end), colour)

    def steps(
        self,
        frame: tuple[int, int, int, int],
        times: NDArray[np.float64],
        values: NDArray[np.float64],
        most: float,
        colour: Colour,
    ) -> None:
        """A curve that keeps each value until the next time, filled to the ground.

        Args:
            frame: top, left, bottom, right of the panel.
            times: (k,) ascending; the last one is at the right edge.
            values: (k,) from 0 to `most`.
            most: the value at the top.
            colour: of the curve; the area under it is lighter.
        """
        top, left, bottom, right = frame
        at = np.linspace(0.0, max(float(times[-1]), 1e-9), right - left)
        here = values[np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(values) - 1)]
        height = np.clip(here / most, 0.0, 1.0) * (bottom - top - 1)
        level = bottom - 1 - np.arange(bottom - top)[::-1] + 0.0
        edge = (bottom - 1 - height)[None, :]
        part = self.pixels[top:bottom, left:right]
        level = level[:, None]
        light = tuple(round(0.35 * c + 0.65 * 255) for c in colour)
        part[level >= edge] = light
        part[(level >= edge) & (level < edge + 2.0) & (here > 0.0)[None, :]] = colour
