"""Operator profiles: how long the parts of a model take on a device, each by itself.

Three files with a common prefix, each also as .gz: PREFIX_dense.csv (`layer,tokens,time_us`), PREFIX_per_sequence.csv
(`layer,sequences,time_us`) and PREFIX_attention.csv (`prefill_chunk,kv_prefill,n_decode,kv_decode,time_us`, a layer's
attention of one chunk of a prompt and equally long decodes). A time column may also be called `us`. A mixture of
experts may have a fourth, PREFIX_moe.csv (`tokens,activated_experts,time_us`, a layer's experts).
`infermax_gym.cost.profile_fit` makes a cost model of them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym import files

_ONCE = frozenset({"embedding", "final_layernorm", "lm_head", "sampler"})
_TWICE = frozenset({"layernorm"})
"""Dense operators that a model has once, and those that each layer has twice; all others are once in each layer."""

_COMPLETE = 0.95
"""Share of a grid's points that must be measured; axis values are left out until they are."""


class ProfileError(ValueError):
    """A profile, or a file of it, is not usable; the message says where and why."""


@dataclass(frozen=True)
class Grid:
    """Values on a rectangular grid, between whose points they are interpolated linearly.

    Attributes:
        axes: one rising (k,) array per dimension.
        values: an array of those lengths; nan where nothing was measured.
    """

    axes: tuple[NDArray[np.float64], ...]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, points: NDArray[np.float64], values: NDArray[np.float64]) -> Grid:
        """The largest grid that (nearly) all of whose points were measured.

        Args:
            points: (n, d) where.
            values: (n,) what.
        """
        kept = np.ones(len(points), np.bool_)
        while True:
            axes = tuple(np.unique(points[kept, i]) for i in range(points.shape[1]))
            shares = {
                (i, float(value)): np.sum(kept & (points[:, i] == value)) * len(axis) / math.prod(map(len, axes))
                for i, axis in enumerate(axes)
                for value in axis
            }
            if kept.sum() >= _COMPLETE * math.prod(map(len, axes)):
                break
            i, value = min(shares, key=lambda key: (shares[key], -key[1]))
            kept &= points[:, i] != value
        table = np.full([len(axis) for axis in axes], np.nan)
        table[tuple(np.searchsorted(axis, points[kept, i]) for i, axis in enumerate(axes))] = values[kept]
        return cls(axes, table)

    def at(self, *coordinates: ArrayLike) -> NDArray[np.float64]:
        """(n,) values at (n,) coordinates of each dimension; the lowest below the grid, nan above it."""
        where = np.broadcast_arrays(*(np.atleast_1d(np.asarray(one, np.float64)) for one in coordinates))
        total = np.zeros(where[0].shape)
        lows, shares = [], []
        outside = np.zeros(where[0].shape, np.bool_)
        for axis, one in zip(self.axes, where, strict=True):
            outside |= one > axis[-1]
            one = np.clip(one, axis[0], axis[-1])
            low = np.clip(np.searchsorted(axis, one, side="right") - 1, 0, max(len(axis) - 2, 0))
            high = np.minimum(low + 1, len(axis) - 1)
            width = np.where(high > low, axis[high] - axis[low], 1.0)
            lows.append(low)
            shares.append((one - axis[low]) / width)
        for corner in np.ndindex(*[2] * len(self.axes)):
            weight = np.ones(where[0].shape)
            index = []
            for low, share, side, axis in zip(lows, shares, corner, self.axes, strict=True):
                weight = weight * (share if side else 1.0 - share)
                index.append(np.minimum(low + side, len(axis) - 1))
            total += np.where(weight > 0.0, weight * self.values[tuple(index)], 0.0)
        return np.where(outside, np.nan, total)


@dataclass(frozen=True)
class OperatorProfile:
    """Operator times of a model on a device, in seconds.

    Attributes:
        dense: by operator, its times over the tokens of a batch.
        per_sequence: by operator, its times over the sequences of a batch.
        decodes: attention of a layer over (number of decodes, context of each).
        prefills: attention of a layer over (chunk, context before it).
        mixed: attention of a layer over (chunk, context before it, number of decodes, context of each).
    """

    dense: Mapping[str, Grid]
    per_sequence: Mapping[str, Grid]
    decodes: Grid
    prefills: Grid
    mixed: Grid

    def dense_s(self, num_tokens: ArrayLike, num_layers: int) -> NDArray[np.float64]:
        """(n,) seconds of all dense operators; beyond the measured tokens along the last half of the grid."""
        tokens = np.atleast_1d(np.asarray(num_tokens, np.float64))
        total = np.zeros(tokens.shape)
        for name, grid in self.dense.items():
            total += _times(name, num_layers) * _extended(grid, tokens)
        return total

    def per_sequence_s(self, num_sequences: ArrayLike) -> NDArray[np.float64]:
        """(n,) seconds of what is done once per sequence, such as the output head and sampling."""
        sequences = np.atleast_1d(np.asarray(num_sequences, np.float64))
        total = np.zeros(sequences.shape)
        for grid in self.per_sequence.values():
            total += _extended(grid, sequences)
        return total


