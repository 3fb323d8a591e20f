"""Fitting a cost model to measured batches: non-negative least squares of relative errors, with hinges.

A fifth of the batches is held out first and never seen. On the others, pieces (see `infermax_gym.cost.pieces`) are
added to the nine features one by one: each time the one that lowers the cross-validated error most, until none lowers
it by a twentieth. Coefficients that matter nowhere are then dropped. Everything is deterministic, and the order of the
batches does not matter. Needs scipy (the extra `fit`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    FEATURE_NAMES,
    NUM_DECODES,
    NUM_FEATURES,
    NUM_PREFILLS,
    NUM_TOKENS,
)
from infermax_gym.cost.model import CostModel
from infermax_gym.cost.pieces import LINEAR, MIXED, Kind, Piece, assemble, seconds_of

REGIONS = ("decode", "prefill", "mixed")

_NUM_FOLDS = 4  # of the cross-validation; as many batches as in one of them are held out
_WORTH_ADDING = 0.95  # a piece must lower the cross-validated error to this share of it
_WORTH_BENDING_DOWN = 0.75  # a model that is not convex must have at most this share of the convex one's error,
_LEAST_GAIN = 0.01  # and so much less: convexity is worth an error of a percent
_MOST_PIECES = 4  # beside the nine features
_NUM_KNOTS = 12  # candidates of each feature that may bend
_LEAST_SHARE = 1e-3  # of some batch's time, for a coefficient to stay
_FEWEST_BATCHES = 24


class FitError(ValueError):
    """The measurements cannot be fitted; the message says why."""


@dataclass(frozen=True)
class RegionError:
    """Relative errors of held-out batches.

    Attributes:
        num_batches: how many there are.
        mape: mean absolute relative error.
        p95: its 95th percentile.
    """

    num_batches: int
    mape: float
    p95: float


@dataclass(frozen=True)
class Fit:
    """A cost model and how well it does.

    Attributes:
        cost: the model, fitted without the held-out batches.
        errors: by region (decode, prefill, mixed) and for "all": errors on the held-out batches; regions without a
            held-out batch are left out.
        held_out: (n,) whether each batch was held out.
        predicted_s: (n,) what the model gives each batch.
        measured_range: by feature, the smallest and the largest value measured.
        pieces: what the model is made of, with coefficients in seconds.
    """

    cost: CostModel
    errors: Mapping[str, RegionError]
    held_out: NDArray[np.bool_]
    predicted_s: NDArray[np.float64]
    measured_range: Mapping[str, tuple[float, float]]
    pieces: tuple[tuple[Piece, float], ...]


def fit_cost(features: ArrayLike, seconds: ArrayLike, *, name: str, concave: bool | None = None, **fields: Any) -> Fit:
    """Fit a cost model to measured batches.

    Args:
        features: (n, 9) batch features, in the order of `infermax_gym.cost.features`.
        seconds: (n,) what each batch took.
        name: of the model.
        concave: whether time may bend down as tokens grow, as it does while the experts of a mixture are being woken;
            such a model is not convex. None: only where that takes a quarter and a percentage point off the
            cross-validated error.
        fields: other fields of the `CostModel`, such as `num_devices` and `source`.

    Raises:
        FitError: the arrays do not fit together, hold a value that no batch can have, or are too few.
    """
    x, y = _checked(features, seconds)
    groups = _groups(x)
    held_out = groups == 0
    train = _Problem.of(x[~held_out], y[~held_out], groups[~held_out])
    chosen, error = _select(train, concave=concave is True)
    if concave is None:
        bent, lower = _select(train, concave=True)
        if lower <= min(_WORTH_BENDING_DOWN * error, error - _LEAST_GAIN):
            chosen = bent
    pieces, coefficients = _solved(train, chosen)
    cost = assemble(pieces, coefficients, name=name, **fields)
    predicted = seconds_of(cost, x)
    ranges = {what: (float(x[:, i].min()), float(x[:, i].max())) for i, what in enumerate(FEATURE_NAMES)}
    return Fit(
        cost, errors_by_region(x, y, predicted, held_out), held_out, predicted, ranges,
        tuple(zip(pieces, coefficients, strict=True)),
    )  # fmt: skip


def regions(features: NDArray[np.float64]) -> NDArray[np.str_]:
    """(n,) the region of each batch of (n, 9) features: decode, prefill or mixed."""
    prefill, decode = features[:, NUM_PREFILLS] > 0, features[:, NUM_DECODES] > 0
    return np.where(prefill & decode, "mixed", np.where(prefill, "prefill", "decode"))


def errors_by_region(
    features: NDArray[np.float64],
    seconds: NDArray[np.float64],
    predicted_s: NDArray[np.float64],
    chosen: NDArray[np.bool_],
) -> dict[str, RegionError]:
    """Errors of the chosen batches: "all", then each region that has one."""
    error = np.abs(predicted_s / seconds - 1.0)
    where = regions(features)
    masks = {"all": chosen} | {region: chosen & (where == region) for region in REGIONS}
    return {
        region: RegionError(int(mask.sum()), float(error[mask].mean()), float(np.quantile(error[mask], 0.95)))
        for region, mask in masks.items()
        if mask.any()
    }


def _checked(features: ArrayLike, seconds: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(features, np.float64), np.asarray(seconds, np.float64)
    if x.ndim != 2 or x.shape[1] != NUM_FEATURES or y.shape != x.shape[:1]:
        raise FitError(f"expected (n, {NUM_FEATURES}) features and (n,) seconds, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and (x >= 0.0).all()):
        raise FitError("features must be finite and not negative")
    if not (np.isfinite(y).all() and (y > 0.0).all()):
        raise FitError("seconds must be finite and positive")
    different = len(np.unique(x, axis=0))
    if different < _FEWEST_BATCHES:
        raise FitError(f"needs at least {_FEWEST_BATCHES} different batches, got {different}")
    return x, y


def _groups(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) 0 for held-out batches, else a fold; repeats of a batch stay together, whatever their order."""
    _, which = np.unique(x, axis=0, return_inverse=True)
    count = int(which.max()) + 1
    shuffled = np.random.default_rng(0).permutation(count)
    fold = np.empty(count, np.int64)
    fold[shuffled] = np.arange(count) % (_NUM_FOLDS + 1)
    found: NDArray[np.int64] = fold[which.reshape(-1)]
    return found


