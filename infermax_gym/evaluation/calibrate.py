"""Factors on a cost model that make the replay of a log agree with it.

At most four numbers are found, on the requests that arrived in the first half of the log: factors on what an iteration
costs anyway (weights, overhead), on what tokens cost (compute) and on what contexts and decodes cost (attention), and
the seconds that a request spends before the engine sees it. The search is Gauss-Newton with damping on the errors of
all requests; it draws nothing at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost import CostModel
from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    NUM_DECODES,
    NUM_PREFILLS,
    NUM_TOKENS,
    PREFILL_CONTEXT,
    PREFILL_WORK,
)
from infermax_gym.cost.model import Form
from infermax_gym.engine import SimulationResult
from infermax_gym.workload.request_log import RequestLog

FACTORS = ("overhead", "compute", "attention", "request_s")
BOUNDS = {"overhead": (0.2, 5.0), "compute": (0.2, 5.0), "attention": (0.2, 5.0), "request_s": (0.0, 5.0)}
FEWEST_REQUESTS = 40

_COMPUTE = frozenset({NUM_TOKENS, PREFILL_WORK, NUM_PREFILLS})
_ATTENTION = frozenset({PREFILL_CONTEXT, DECODE_CONTEXT, NUM_DECODES})
_MOST_STEPS = 12
_FACTOR_STEP, _REQUEST_STEP_S = 0.03, 0.02  # differences that derivatives are taken over
_ENOUGH = 1e-4  # a step that lowers the error by less ends the search

Replay = Callable[[CostModel, float], SimulationResult]
"""Serves the log's requests with a cost model, each so many seconds after its arrival in the log."""


@dataclass(frozen=True)
class Factors:
    """What a calibration finds.

    Attributes:
        overhead: factor on what an iteration costs whatever is in it.
        compute: factor on what its tokens cost.
        attention: factor on what its contexts and decodes cost.
        request_s: seconds between a request's arrival in the log and in the engine.
    """

    overhead: float = 1.0
    compute: float = 1.0
    attention: float = 1.0
    request_s: float = 0.0

    def at_bounds(self) -> tuple[str, ...]:
        """Those that stopped where the search may not go on; a constant of 0 is no such stop."""
        found = []
        for name in FACTORS:
            low, high = BOUNDS[name]
            value = getattr(self, name)
            if value >= high * 0.999 or (low > 0.0 and value <= low * 1.001):
                found.append(name)
        return tuple(found)


@dataclass(frozen=True)
class Calibration:
    """A calibrated cost model.

    Attributes:
        factors: what was found.
        cost: the model with the factors in it, `request_s` left out.
        before: the replay with the model as it was.
        after: the replay with the factors.
        warnings: what speaks against trusting them, a line each.
    """

    factors: Factors
    cost: CostModel
    before: SimulationResult
    after: SimulationResult
    warnings: tuple[str, ...]


def first_half(log: RequestLog) -> NDArray[np.bool_]:
    """(n,) the requests that arrived in the first half, by number."""
    return np.arange(len(log)) < (len(log) + 1) // 2


def calibrate(log: RequestLog, cost: CostModel, replay: Replay) -> Calibration:
    """Find the factors.

    Args:
        log: what happened.
        cost: the model to begin with.
        replay: serves the log's requests; called about fifty times.
    """
    chosen = first_half(log)

    def residuals(values: NDArray[np.float64]) -> NDArray[np.float64]:
        factors = _factors(values)
        return _residuals(log, replay(scaled(cost, factors), factors.request_s), chosen)

    values = _search(residuals, np.zeros(len(FACTORS)))
    factors = _factors(values)
    calibrated = scaled(cost, factors)
    before, after = replay(cost, 0.0), replay(calibrated, factors.request_s)
    return Calibration(factors, calibrated, before, after, tuple(_warnings(log, factors, after)))


def _factors(values: NDArray[np.float64]) -> Factors:
    overhead, compute, attention = (float(f"{math.exp(value):.6g}") for value in values[:3])
    return Factors(overhead, compute, attention, float(f"{values[3]:.6g}"))


def _bounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low = [math.log(BOUNDS[name][0]) for name in FACTORS[:3]] + [BOUNDS["request_s"][0]]
    high = [math.log(BOUNDS[name][1]) for name in FACTORS[:3]] + [BOUNDS["request_s"][1]]
    return np.clip(values, low, high)


