"""A cost model from an operator profile.

Iterations that can occur (within token budget, sequences and KV memory) are put together from the operators' times, and
non-negative least squares of relative errors finds the coefficients. Iterations weigh as often as they occur: an answer
of some hundred tokens takes as many iterations, a prompt one or two, so nine of ten are decodes alone. Everything is
deterministic and takes some seconds. Needs scipy (the extra `fit`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    HAS_DECODE,
    HAS_PREFILL,
    NUM_DECODES,
    NUM_FEATURES,
    NUM_TOKENS,
    ONE,
    PREFILL_CONTEXT,
    PREFILL_WORK,
)
from infermax_gym.cost.model import CostModel, Form
from infermax_gym.cost.profiles import OperatorProfile, ProfileError
from infermax_gym.cost.roofline.devices import AllReduce
from infermax_gym.streams import stream

_NUM_BATCHES = {"decode": 2000, "prefill": 800, "mixed": 3000}
_WEIGHT = {"decode": 0.9, "prefill": 0.02, "mixed": 0.08}
_FEWEST = 30
_SHORTEST_CONTEXT = 16.0
_BEYOND_ANY_BATCH = 1e8  # decode contexts and numbers stay below, so that a form can be switched off by a feature


CONTEXT_SKEW = {("rtx-pro-6000", 1): 0.0535, ("rtx-pro-6000", 2): 0.0668}
"""`Deployment.context_skew` by device and tensor parallelism, as far as it was measured. Source: pooled figures of
LLMServingSim's attention profiles of decodes with unlike contexts, Llama-3.1-8B on vLLM."""


@dataclass(frozen=True)
class Deployment:
    """What an engine makes of a profile.

    Attributes:
        num_layers: of the model.
        max_num_batched_tokens: most tokens of an iteration.
        max_num_seqs: most requests of an iteration.
        num_kv_tokens: KV memory in tokens.
        tensor_parallel: devices that share each layer; above 1 each layer has two all-reduces.
        hidden_size: of the model, for their bytes (two per value).
        all_reduce: what one takes, latency and seconds per byte.
        context_skew: how much more decodes take whose contexts differ: attention then takes
            t(mean) + skew x (t(longest) - t(mean)), with contexts spread evenly from 0 to twice their mean.
    """

    num_layers: int
    max_num_batched_tokens: int
    max_num_seqs: int
    num_kv_tokens: int
    tensor_parallel: int = 1
    hidden_size: int = 0
    all_reduce: AllReduce | None = None
    context_skew: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_layers", "max_num_batched_tokens", "max_num_seqs", "num_kv_tokens", "tensor_parallel"):
            if getattr(self, name) < 1:
                raise ProfileError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.tensor_parallel > 1 and (self.all_reduce is None or self.hidden_size < 1):
            raise ProfileError("tensor parallelism needs the model's hidden size and what an all-reduce takes")
        if not 0.0 <= self.context_skew <= 1.0:
            raise ProfileError(f"context_skew must be in [0, 1], got {self.context_skew}")


@dataclass(frozen=True)
class Batches:
    """Iterations put together from a profile.

    Attributes:
        features: (n, 9), in the order of `infermax_gym.cost.features`.
        seconds: (n,) what each takes.
    """

    features: NDArray[np.float64]
    seconds: NDArray[np.float64]


@dataclass(frozen=True)
class ProfileFit:
    """A cost model and how well it reproduces the iterations that it was fitted to.

    Attributes:
        cost: the model.
        batches: those iterations.
        errors: by region (decode, prefill, mixed): mean absolute relative error and its 95th percentile.
    """

    cost: CostModel
    batches: Batches
    errors: dict[str, tuple[float, float]]


