"""Letters as strokes, for pictures of any size: drawn smooth, without a font file."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_STROKES = {
    "a": "848c 866424060a2c6c8a",
    "b": "000c 062464868a6c2c0a",
    "c": "866424060a2c6c8a",
    "d": "808c 866424060a2c6c8a",
    "e": "0888866424060a2c6c8a",
    "f": "7050323c 0464",
    "g": "848e6g2g0e 866424060a2c6c8a",
    "h": "000c 062464868c",
    "i": "444c 4041",
    "j": "444e2g1g 4041",
    "k": "000c 8409 378c",
    "l": "404c",
    "m": "040c 061434464c 465474868c",
    "n": "040c 062464868c",
    "o": "24060a2c6c8a866424",
    "p": "040g 062464868a6c2c0a",
    "q": "848g 866424060a2c6c8a",
    "r": "040c 06246475",
    "s": "8564240628688a6c2c0b",
    "t": "303a5c7c 0474",
    "u": "040a2c6c8a 848c",
    "v": "044c84",
    "w": "042c466c84",
    "x": "048c 840c",
    "y": "044c 843e1g",
    "z": "04840c8c",
    "0": "20020a2c6c8a826020",
    "1": "13404c",
    "2": "02206082840c8c",
    "3": "02206082846636 66888a6c2c0a",
    "4": "6c600888",
    "5": "8010062565878a6c2c0a",
    "6": "704013060a2c6c8a87652507",
    "7": "00803c",
    "8": "200204266684826020 26080a2c6c8a8866",
    "9": "1c4c79868260200205276785",
    "A": "0c408c 1878",
    "B": "000c 006082846606 66888a6c0c",
    "C": "826020020a2c6c8a",
    "D": "000c5c89835000",
    "E": "80000c8c 0666",
    "F": "80000c 0666",
    "G": "826020020a2c6c8a8757",
    "H": "000c 808c 0686",
    "I": "404c",
    "J": "808a6c2c0a",
    "K": "000c 8007 358c",
    "L": "000c8c",
    "M": "0c0048808c",
    "N": "0c008c80",
    "O": "20020a2c6c8a826020",
    "P": "0c006082856707",
    "Q": "20020a2c6c8a826020 598c",
    "R": "0c006082856707 478c",
    "S": "82602002042666888a6c2c0a",
    "T": "0080 404c",
    "U": "000a2c6c8a80",
    "V": "004c80",
    "W": "002c486c80",
    "X": "008c 800c",
    "Y": "004680 464c",
    "Z": "00800c8c",
    ".": "4b4c",
    ",": "4b4c3e",
    ":": "4546 4b4c",
    "%": "2002244220 684a6c8a68 800c",
    "/": "800c",
    "-": "1777",
    "+": "1777 444a",
    "(": "50323a5c",
    ")": "30525a3c",
    " ": "",
}
"""Lines through points; a point is two digits of base 17: x from the left, y from the top. Capitals stand from 0 to 12,
small letters from 4, tails end at 16."""

_TABULAR = "0123456789"
_SPACE, _GAP = 5.0, 3.6


def width_of(text: str, size: float) -> float:
    """Pixels that a text takes; `size` is pixels from the foot of a capital to its head."""
    return sum(_box(letter)[1] + _GAP for letter in text) * size / 12.0


@lru_cache(maxsize=2048)
def stamp(letter: str, size: float, weight: float) -> tuple[NDArray[np.float32], float]:
    """How much of each pixel a letter covers, and how far the next one is.

    Args:
        letter: one without strokes of its own is drawn as "-".
        size: pixels from the foot of a capital to its head.
        weight: width of the strokes, pixels.

    Returns:
        (height, width) from 0 to 1, with a margin of a stroke's width around it, and pixels.
    """
    unit = size / 12.0
    left, wide = _box(letter)
    margin = int(np.ceil(weight)) + 1
    rows, columns = int(np.ceil(16 * unit)) + 2 * margin, int(np.ceil(wide * unit)) + 2 * margin
    y, x = np.mgrid[0:rows, 0:columns] + 0.5 - margin
    nearest = np.full((rows, columns), np.inf)
    for points in _lines(letter):
        spots = (points - [left, 0.0]) * unit
        for (ax, ay), (bx, by) in pairwise(spots):
            dx, dy = bx - ax, by - ay
            along = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
            nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
    return np.clip(0.5 * weight + 0.5 - nearest, 0.0, 1.0).astype(np.float32), (wide + _GAP) * unit


def margin_of(weight: float) -> int:
    """Pixels of a stamp around its letter."""
    return int(np.ceil(weight)) + 1


def _lines(letter: str) -> list[NDArray[np.float64]]:
    parts = _STROKES.get(letter, _STROKES["-"]).split()
    return [np.array([int(digit, 17) for digit in part], np.float64).reshape(-1, 2) for part in parts]


@lru_cache(maxsize=256)
def _box(letter: str) -> tuple[float, float]:
    """Where a letter begins and how wide it is; digits are all as wide as each other."""
    if letter == " ":
        return 0.0, _SPACE - _GAP
    if letter in _TABULAR:
        return 0.0, 8.0
    x = np.concatenate([line[:, 0] for line in _lines(letter)])
    return float(x.min()), float(x.max() - x.min())
