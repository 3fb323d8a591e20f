"""A canvas of pixels with boxes, curves over time and smooth letters: all that pictures of environments need."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.envs.glyphs import margin_of, stamp, width_of

Colour = tuple[int, int, int]

INK, SOFT, RULE, PAPER, PAGE = (27, 33, 48), (93, 103, 121), (227, 231, 237), (255, 255, 255), (246, 247, 249)
QUEUE, DECODE, PREFILL, KV = (209, 73, 91), (43, 122, 155), (237, 174, 73), (91, 95, 151)

_SIZES = {1: (8.5, 1.15), 2: (10.5, 1.6), 4: (25.0, 2.9)}
"""Of letters, by the size that `Canvas.text` takes: pixels from foot to head of a capital, and of a stroke."""

_CORNER = 6


def _corner() -> NDArray[np.uint8]:
    """The upper left corner of a card: page outside, an edge of a pixel, paper inside."""
    y, x = np.mgrid[0:_CORNER, 0:_CORNER] + 0.5
    inside = _CORNER - np.hypot(_CORNER - y, _CORNER - x)
    share = np.clip(inside + 0.5, 0.0, 1.0)[..., None], np.clip(inside - 0.5, 0.0, 1.0)[..., None]
    edge = np.array(PAGE) * (1.0 - share[0]) + np.array(RULE) * share[0]
    corner: NDArray[np.uint8] = np.rint(edge * (1.0 - share[1]) + np.array(PAPER) * share[1]).astype(np.uint8)
    return corner


@lru_cache(maxsize=8)
def _blank(height: int, width: int, cards: tuple[tuple[int, int, int, int], ...]) -> NDArray[np.uint8]:
    """An empty page with its cards; copies of it are quick."""
    pixels = np.full((height, width, 3), PAGE, np.uint8)
    for top, left, bottom, right in cards:
        pixels[top:bottom, left:right] = RULE
        pixels[top + 1 : bottom - 1, left + 1 : right - 1] = PAPER
        for flip_y, y in ((1, top), (-1, bottom - _CORNER)):
            for flip_x, x in ((1, left), (-1, right - _CORNER)):
                pixels[y : y + _CORNER, x : x + _CORNER] = _corner()[::flip_y, ::flip_x]
    return pixels


class Canvas:
    """A picture in the making.

    Args:
        height: pixels.
        width: pixels.
        cards: top, left, bottom, right of sheets of paper with round corners.

    Attributes:
        pixels: (height, width, 3) uint8.
    """

    def __init__(self, height: int, width: int, cards: tuple[tuple[int, int, int, int], ...] = ()) -> None:
        self.pixels = _blank(height, width, cards).copy()

    def box(self, top: int, left: int, bottom: int, right: int, colour: Colour) -> None:
        """A filled rectangle; bottom and right are not part of it."""
        self.pixels[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = colour

    def text(self, top: int, left: int, text: str, colour: Colour = INK, size: int = 2) -> int:
        """Write with the heads of capitals at `top`; returns where the text ends."""
        tall, weight = _SIZES[size]
        margin, at = margin_of(weight), float(left)
        for letter in text:
            cover, step = stamp(letter, tall, weight)
            if letter != " ":
                self._blend(top - margin, round(at) - margin, cover, colour)
            at += step
        return round(at)

    def text_to(self, top: int, right: int, text: str, colour: Colour = INK, size: int = 2) -> None:
        """Write so that the text ends at `right`."""
        self.text(top, right - round(width_of(text, _SIZES[size][0])) + 2, text, colour, size)

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
        level = np.arange(top, bottom, dtype=np.float32)[:, None] + 1.0
        edge = (bottom - height).astype(np.float32)[None, :]
        there = (here > 0.0)[None, :]
        part = self.pixels[top:bottom, left:right]
        part[(level > edge) & there] = tuple(round(0.3 * c + 0.7 * 255) for c in colour)
        # The line joins one column's edge to the next one's, however far apart they are.
        before = np.concatenate([edge[:, :1], edge[:, :-1]], axis=1)
        cover = np.minimum(level - np.minimum(edge, before) + 1.0, np.maximum(edge, before) - level + 1.8)
        cover[:, ~(there | (before < bottom))[0]] = 0.0
        rows, columns = np.nonzero(cover > 0.0)
        share = np.minimum(cover[rows, columns], 1.0)[:, None]
        part[rows, columns] = part[rows, columns] * (1.0 - share) + np.array(colour, np.float32) * share + 0.5

    def _blend(self, top: int, left: int, cover: NDArray[np.floating], colour: Colour) -> None:
        """Lay a colour over the pixels from (top, left) on, as thick as `cover` says; what is outside is left out."""
        height, width = self.pixels.shape[:2]
        skip_y, skip_x = max(-top, 0), max(-left, 0)
        cover = cover[skip_y : max(height - top, 0), skip_x : max(width - left, 0)]
        if not cover.size:
            return
        top, left = top + skip_y, left + skip_x
        part = self.pixels[top : top + cover.shape[0], left : left + cover.shape[1]]
        share = cover[..., None]
        part[:] = np.rint(part * (1.0 - share) + np.array(colour, np.float32) * share).astype(np.uint8)