@dataclass(frozen=True)
class _Fold:
    """Least squares without a fold, and what is needed to judge the answer on it."""

    triangle: NDArray[np.float64]  # (k, num_pieces) of the QR decomposition of the scaled columns
    target: NDArray[np.float64]  # (k,)
    left_out: NDArray[np.float64]  # (m, num_pieces) scaled columns of the fold, over its seconds


@dataclass(frozen=True)
class _Problem:
    """Relative least squares over every candidate piece, factored once so that any subset is solved at once."""

    pieces: tuple[Piece, ...]
    scale: NDArray[np.float64]  # (num_pieces,) largest share of a batch's time at coefficient 1
    columns: NDArray[np.float64]  # (n, num_pieces) shares of time, scaled
    whole: _Fold
    folds: tuple[_Fold, ...]

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64], fold: NDArray[np.int64]) -> _Problem:
        pieces = (*LINEAR, *MIXED, *_bends(x))
        columns = np.stack([piece.column(x) for piece in pieces], axis=1) / y[:, None]
        scale = columns.max(axis=0)
        scale[scale <= 0.0] = np.inf
        columns = columns / scale
        every = np.zeros(len(y), np.bool_)
        folds = tuple(_fold(columns, fold == number) for number in np.unique(fold))
        return cls(pieces, scale, columns, _fold(columns, every), folds)

    def error(self, chosen: Sequence[int]) -> float:
        """Cross-validated mean absolute relative error."""
        total = sum(np.abs(one.left_out[:, chosen] @ _nnls(one, chosen) - 1.0).sum() for one in self.folds)
        return float(total) / len(self.columns)


def _fold(columns: NDArray[np.float64], left_out: NDArray[np.bool_]) -> _Fold:
    q, triangle = np.linalg.qr(columns[~left_out])
    return _Fold(triangle, q.sum(axis=0), columns[left_out])  # the target is 1 everywhere


def _nnls(problem: _Fold, chosen: Sequence[int]) -> NDArray[np.float64]:
    from scipy.optimize import nnls

    found: NDArray[np.float64] = nnls(problem.triangle[:, chosen], problem.target)[0]
    return found


def _bends(x: NDArray[np.float64]) -> Iterator[Piece]:
    """Pieces that bend within the measured range, at knots that are even on a log scale."""
    for feature in (NUM_TOKENS, DECODE_CONTEXT):
        values = x[:, feature][x[:, feature] > 0.0]
        if not values.size or values.max() <= 2.0 * values.min():
            continue
        low, high = math.log(values.min()), math.log(values.max())
        knots = {float(round(math.exp(low + (high - low) * i / (_NUM_KNOTS + 1)))) for i in range(1, _NUM_KNOTS + 1)}
        for knot in sorted(knots):
            yield Piece(Kind.rising, feature, knot)
            yield Piece(Kind.saturating, feature, knot)


def _select(problem: _Problem, *, concave: bool) -> tuple[list[int], float]:
    """Indices of the pieces to use, chosen greedily, and their cross-validated error."""
    chosen = list(range(NUM_FEATURES))
    error = problem.error(chosen)
    mixed = [i for i, piece in enumerate(problem.pieces) if piece.kind is Kind.mixed]
    bends = [
        [i]
        for i, piece in enumerate(problem.pieces)
        if piece.kind is Kind.rising or (concave and piece.kind is Kind.saturating)
    ]
    candidates = [mixed, *bends]
    for _ in range(_MOST_PIECES):
        tried = [(problem.error([*chosen, *more]), more) for more in candidates if more[0] not in chosen]
        lowest, more = min(tried)
        if lowest > _WORTH_ADDING * error:
            break
        chosen += more
        error = lowest
    return chosen, error


def _solved(problem: _Problem, chosen: Sequence[int]) -> tuple[list[Piece], list[float]]:
    """The pieces that matter and their coefficients, rounded to six digits."""
    for _ in range(2):  # the second time without those that matter nowhere
        scaled = _nnls(problem.whole, chosen)
        shares = (problem.columns[:, chosen] * scaled).max(axis=0)
        kept = [index for index, share in zip(chosen, shares, strict=True) if share > _LEAST_SHARE]
        weights = {index: weight / problem.scale[index] for index, weight in zip(chosen, scaled, strict=True)}
        chosen = kept
    return [problem.pieces[i] for i in chosen], [float(f"{weights[i]:.6g}") for i in chosen]
