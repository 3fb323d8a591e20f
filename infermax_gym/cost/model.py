"""`CostModel`: how long an iteration takes, as a small array that everything in the project shares."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost.features import FEATURE_NAMES, NUM_FEATURES

Form = tuple[float, ...]


class CostModelError(ValueError):
    """A cost model, or the file that holds one, is not usable; the message says where and why."""


@dataclass(frozen=True)
class CostModel:
    """Seconds per iteration: a sum of terms, each the maximum of a few linear forms over the batch features.

    INFERMAX's model is one term with one form; a roofline (compute bound against memory bound) is one term
    with two. Since every model is convex and piecewise linear, it enters a constraint program exactly.

    Attributes:
        name: short name, kebab-case.
        terms: terms[t][f] are nine coefficients in seconds per feature, in the order of
            `infermax_gym.cost.features`.
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

    def __post_init__(self) -> None:
        if not self.terms or any(not term for term in self.terms):
            raise CostModelError(f"cost model {self.name!r}: needs at least one term, each with at least one form")
        for t, term in enumerate(self.terms):
            for f, form in enumerate(term):
                _check_form(form, f"cost model {self.name!r}, term {t}, form {f}")
        _check_non_negative(self)
        if self.num_devices < 1:
            raise CostModelError(f"cost model {self.name!r}: num_devices must be at least 1, got {self.num_devices}")

    @property
    def theta(self) -> NDArray[np.float64]:
        """(num_forms, 9) coefficients in seconds, the forms of a term adjacent."""
        return np.array([form for term in self.terms for form in term], dtype=np.float64)

    @property
    def term_end(self) -> NDArray[np.int64]:
        """(num_terms,) index one past the last form of each term."""
        return np.cumsum([len(term) for term in self.terms], dtype=np.int64)

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
        """The model as the JSON text that `load_cost_model` reads."""
        return json.dumps(
            {
                "schema": 1,
                "name": self.name,
                "unit": "seconds",
                "features": list(FEATURE_NAMES),
                "terms": [[list(form) for form in term] for term in self.terms],
                "floor_context": self.floor_context,
                "num_devices": self.num_devices,
                "price_usd_per_device_hour": self.price_usd_per_device_hour,
                "source": self.source,
            },
            indent=2,
        )


def _check_form(form: Form, where: str) -> None:
    if len(form) != NUM_FEATURES:
        raise CostModelError(f"{where}: needs {NUM_FEATURES} coefficients ({', '.join(FEATURE_NAMES)}), got {len(form)}")
    for name, value in zip(FEATURE_NAMES, form, strict=True):
        if not math.isfinite(value):
            raise CostModelError(f"{where}: coefficient of {name} must be finite, got {value}")


# Batches that span the cone of reachable feature vectors: one prefill or decode at the smallest and at huge
# sizes. A negative form may be dominated by another of its term, so the model itself is evaluated.
_EXTREME = (1, 16, 1_000, 100_000, 10_000_000)


def _check_non_negative(model: CostModel) -> None:
    for small in _EXTREME:
        for large in (0, *_EXTREME):
            batches = (
                ([(small, large)], []),
                ([(small, large)] * 64, []),
                ([], [large]),
                ([], [large] * 64),
                ([(small, large)], [large] * 64),
            )
            for prefills, decodes in batches:
                phi = _features(prefills, decodes)
                seconds = sum(max(float(np.dot(form, phi)) for form in term) for term in model.terms)
                if seconds < 0.0:
                    raise CostModelError(
                        f"cost model {model.name!r}: a batch of {len(prefills)} prefills (c={small}, m={large}) and "
                        f"{len(decodes)} decodes (m={large}) would take {seconds:.3g} s; time must not be negative"
                    )


def _features(prefills: list[tuple[int, int]], decodes: list[int]) -> NDArray[np.float64]:
    return np.array(
        [
            1.0,
            sum(c for c, _ in prefills) + len(decodes),
            float(bool(prefills)),
            sum(float(c) * c + 2.0 * c * m for c, m in prefills),
            len(prefills),
            sum(m for _, m in prefills),
            float(bool(decodes)),
            sum(decodes),
            len(decodes),
        ]
    )


def load_cost_model(path: str | Path) -> CostModel:
    """Read a cost model from the JSON file that `CostModel.to_json` writes.

    Raises:
        CostModelError: the file is missing, is not JSON, lacks a field, states another unit, or holds a model
            that is not valid.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CostModelError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CostModelError(f"{path}: not JSON ({error})") from None
    return _from_dict(data, str(path))


def _from_dict(data: Any, where: str) -> CostModel:
    if not isinstance(data, dict) or data.get("schema") != 1:
        raise CostModelError(f'{where}: expected an object with "schema": 1')
    if data.get("unit") != "seconds":
        raise CostModelError(f'{where}: "unit" must be "seconds", got {data.get("unit")!r}')
    if data.get("features", list(FEATURE_NAMES)) != list(FEATURE_NAMES):
        raise CostModelError(f'{where}: "features" must be {list(FEATURE_NAMES)}')
    try:
        terms = tuple(tuple(tuple(float(x) for x in form) for form in term) for term in data["terms"])
        price = data.get("price_usd_per_device_hour")
        return CostModel(
            name=str(data["name"]),
            terms=terms,
            floor_context=bool(data.get("floor_context", False)),
            num_devices=int(data.get("num_devices", 1)),
            price_usd_per_device_hour=None if price is None else float(price),
            source=str(data.get("source", "")),
        )
    except KeyError as error:
        raise CostModelError(f"{where}: field {error} is missing") from None
    except CostModelError as error:
        raise CostModelError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise CostModelError(f"{where}: {error}") from None
