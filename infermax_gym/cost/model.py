"""`CostModel`: how long an iteration takes, as a small array that everything in the project shares."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym import files
from infermax_gym.cost.features import FEATURE_NAMES, NUM_FEATURES

Form = tuple[float, ...]


class CostModelError(ValueError):
    """A cost model, or the file that holds one, is not usable; the message says where and why."""


@dataclass(frozen=True)
class CostModel:
    """Seconds per iteration: a sum of terms, each the maximum or minimum of a few linear forms of the batch features.

    INFERMAX's model is one term with one form; a roofline (compute bound against memory bound) is one term
    with two. A mixture of experts needs a minimum: the first tokens each wake experts whose weights must be read,
    the later ones find them awake. Maxima alone are convex, minima are not.

    Attributes:
        name: short name, kebab-case.
        terms: those that are the maximum of their forms. terms[t][f] are nine coefficients in seconds per
            feature, in the order of `infermax_gym.cost.features`.
        min_terms: those that are the minimum of their forms, likewise. Their values may be negative as long as
            those of `terms` make up for it.
        floor_context: round decode contexts as INFERMAX's simulator does (mean context, counted one token
            higher, floored). Off for every model but the `-infermax` twins.
        num_devices: devices that run one replica (for GPU cost).
        price_usd_per_device_hour: price of a device, or None if unknown.
        source: where the figures come from.

    Raises:
        CostModelError: a coefficient is not finite, or some batch would take negative time.
    """

    name: str
    terms: tuple[tuple[Form, ...], ...]
    floor_context: bool = False
    num_devices: int = 1
    price_usd_per_device_hour: float | None = None
    source: str = ""
    min_terms: tuple[tuple[Form, ...], ...] = ()

    def __post_init__(self) -> None:
        where = f"cost model {self.name!r}"
        for name in ("terms", "min_terms"):
            object.__setattr__(self, name, _numbers(getattr(self, name), f"{where}: {name}"))
        if not self.terms or any(not term for term in (*self.terms, *self.min_terms)):
            raise CostModelError(f"{where}: needs at least one term, each with at least one form")
        for kind, terms in (("term", self.terms), ("min term", self.min_terms)):
            for t, term in enumerate(terms):
                for f, form in enumerate(term):
                    _check_form(form, f"{where}, {kind} {t}, form {f}")
        _check_non_negative(self)
        if self.num_devices < 1:
            raise CostModelError(f"{where}: num_devices must be at least 1, got {self.num_devices}")
        price = self.price_usd_per_device_hour
        if price is not None and not 0.0 <= price < math.inf:
            raise CostModelError(f"{where}: price_usd_per_device_hour must be finite and not negative, got {price}")

    @property
    def is_convex(self) -> bool:
        """Whether the seconds are a convex function of the features: no term is a minimum."""
        return not self.min_terms

    @property
    def theta(self) -> NDArray[np.float64]:
        """(num_forms, 9) coefficients in seconds, the forms of a term adjacent, `min_terms` behind `terms`."""
        return np.array([form for term in (*self.terms, *self.min_terms) for form in term], dtype=np.float64)

    @property
    def term_end(self) -> NDArray[np.int64]:
        """(num_terms,) index one past the last form of each term; negated for `min_terms`."""
        ends = np.cumsum([len(term) for term in (*self.terms, *self.min_terms)], dtype=np.int64)
        ends[len(self.terms) :] *= -1
        return ends

    def seconds(self, prefills: Sequence[tuple[int, int]] = (), decodes: Sequence[int] = ()) -> float:
        """Duration of one batch in seconds, for looking at a model by hand.

        Args:
            prefills: (chunk tokens c, resident tokens m) of each prefill.
            decodes: resident tokens m of each decode.

        Example:
            >>> from infermax_gym.cost import COSTS
            >>> round(COSTS["llama2-7b-a100"].seconds(prefills=[(512, 0)], decodes=[100, 200]), 6)
            0.038654
        """
        from infermax_gym.cost.kernel import batch_seconds

        return float(
            batch_seconds(
                self.theta,
                self.term_end,
                self.floor_context,
                sum(c for c, _ in prefills) + len(decodes),
                sum(c * c + 2 * c * m for c, m in prefills),
                len(prefills),
                sum(m for _, m in prefills),
                sum(decodes),
                len(decodes),
            )
        )

    def to_json(self) -> str:
        """The model as the JSON text that `load_cost_model` reads: schema 1, or 2 if there are `min_terms`."""
        terms = {"terms": self.terms} if self.is_convex else {"terms": self.terms, "min_terms": self.min_terms}
        return json.dumps(
            {
                "schema": 1 if self.is_convex else 2,
                "name": self.name,
                "unit": "seconds",
                "features": list(FEATURE_NAMES),
                **terms,
                "floor_context": self.floor_context,
                "num_devices": self.num_devices,
                "price_usd_per_device_hour": self.price_usd_per_device_hour,
                "source": self.source,
            },
            indent=2,
        )


def _numbers(terms: Any, where: str) -> tuple[tuple[Form, ...], ...]:
    try:
        return tuple(tuple(tuple(_number(x) for x in form) for form in term) for term in terms)
    except (TypeError, ValueError, OverflowError) as error:
        raise CostModelError(f"{where} must be lists of lists of {NUM_FEATURES} numbers ({error})") from None


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is a text")
    return float(value)


def _check_form(form: Form, where: str) -> None:
    if len(form) != NUM_FEATURES:
        raise CostModelError(
            f"{where}: needs {NUM_FEATURES} coefficients ({', '.join(FEATURE_NAMES)}), got {len(form)}"
        )
    for name, value in zip(FEATURE_NAMES, form, strict=True):
        if not math.isfinite(value):
            raise CostModelError(f"{where}: coefficient of {name} must be finite, got {value}")


# Batches that span the cone of feature vectors: P prefills of c tokens behind m each, and D decodes behind d each,
# from the smallest to sizes beyond any engine. A negative form may be dominated by another of its term, so the
# model itself is evaluated.
_CHUNKS = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 10_000_000)
_CONTEXTS = (0, 1, 100, 10_000, 10_000_000)
_COUNTS = (0, 1, 16, 256, 4096)
# What is not convex may dip between two sizes, so those of one prefill or of decodes alone are closer there.
_MORE_SIZES = np.unique(np.geomspace(1.0, 1e7, 120).round())


def _probes(is_convex: bool) -> NDArray[np.float64]:
    """(num_batches, 5) prefills, tokens of each and behind what context, decodes and behind what context."""
    found = list(itertools.product(_COUNTS, _CHUNKS, _CONTEXTS, _COUNTS, _CONTEXTS))
    if not is_convex:
        found += itertools.product((1,), _MORE_SIZES, _CONTEXTS, (0,), (0,))
        found += itertools.product((0,), (1,), (0,), _MORE_SIZES, _CONTEXTS)
    return np.array(found, np.float64)


def _check_non_negative(model: CostModel) -> None:
    batches = _probes(model.is_convex)
    num_prefills, chunk, context, num_decodes, decode_context = batches[batches[:, 0] + batches[:, 3] > 0].T
    phi = np.stack(
        [
            np.ones_like(chunk),
            num_prefills * chunk + num_decodes,
            num_prefills > 0,
            num_prefills * (chunk**2 + 2.0 * chunk * context),
            num_prefills,
            num_prefills * context,
            num_decodes > 0,
            num_decodes * decode_context,
            num_decodes,
        ]
    )
    seconds = sum(np.max(np.array(term) @ phi, axis=0) for term in model.terms)
    seconds += sum(np.min(np.array(term) @ phi, axis=0) for term in model.min_terms)
    worst = int(np.argmin(seconds))
    if seconds[worst] < 0.0:
        raise CostModelError(
            f"cost model {model.name!r}: a batch of {num_prefills[worst]:.0f} prefills (c={chunk[worst]:.0f}, "
            f"m={context[worst]:.0f}) and {num_decodes[worst]:.0f} decodes (m={decode_context[worst]:.0f}) would take "
            f"{seconds[worst]:.3g} s; time must not be negative"
        )


def load_cost_model(path: str | Path) -> CostModel:
    """Read a cost model from the JSON file that `CostModel.to_json` writes.

    Raises:
        CostModelError: the file is missing, is not JSON, lacks a field or has one it should not have, states another
            unit, or holds a model that is not valid; one line.
    """
    path = Path(path)
    try:
        data = json.loads(files.read_text(path))
    except OSError as error:
        raise CostModelError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number with thousands of digits
        raise CostModelError(f"{path}: not JSON ({error})") from None
    try:
        return _from_json(data)
    except CostModelError as error:
        raise CostModelError(f"{path}: {error}") from None


_FIELDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "a text"),
    "terms": (list, "a list"),
    "min_terms": (list, "a list"),
    "floor_context": (bool, "true or false"),
    "num_devices": (int, "a whole number"),
    "price_usd_per_device_hour": ((int, float, type(None)), "a number or null"),
    "source": (str, "a text"),
}
"""Fields of a file that are attributes of the model: type and how to say it."""


def _from_json(data: Any) -> CostModel:
    if not isinstance(data, dict) or data.get("schema") not in (1, 2):
        raise CostModelError('expected an object with "schema": 1 or 2')
    if data.get("unit") != "seconds":
        raise CostModelError(f'"unit" must be "seconds", got {data.get("unit")!r}')
    if data.get("features", list(FEATURE_NAMES)) != list(FEATURE_NAMES):
        raise CostModelError(f'"features" must be {list(FEATURE_NAMES)}')
    for name in ("name", "terms"):
        if name not in data:
            raise CostModelError(f"field {name!r} is missing")
    if data["schema"] == 1 and "min_terms" in data:
        raise CostModelError('"min_terms" needs "schema": 2')
    values = {name: value for name, value in data.items() if name not in ("schema", "unit", "features")}
    for name, value in values.items():
        if name not in _FIELDS:
            raise CostModelError(f"unknown field {name!r}; fields are schema, unit, features, {', '.join(_FIELDS)}")
        kind, what = _FIELDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CostModelError(f"{name!r} must be {what}, got {value!r}")
    return CostModel(**values)