def _times(name: str, num_layers: int) -> int:
    return 1 if name in _ONCE else 2 * num_layers if name in _TWICE else num_layers


def _extended(grid: Grid, x: NDArray[np.float64]) -> NDArray[np.float64]:
    (axis,), values = grid.axes, grid.values
    inside = np.interp(x, axis, values)
    middle = float(np.interp(axis[-1] / 2.0, axis, values))
    slope = max(0.0, (float(values[-1]) - middle) / (axis[-1] / 2.0))
    found: NDArray[np.float64] = inside + slope * np.maximum(x - axis[-1], 0.0)
    return found


def read_profile(prefix: str | Path) -> OperatorProfile:
    """Read the three files of a profile.

    Raises:
        ProfileError: a file is missing, cannot be read, lacks a column or holds a faulty cell; one line.
    """
    dense = _by_operator(_file(prefix, "dense"), "tokens")
    experts = _file(prefix, "moe")
    if experts.is_file():
        dense["experts"] = _experts(experts)
    per_sequence = _by_operator(_file(prefix, "per_sequence"), "sequences")
    path = _file(prefix, "attention")
    columns = _read(path, ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode"), text=None)[1]
    points, seconds = columns[:, :4], columns[:, 4] * 1e-6
    chunk, decodes = points[:, 0] > 0, points[:, 2] > 0
    for what, mask in (("decodes", ~chunk & decodes), ("prefills", chunk & ~decodes), ("both", chunk & decodes)):
        if not mask.any():
            raise ProfileError(f"{path}: no line with {what}; expected decodes alone, prefills alone, and both")
    return OperatorProfile(
        dense,
        per_sequence,
        Grid.of(points[~chunk & decodes][:, 2:], seconds[~chunk & decodes]),
        Grid.of(points[chunk & ~decodes][:, :2], seconds[chunk & ~decodes]),
        Grid.of(points[chunk & decodes], seconds[chunk & decodes]),
    )


def _file(prefix: str | Path, kind: str) -> Path:
    plain = Path(f"{prefix}_{kind}.csv")
    packed = Path(f"{plain}.gz")
    if plain.is_file() or not packed.is_file():
        return plain
    return packed


def _by_operator(path: Path, size: str) -> dict[str, Grid]:
    names, columns = _read(path, (size,), text="layer")
    grids = {}
    for name in dict.fromkeys(names):
        mine = columns[[other == name for other in names]]
        grids[name] = Grid.of(mine[:, :1], mine[:, 1] * 1e-6)
    return grids


def _experts(path: Path) -> Grid:
    """Times of a layer's experts over tokens, each token routed to as many, all experts as likely.

    All experts are the most that a line has, those of a token the most of its line with the fewest tokens.
    """
    table = _read(path, ("tokens", "activated_experts"), text=None)[1]
    tokens = np.unique(table[:, 0])
    first = table[table[:, 0] == tokens[0]]
    num_experts = float(table[:, 1].max())
    share = min(1.0, float(first[:, 1].max()) / (max(tokens[0], 1.0) * max(num_experts, 1.0)))
    seconds = []
    for count in tokens:
        mine = table[table[:, 0] == count]
        mine = mine[np.argsort(mine[:, 1])]
        woken = num_experts * (1.0 - (1.0 - share) ** count)
        seconds.append(float(np.interp(woken, mine[:, 1], mine[:, 2])) * 1e-6)
    return Grid((tokens,), np.array(seconds))


def _read(path: Path, wanted: tuple[str, ...], text: str | None) -> tuple[list[str], NDArray[np.float64]]:
    """The text column and the (n, k + 1) numbers of a file: those wanted, then microseconds."""
    names: list[str] = []
    rows: list[list[float]] = []
    for number, row in _lines(path, (*wanted, *([text] if text else []))):
        try:
            values = [float(row[column]) for column in (*wanted, "time")]
        except (TypeError, ValueError):
            raise ProfileError(f"{path}:{number}: cannot read {', '.join(wanted)} and the time as numbers") from None
        if not all(0.0 <= value < 1e15 for value in values) or values[-1] == 0.0:
            raise ProfileError(f"{path}:{number}: sizes must not be negative, and times positive; got {values}")
        names.append(str(row[text]) if text else "")
        rows.append(values)
    if not rows:
        raise ProfileError(f"{path}: holds no measurement")
    return names, np.array(rows)


def _lines(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with io.StringIO(files.read_text(path), newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            time = next((name for name in ("time_us", "us") if name in header), None)
            missing = [name for name in wanted if name not in header] + ([] if time else ["time_us"])
            if missing:
                raise ProfileError(f"{path}:1: column {missing[0]!r} is missing; expected {', '.join(wanted)}, time_us")
            for row in reader:
                yield reader.line_num, {**row, "time": row[str(time)]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProfileError(f"{path}: cannot be read ({reason})") from None