def fit_profile(profile: OperatorProfile, deployment: Deployment, *, name: str, source: str = "") -> ProfileFit:
    """Fit a cost model to a profile.

    Args:
        profile: operator times.
        deployment: the engine.
        name: of the model.
        source: where the figures come from.

    Raises:
        ProfileError: too few iterations that can occur lie within the profile.
    """
    parts = [_compose(profile, deployment, region) for region in _NUM_BATCHES]
    for region, part in zip(_NUM_BATCHES, parts, strict=True):
        if len(part.seconds) < _FEWEST:
            raise ProfileError(f"only {len(part.seconds)} {region} batches of this engine lie within the profile")
    x = np.concatenate([part.features for part in parts])
    y = np.concatenate([part.seconds for part in parts])
    weight = np.concatenate(
        [
            np.full(len(part.seconds), _WEIGHT[region] / len(part.seconds))
            for region, part in zip(_NUM_BATCHES, parts, strict=True)
        ]
    )
    pieces = list(_pieces(deployment))
    columns = np.stack([piece.column(x) for piece in pieces], axis=1) / y[:, None]
    coefficients = _solve(columns, np.sqrt(weight))
    cost = _assemble(pieces, coefficients, name=name, num_devices=deployment.tensor_parallel, source=source)
    errors, start = {}, 0
    relative = np.abs(columns @ coefficients - 1.0)
    for region, part in zip(_NUM_BATCHES, parts, strict=True):
        mine = relative[start : start + len(part.seconds)]
        errors[region] = (float(mine.mean()), float(np.quantile(mine, 0.95)))
        start += len(part.seconds)
    return ProfileFit(cost, Batches(x, y), errors)


def _compose(profile: OperatorProfile, engine: Deployment, region: str) -> Batches:
    """Iterations of a region: sizes even on a log scale, chunks denser where they are large, as budgets fill them."""
    rng = stream(0, "workload")
    u = rng.random((6, _NUM_BATCHES[region]))
    if region == "prefill":
        decodes = context = np.zeros(u.shape[1])
    else:
        most = engine.max_num_seqs - (region == "mixed")
        decodes = np.floor(np.exp(u[0] * math.log(max(most, 1) + 1.0)))
        longest = np.maximum(engine.num_kv_tokens / decodes, 2.0 * _SHORTEST_CONTEXT)
        longest = np.minimum(longest, profile.decodes.axes[1][-1])
        context = np.floor(_SHORTEST_CONTEXT * (longest / _SHORTEST_CONTEXT) ** u[1])
    if region == "decode":
        chunk = before = np.zeros(u.shape[1])
    else:
        chunk = np.floor(1.0 + (engine.max_num_batched_tokens - decodes - 1.0) * u[2] ** 2)
        deepest = profile.prefills.axes[1][-1]
        before = np.where(u[3] < 0.5, 0.0, np.floor(_SHORTEST_CONTEXT * (deepest / _SHORTEST_CONTEXT) ** u[4]))
    can_occur = (chunk + before + decodes * (context + 1.0) <= engine.num_kv_tokens) & (chunk + decodes >= 1.0)
    can_occur &= (region == "decode") | (chunk >= 1.0)
    c, m, n, kv = (values[can_occur] for values in (chunk, before, decodes, context))
    attention = _attention(profile, c, m, n, kv, engine.context_skew, region)
    sequences = n + (c > 0)
    seconds = (
        profile.dense_s(c + n, engine.num_layers) + profile.per_sequence_s(sequences) + engine.num_layers * attention
    )
    if engine.all_reduce is not None and engine.tensor_parallel > 1:
        message = (c + n) * engine.hidden_size * 2.0
        each = engine.all_reduce.latency_s + engine.all_reduce.seconds_per_byte * message
        seconds += 2 * engine.num_layers * each
    x = np.zeros((len(c), NUM_FEATURES))
    x[:, ONE], x[:, NUM_TOKENS] = 1.0, c + n
    x[:, HAS_PREFILL], x[:, PREFILL_WORK], x[:, PREFILL_CONTEXT] = c > 0, c * c + 2.0 * c * m, m
    x[:, HAS_DECODE], x[:, DECODE_CONTEXT], x[:, NUM_DECODES] = n > 0, n * kv, n
    x[:, 4] = c > 0
    measured = np.isfinite(seconds)
    return Batches(x[measured], seconds[measured])


