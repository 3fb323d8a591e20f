"""Columns of text turned into arrays: a fast path for clean columns, and an exact one that finds the fault.

The exact path defines what a cell may hold; the fast path accepts a subset of that, with equal results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?", re.ASCII)
_TIMESTAMP = re.compile(r"(?:19|20)\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:\+00:00|Z)?", re.ASCII)
_SHOWN = 40  # characters of a faulty cell that an error line repeats


class Fault(NamedTuple):
    """What is wrong with a row: its index in the block, and the sentence that says so."""

    row: int
    message: str


@dataclass(frozen=True)
class Kind:
    """What the cells of a column hold.

    Attributes:
        dtype: of the array.
        fast: a whole column at once; raises ValueError or OverflowError on anything unusual.
        exact: one cell; raises ValueError with what was expected.
    """

    dtype: DTypeLike
    fast: Callable[[Sequence[str]], NDArray[Any]]
    exact: Callable[[str], int | float]

    def parse(self, cells: Sequence[str]) -> tuple[NDArray[Any], Fault | None]:
        """The values of a column up to its first fault, and that fault if there is one."""
        try:
            return self.fast(cells), None
        except (ValueError, OverflowError):
            pass
        values: list[int | float] = []
        for row, cell in enumerate(cells):
            try:
                values.append(self.exact(cell.strip()))
            except ValueError as error:
                return np.array(values, dtype=self.dtype), Fault(row, f"is {shorten(cell)}; expected {error}")
        return np.array(values, dtype=self.dtype), None


def shorten(text: str) -> str:
    """Text in quotes, on one line, cut to a length that an error line can hold."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _fast_whole(cells: Sequence[str]) -> NDArray[np.int64]:
    joined = "".join(cells)
    if not (joined.isascii() and joined.isdigit()):  # int() would also take underscores and other scripts' digits
        raise ValueError
    return np.array(list(map(int, cells)), dtype=np.int64)


def _exact_whole(cell: str) -> int:
    match = _WHOLE.fullmatch(cell)
    if not match:
        raise ValueError("a whole number")
    if len(match[1]) > 20 or not -(2**63) <= int(match[1]) < 2**63:
        raise ValueError("a number of 64 bits")
    return int(match[1])


def signed(number: int) -> int:
    """A hash of up to unsigned 64 bits as the int64 of the same bits."""
    return number - 2**64 if number >= 2**63 else number


def _exact_hash(cell: str) -> int:
    match = _WHOLE.fullmatch(cell)
    if not match:
        raise ValueError("a whole number")
    if len(match[1]) > 21 or not -(2**63) <= int(match[1]) < 2**64:
        raise ValueError("a number of 64 bits")
    return signed(int(match[1]))


def _fast_real(cells: Sequence[str]) -> NDArray[np.float64]:
    joined = "".join(cells)
    if "_" in joined or not joined.isascii():  # float() would also take underscores and other scripts' digits
        raise ValueError
    values = np.array(list(map(float, cells)), dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError
    return values


def _exact_real(cell: str) -> float:
    try:
        return float(_fast_real([cell])[0])
    except ValueError:
        raise ValueError("a finite number") from None


def _fast_timestamp(cells: Sequence[str]) -> NDArray[np.int64]:
    if not all(map(_TIMESTAMP.fullmatch, cells)):
        raise ValueError
    joined = "".join(cells)
    if "+" in joined or "Z" in joined:  # numpy knows no time zones; without a suffix it reads UTC
        cells = [cell.removesuffix("+00:00").removesuffix("Z") for cell in cells]
    return np.array(cells, dtype="datetime64[ns]").astype(np.int64)


def _exact_timestamp(cell: str) -> int:
    try:
        return int(_fast_timestamp([cell])[0])
    except ValueError:
        raise ValueError("a UTC time such as 2023-11-16 18:15:46.6805900") from None


def _exact_limit(cell: str) -> float:
    if cell.lower() in ("inf", ""):
        return float("inf")
    value = _exact_real(cell)
    if value < 0.0:
        raise ValueError("a time that is not negative")
    return value


def _fast_limit(cells: Sequence[str]) -> NDArray[np.float64]:
    return np.array([_exact_limit(cell) for cell in cells])


WHOLE = Kind(np.int64, _fast_whole, _exact_whole)
"""Whole numbers: digits, also written `12.0`."""
HASH = Kind(np.int64, _fast_whole, _exact_hash)
"""Whole numbers of 64 bits, signed or not, as the int64 of the same bits."""
REAL = Kind(np.float64, _fast_real, _exact_real)
"""Finite decimal numbers."""
TIMESTAMP = Kind(np.int64, _fast_timestamp, _exact_timestamp)
"""Dates with a time of day, in UTC, up to nine decimals; as nanoseconds since 1970."""
LIMIT = Kind(np.float64, _fast_limit, _exact_limit)
"""Times that are not negative; `inf` or an empty cell for none."""