def _residuals(log: RequestLog, result: SimulationResult, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Relative errors of TPOT and latency, and errors of TTFT over the mean TTFT, of the chosen requests."""
    mean_ttft = max(float(log.ttft_s[chosen].mean()), 1e-9)
    parts = [
        (result.ttft_s - log.ttft_s)[chosen] / mean_ttft,
        (result.latency_s / np.maximum(log.latency_s, 1e-9) - 1.0)[chosen],
        (result.tpot_s / log.tpot_s - 1.0)[chosen],
    ]
    # A request that the simulated engine cannot finish, or one token alone, says nothing.
    found = np.concatenate([np.clip(np.nan_to_num(part, nan=0.0), -3.0, 3.0) for part in parts])
    return found / math.sqrt(len(found))


def _search(residuals: Callable[[NDArray[np.float64]], NDArray[np.float64]], start: NDArray[np.float64]) -> Any:
    values, damping = start, 1e-3
    here = residuals(values)
    steps = np.array([_FACTOR_STEP] * 3 + [_REQUEST_STEP_S])
    for _ in range(_MOST_STEPS):
        slopes = []
        for i, step in enumerate(steps):
            moved = values.copy()
            moved[i] += step
            slopes.append((residuals(_bounded(moved)) - here) / step)
        jacobian = np.stack(slopes, axis=1)
        improved = False
        for _ in range(5):
            square = jacobian.T @ jacobian
            ridge = damping * (np.diag(np.diag(square)) + 1e-6 * np.eye(len(values)))
            move = -np.linalg.solve(square + ridge, jacobian.T @ here)
            tried = _bounded(values + move)
            there = residuals(tried)
            gain = float(here @ here - there @ there)
            if gain > 0.0:
                improved = gain > _ENOUGH * float(here @ here)
                values, here, damping = tried, there, max(damping / 10.0, 1e-6)
                break
            damping *= 10.0
        if not improved:
            break
    return values


def _warnings(log: RequestLog, factors: Factors, after: SimulationResult) -> list[str]:
    found = []
    if len(log) < FEWEST_REQUESTS:
        found.append(f"{len(log)} requests are too few to trust the factors; expected at least {FEWEST_REQUESTS}")
    iteration_s = after.busy_s / max(after.num_iterations, 1)
    waited = after.first_scheduled_s - log.workload.arrival_s - factors.request_s > 2.0 * iteration_s
    if waited.mean() < 0.05:
        found.append("hardly any request waited, so the log does not show how the engine behaves under load")
    low_high = {name: BOUNDS[name] for name in factors.at_bounds()}
    for name, (low, high) in low_high.items():
        found.append(f"{name} stopped at its bound ({low:g} to {high:g}); the model may not be of this engine")
    return found


def scaled(cost: CostModel, factors: Factors) -> CostModel:
    """The model with factors on its coefficients.

    A term of which all sizes are of one kind is scaled as a whole, so that where it bends stays; in others each
    coefficient has the factor of its feature, but a form with a negative coefficient that of its largest share.
    """
    by_field: dict[str, Any] = {}
    for name in ("terms", "min_terms"):
        by_field[name] = tuple(tuple(_scaled_term(term, factors)) for term in getattr(cost, name))
    return replace(cost, name=f"{cost.name}-calibrated", **by_field)


def _scaled_term(term: tuple[Form, ...], factors: Factors) -> list[Form]:
    kinds = {_kind(i) for form in term for i, value in enumerate(form) if value and _kind(i) != "overhead"}
    if len(term) > 1 and len(kinds) == 1:
        factor = getattr(factors, kinds.pop())
        return [tuple(factor * value for value in form) for form in term]
    return [_scaled_form(form, factors) for form in term]


def _scaled_form(form: Form, factors: Factors) -> Form:
    if min(form) >= 0.0:
        return tuple(getattr(factors, _kind(i)) * value for i, value in enumerate(form))
    kinds = [_kind(i) for i, value in enumerate(form) if value > 0.0 and _kind(i) != "overhead"]
    factor = getattr(factors, kinds[0] if kinds else "overhead")
    return tuple(factor * value for value in form)


def _kind(feature: int) -> str:
    return "compute" if feature in _COMPUTE else "attention" if feature in _ATTENTION else "overhead"
