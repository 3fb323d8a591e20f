"""Small parts of SVG pictures: numbers as people read them, axes with round ticks, escaped text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as _escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

MISSING = "–"
_SIGNS = {"k": 1e3, "M": 1e6}


def escape(text: object) -> str:
    """Text that may stand in an element or in a quoted attribute of HTML or SVG."""
    return _escape("".join(c if c.isprintable() else "�" for c in str(text)), quote=True)


def number(value: float | int | None, digits: int = 3) -> str:
    """A number with so many significant digits, thousands with commas; whole parts are never cut.

    Example:
        >>> number(1234.56), number(0.012345), number(2.0), number(None)
        ('1,235', '0.0123', '2.00', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if isinstance(value, int) or value == 0.0:
        return f"{value:,.0f}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(places, 0), 8)}f}"


def tick_label(value: float) -> str:
    """A tick's value, as short as it goes."""
    for sign, size in reversed(_SIGNS.items()):
        if abs(value) >= 10.0 * size or (abs(value) >= size and value % size == 0.0):
            return f"{value / size:.3g}{sign}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Axis:
    """Values to pixels.

    Attributes:
        low: the value at `start`.
        high: the value at `end`.
        start: pixels.
        end: pixels.
        kind: "linear", "log", or "tail": shares below 1, in decades of what is left of them.
    """

    low: float
    high: float
    start: float
    end: float
    kind: str = "linear"

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """(n,) pixels, within the axis; nan stays."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        share = (self._scaled(values) - low) / (high - low)
        return np.asarray(self.start + np.clip(share, 0.0, 1.0) * (self.end - self.start), np.float64)

    def at(self, value: float) -> float:
        """One value's pixel."""
        return float(self([value])[0])

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Round values on the axis, and their labels."""
        if self.kind == "tail":
            return [(s, f"{100.0 * s:g}") for s in (0.0, 0.5, 0.9, 0.99, 0.999) if s <= self.high]
        found = _decades(self.low, self.high, most) if self.kind == "log" else _steps(self.low, self.high, most)
        return [(value, tick_label(value)) for value in found]

    def _scaled(self, values: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(values, np.float64)
        if self.kind == "log":
            return np.log10(np.maximum(array, 1e-12))
        return -np.log10(np.maximum(1.0 - array, 1e-9)) if self.kind == "tail" else array


def spanning(values: ArrayLike, start: float, end: float, *, kind: str = "linear", from_zero: bool = False) -> Axis:
    """An axis on which all values lie, with a little room around them."""
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array) & ((array > 0.0) | (kind != "log"))]
    if not array.size:
        return Axis(1.0 if kind == "log" else 0.0, 10.0 if kind == "log" else 1.0, start, end, kind)
    low, high = float(array.min()), float(array.max())
    if kind == "log":
        room = max((high / low) ** 0.06, 1.12)
        return Axis(low / room, high * room, start, end, kind)
    low = min(low, 0.0) if from_zero else low
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return Axis(low if from_zero and low == 0.0 else low - room, high + room, start, end, kind)


def _steps(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / max(most, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if size * m >= raw * (1.0 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    """1, 2, 5 in each decade, or fewer where that would be too many; evenly spaced where the axis is short."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for parts in ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        found = [p * 10.0**k for k in range(first, last + 1) for p in parts if low <= p * 10.0**k <= high]
        if 2 <= len(found) <= most:
            return found
    return _steps(low, high, most)[:most] if high < 10.0 * low else found[:: -(-len(found) // most)]


def path(x: ArrayLike, y: ArrayLike) -> str:
    """A line through points; it breaks where one is missing."""
    parts, pen = [], "M"
    for a, b in zip(np.asarray(x, float).tolist(), np.asarray(y, float).tolist(), strict=True):
        if math.isfinite(a) and math.isfinite(b):
            parts.append(f"{pen}{_pixel(a)} {_pixel(b)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def area(x: ArrayLike, top: ArrayLike, bottom: ArrayLike) -> str:
    """What lies between two lines over the same places."""
    there = list(zip(np.asarray(x, float).tolist(), np.asarray(top, float).tolist(), strict=True))
    back = list(zip(np.asarray(x, float).tolist(), np.asarray(bottom, float).tolist(), strict=True))
    return "M" + "L".join(f"{_pixel(a)} {_pixel(b)}" for a, b in [*there, *reversed(back)]) + "Z"


def steps(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of a line that keeps each value until the next place."""
    a, b = np.repeat(np.asarray(x, np.float64), 2)[1:], np.repeat(np.asarray(y, np.float64), 2)[:-1]
    return a, b


def text(x: float, y: float, content: object, kind: str, anchor: str = "start") -> str:
    """A line of text of a class of the style sheet."""
    place = f'x="{_pixel(x)}" y="{_pixel(y)}"'
    end = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text {place} class="{kind}"{end}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a class of the style sheet."""
    return f'<path class="{kind}" d="M{_pixel(x1)} {_pixel(y1)}L{_pixel(x2)} {_pixel(y2)}"/>'


def free_labels(
    points: Sequence[tuple[float, float]], names: Sequence[str], frame: tuple[float, float, float, float]
) -> list[tuple[float, float, str] | None]:
    """Places beside points where names overlap neither each other nor the points.

    Args:
        points: pixels.
        names: as many texts of 10-pixel type.
        frame: left, top, right, bottom that names must stay within.

    Returns:
        For each x, y and anchor of its text, or None where there is no room.
    """
    left, top, right, bottom = frame
    taken = [(x - 5.0, y - 5.0, x + 5.0, y + 5.0) for x, y in points]
    found: list[tuple[float, float, str] | None] = []
    for (x, y), name in zip(points, names, strict=True):
        wide = 5.9 * len(name) + 4.0
        tries = (
            (x + 8.0, y + 3.5, "start"),
            (x - 8.0, y + 3.5, "end"),
            (x, y - 8.0, "middle"),
            (x, y + 15.0, "middle"),
            (x + 7.0, y - 7.0, "start"),
            (x + 7.0, y + 13.0, "start"),
            (x - 7.0, y - 7.0, "end"),
            (x - 7.0, y + 13.0, "end"),
        )
        place = None
        for tx, ty, anchor in tries:
            start = tx - {"start": 0.0, "middle": wide / 2.0, "end": wide}[anchor]
            box = (start, ty - 9.0, start + wide, ty + 3.0)
            inside = box[0] >= left and box[2] <= right and box[1] >= top and box[3] <= bottom
            others = [b for b in taken if b != (x - 5.0, y - 5.0, x + 5.0, y + 5.0)]
            if inside and not any(_overlap(box, other) for other in others):
                place = (tx, ty, anchor)
                taken.append(box)
                break
        found.append(place)
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _pixel(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
