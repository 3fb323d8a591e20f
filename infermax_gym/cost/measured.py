"""Reading measured batches: a CSV with a line for each, what it held and what it took.

Two kinds of columns are understood, more columns are ignored, and a name that ends in .gz is read compressed:

    one,num_tokens,has_prefill,prefill_work,num_prefills,prefill_context,has_decode,decode_context,num_decodes,seconds
        the nine features (`infermax_gym.cost.features`), as `infermax profile` writes them
    prefill_chunk_tokens,prefill_context_tokens,decode_context_tokens,seconds
        one number for each request, separated by spaces: chunks of the prefills, what is resident before each of them,
        and before each of the decodes
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infermax_gym import files
from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    FEATURE_NAMES,
    HAS_DECODE,
    HAS_PREFILL,
    NUM_DECODES,
    NUM_PREFILLS,
    NUM_TOKENS,
    ONE,
    PREFILL_CONTEXT,
    PREFILL_WORK,
)

LIST_COLUMNS = ("prefill_chunk_tokens", "prefill_context_tokens", "decode_context_tokens")


class MeasuredError(ValueError):
    """The file cannot be used; one line that says where and why."""


@dataclass(frozen=True)
class Measured:
    """Batches and what they took.

    Attributes:
        features: (n, 9) in the order of `infermax_gym.cost.features`.
        seconds: (n,) of each batch.
    """

    features: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def within(self, num_kv_tokens: int) -> Measured:
        """Only the batches that leave at most so many KV tokens resident."""
        resident = self.features[:, [NUM_TOKENS, PREFILL_CONTEXT, DECODE_CONTEXT]].sum(axis=1)
        kept = resident <= num_kv_tokens
        return Measured(self.features[kept], self.seconds[kept])


def read_measured(path: str | Path) -> Measured:
    """Read measured batches.

    Raises:
        MeasuredError: the file is missing or malformed, or a line holds what no batch can be.
    """
    path = Path(path)
    try:
        text = files.read_text(path)
    except OSError as error:
        raise MeasuredError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise MeasuredError(f"{path}: cannot be read ({error})") from None
    rows = list(_rows(text, path))
    if not rows:
        raise MeasuredError(f"{path}: holds no batch")
    features, seconds = zip(*rows, strict=True)
    return Measured(np.array(features, np.float64), np.array(seconds, np.float64))


def _rows(text: str, path: Path) -> Iterator[tuple[tuple[float, ...], float]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = [" ".join(name.split()) for name in reader.fieldnames or ()]
    reader.fieldnames = header
    by_feature = set(FEATURE_NAMES) <= set(header)
    if "seconds" not in header or not (by_feature or set(LIST_COLUMNS) <= set(header)):
        raise MeasuredError(
            f"{path}, line 1: needs the column seconds and either {', '.join(FEATURE_NAMES)} or "
            f"{', '.join(LIST_COLUMNS)}; found {', '.join(header) or 'nothing'}"
        )
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        features = _features(row, where) if by_feature else _from_lists(row, where)
        _check(features, where)
        seconds = _number(row["seconds"], f"{where}: seconds")
        if not 0.0 < seconds < math.inf:
            raise MeasuredError(f"{where}: seconds must be positive and finite, got {seconds:g}")
        yield features, seconds


def _features(row: Mapping[str, str | None], where: str) -> tuple[float, ...]:
    return tuple(_number(row[name], f"{where}: {name}") for name in FEATURE_NAMES)


def _from_lists(row: Mapping[str, str | None], where: str) -> tuple[float, ...]:
    chunks, before, decodes = (
        [_number(text, f"{where}: {name}") for text in (row[name] or "").split()] for name in LIST_COLUMNS
    )
    if len(chunks) != len(before):
        raise MeasuredError(f"{where}: {len(chunks)} prefill_chunk_tokens, but {len(before)} prefill_context_tokens")
    if min([*before, *decodes], default=0.0) < 0.0 or min(chunks, default=1.0) < 1.0:
        raise MeasuredError(f"{where}: chunks must be at least 1, and contexts not negative")
    return (
        1.0,
        sum(chunks) + len(decodes),
        float(bool(chunks)),
        sum(c * c + 2 * c * m for c, m in zip(chunks, before, strict=True)),
        float(len(chunks)),
        sum(before),
        float(bool(decodes)),
        sum(decodes),
        float(len(decodes)),
    )


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        raise MeasuredError(f"{where} must be a number, got {text!r}") from None
    if not math.isfinite(value):
        raise MeasuredError(f"{where} must be finite, got {value}")
    return value


def _check(x: tuple[float, ...], where: str) -> None:
    """That some batch has these features."""
    if min(x) < 0.0:
        raise MeasuredError(f"{where}: {FEATURE_NAMES[x.index(min(x))]} must not be negative, got {min(x):g}")
    prefills, decodes = x[NUM_PREFILLS], x[NUM_DECODES]
    wanted = {
        ONE: 1.0,
        HAS_PREFILL: float(prefills > 0.0),
        HAS_DECODE: float(decodes > 0.0),
    }
    for index, value in wanted.items():
        if x[index] != value:
            raise MeasuredError(f"{where}: {FEATURE_NAMES[index]} must be {value:g} here, got {x[index]:g}")
    chunks = x[NUM_TOKENS] - decodes
    if x[NUM_TOKENS] < 1.0 or chunks < prefills or (chunks > 0.0) != (prefills > 0.0):
        raise MeasuredError(
            f"{where}: {x[NUM_TOKENS]:g} num_tokens do not go with {prefills:g} prefills and {decodes:g} decodes"
        )
    if x[PREFILL_WORK] < chunks * chunks / max(prefills, 1.0) * (1.0 - 1e-9):
        raise MeasuredError(
            f"{where}: prefill_work is the sum of c^2 + 2 c m over prefills; {x[PREFILL_WORK]:g} is less"
        )
