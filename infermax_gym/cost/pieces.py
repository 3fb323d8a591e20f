"""What a fitted cost is made of: pieces with one non-negative coefficient each, which become a model's terms.

A piece is linear in a feature, bends up at a knot (a maximum with 0), bends down at one (a minimum), or counts decodes
only beside prefills. Any sum of them with non-negative coefficients is never negative, and without a piece that bends
down it is convex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    FEATURE_NAMES,
    HAS_PREFILL,
    NUM_DECODES,
    NUM_FEATURES,
    ONE,
)
from infermax_gym.cost.model import CostModel, Form

# Sizes beyond any engine: a decode-only batch within them pays nothing for the pieces that need a prefill.
_MOST = {NUM_DECODES: 1e5, DECODE_CONTEXT: 1e8}


class Kind(str, Enum):
    """How a piece depends on its feature x."""

    linear = "linear"  # x
    rising = "rising"  # max(0, x - knot)
    saturating = "saturating"  # min(x, knot)
    mixed = "mixed"  # x beside prefills, else 0


@dataclass(frozen=True)
class Piece:
    """A part of a cost with one coefficient.

    Attributes:
        kind: how it depends on the feature.
        feature: index in `infermax_gym.cost.features`.
        knot: where it bends, in units of the feature; 0 of pieces that do not.
    """

    kind: Kind
    feature: int
    knot: float = 0.0

    @property
    def forms(self) -> tuple[Form, ...]:
        """Its linear forms at coefficient 1, of which the piece is the maximum, or the minimum if it saturates."""
        if self.kind is Kind.linear:
            return (_form({self.feature: 1.0}),)
        if self.kind is Kind.rising:
            return (_form({}), _form({ONE: -self.knot, self.feature: 1.0}))
        if self.kind is Kind.saturating:
            return (_form({self.feature: 1.0}), _form({ONE: self.knot}))
        most = _MOST[self.feature]
        return (_form({}), _form({ONE: -most, HAS_PREFILL: most, self.feature: 1.0}))

    def column(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) values at coefficient 1 of (n, 9) features."""
        values = np.array(self.forms) @ features.T
        lowest_or_highest = np.min if self.kind is Kind.saturating else np.max
        found: NDArray[np.float64] = lowest_or_highest(values, axis=0)
        return found

    def __str__(self) -> str:
        name = FEATURE_NAMES[self.feature]
        texts = {
            Kind.linear: name,
            Kind.rising: f"max(0, {name} - {self.knot:g})",
            Kind.saturating: f"min({name}, {self.knot:g})",
            Kind.mixed: f"{name} beside prefills",
        }
        return texts[self.kind]


LINEAR = tuple(Piece(Kind.linear, feature) for feature in range(NUM_FEATURES))
MIXED = (Piece(Kind.mixed, NUM_DECODES), Piece(Kind.mixed, DECODE_CONTEXT))


def _form(values: dict[int, float]) -> Form:
    form = [0.0] * NUM_FEATURES
    for feature, value in values.items():
        form[feature] += value
    return tuple(form)


def assemble(pieces: Sequence[Piece], coefficients: Sequence[float], **fields: Any) -> CostModel:
    """The cost model that is the sum of pieces times their coefficients; `fields` are the model's other fields.

    All linear pieces share a form and all mixed ones a term, so that evaluating the model stays cheap.
    """
    scaled = [
        (piece.kind, [tuple(weight * value for value in form) for form in piece.forms])
        for piece, weight in zip(pieces, coefficients, strict=True)
        if weight > 0.0
    ]
    terms: list[tuple[Form, ...]] = [(_total([forms[0] for kind, forms in scaled if kind is Kind.linear]),)]
    terms += [tuple(forms) for kind, forms in scaled if kind is Kind.rising]
    mixed = [forms[1] for kind, forms in scaled if kind is Kind.mixed]
    if mixed:
        terms.append((_form({}), _total(mixed)))
    lowest = tuple(tuple(forms) for kind, forms in scaled if kind is Kind.saturating)
    if lowest:
        fields["min_terms"] = lowest
    return CostModel(terms=tuple(terms), **fields)


def _total(forms: Sequence[Form]) -> Form:
    return tuple(float(sum(column)) for column in zip(*forms, strict=True)) if forms else _form({})


def seconds_of(model: CostModel, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) seconds that a model gives batches with (n, 9) features, their contexts exact."""
    highest = [np.max(np.array(term) @ features.T, axis=0) for term in model.terms]
    lowest = [np.min(np.array(term) @ features.T, axis=0) for term in model.min_terms]
    total: NDArray[np.float64] = np.sum([*highest, *lowest], axis=0)
    return total