def _attention(profile: OperatorProfile, c: Any, m: Any, n: Any, kv: Any, skew: float, region: str) -> Any:
    """(n,) seconds of a layer's attention; nan where the profile does not reach."""
    if region == "prefill":
        return profile.prefills.at(c, m)

    def at(context: Any) -> Any:
        return profile.decodes.at(n, context) if region == "decode" else profile.mixed.at(c, m, n, context)

    mean = at(kv)
    if not skew:
        return mean
    longest = at(np.minimum(np.where(n > 1.0, 2.0 * kv, kv), profile.decodes.axes[1][-1]))
    return mean + skew * (longest - mean)


@dataclass(frozen=True)
class _Piece:
    """A linear form; or the maximum of 0 and a form; or the minimum of two forms."""

    forms: tuple[Form, ...]
    saturates: bool = False

    def column(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        values = x @ np.array(self.forms).T
        found: NDArray[np.float64] = values.min(axis=1) if self.saturates else values.max(axis=1)
        return found


def _pieces(engine: Deployment) -> Iterator[_Piece]:
    nothing = _form()
    for feature in _FEATURE:
        yield _Piece((_form(**{feature: 1.0}),))
    token_knots = list(_knots(16, engine.max_num_batched_tokens, 1.5))
    decode_knots = list(_knots(8, engine.max_num_seqs, 2.0))
    context_knots = list(_knots(2048, engine.num_kv_tokens, 2.0))
    for feature, knots in (("T", token_knots), ("D", decode_knots), ("K", context_knots)):
        for knot in knots:
            yield _Piece((nothing, _form(**{feature: 1.0, "one": -knot})))
            yield _Piece((_form(**{feature: 1.0}), _form(one=knot)), saturates=True)
    for each in (64.0, 128.0, 256.0, 512.0, 1024.0):  # the first tokens of each context
        yield _Piece((_form(K=1.0), _form(D=each)), saturates=True)
    # Beside prefills only: without one, the form is far below 0.
    away = _BEYOND_ANY_BATCH
    yield _Piece((nothing, _form(D=1.0, P=away, one=-away)))
    for knot in (0.0, *context_knots):
        yield _Piece((nothing, _form(K=1.0, P=away, one=-away - knot)))
    for each in (64.0, 128.0, 256.0, 512.0, 1024.0):  # the last tokens of each context
        yield _Piece((nothing, _form(K=1.0, D=-each, P=away, one=-away)))


def _form(**weights: float) -> Form:
    form = [0.0] * NUM_FEATURES
    for feature, value in weights.items():
        form[_FEATURE[feature]] = value
    return tuple(form)


_FEATURE = {
    "one": ONE,
    "T": NUM_TOKENS,
    "P": HAS_PREFILL,
    "W": PREFILL_WORK,
    "M": PREFILL_CONTEXT,
    "H": HAS_DECODE,
    "K": DECODE_CONTEXT,
    "D": NUM_DECODES,
}


def _knots(low: float, high: float, factor: float) -> Iterator[float]:
    knot = low
    while knot < high:
        yield float(round(knot))
        knot *= factor


def _solve(columns: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) non-negative coefficients, to six digits."""
    from scipy.optimize import nnls

    scale = columns.max(axis=0)
    scale[scale <= 0.0] = np.inf
    q, triangle = np.linalg.qr((columns / scale) * weight[:, None])
    found = nnls(triangle, q.T @ weight, maxiter=50 * columns.shape[1])[0]
    return np.array([float(f"{value:.6g}") for value in found / scale])


def _assemble(pieces: Sequence[_Piece], coefficients: NDArray[np.float64], **fields: Any) -> CostModel:
    linear = np.zeros(NUM_FEATURES)
    terms: list[tuple[Form, ...]] = []
    min_terms: list[tuple[Form, ...]] = []
    for piece, weight in zip(pieces, coefficients, strict=True):
        if weight <= 0.0:
            continue
        forms = tuple(tuple(weight * value for value in form) for form in piece.forms)
        if len(forms) == 1:
            linear += forms[0]
        else:
            (min_terms if piece.saturates else terms).append(forms)
    if min_terms:
        fields["min_terms"] = tuple(min_terms)
    return CostModel(terms=((tuple(linear.tolist()),), *terms), **fields)
