"""How long requests are: token counts as plain records with a `sample` method.

A marginal maps standard normal scores to token counts, so any two of them can be joined by a Gaussian copula.
The first k of n sampled requests do not depend on n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.workload.workload import WorkloadError


class Marginal(Protocol):
    """The distribution of one token count."""

    def tokens(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Token counts at standard normal scores: (n,) float64 -> (n,) int64, not decreasing in the score."""
        ...


@dataclass(frozen=True)
class Constant:
    """Always the same count.

    Attributes:
        num_tokens: the count, at least 1.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        _check(self.num_tokens >= 1, f"Constant: num_tokens must be at least 1, got {self.num_tokens}")

    def tokens(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `Marginal.tokens`."""
        return np.full(len(scores), self.num_tokens, np.int64)


@dataclass(frozen=True)
class LogNormal:
    """A log-normal count, rounded and clipped.

    Attributes:
        mean: mean of the log-normal before clipping, in tokens.
        sigma: standard deviation of its logarithm.
        low: smallest count, at least 1.
        high: largest count.
    """

    mean: float
    sigma: float
    low: int = 1
    high: int = 32_768

    def __post_init__(self) -> None:
        _check(0.0 < self.mean < math.inf, f"LogNormal: mean must be positive, got {self.mean}")
        _check(0.0 <= self.sigma < math.inf, f"LogNormal: sigma must not be negative, got {self.sigma}")
        _check(1 <= self.low <= self.high, f"LogNormal: needs 1 <= low <= high, got {self.low} and {self.high}")

    def tokens(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `Marginal.tokens`."""
        mu = math.log(self.mean) - 0.5 * self.sigma**2
        return _whole(np.clip(np.exp(mu + self.sigma * scores), self.low, self.high))


@dataclass(frozen=True)
class Quantiles:
    """An empirical distribution as a table, interpolated between its knots in log tokens over normal scores.

    Attributes:
        scores: standard normal scores of the knots, strictly increasing; beyond the ends the end counts hold.
        num_tokens: token count at each knot, not decreasing, at least 1.
    """

    scores: tuple[float, ...]
    num_tokens: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(
            len(self.scores) == len(self.num_tokens) > 0,
            f"Quantiles: needs as many counts as scores, got {len(self.num_tokens)} and {len(self.scores)}",
        )
        _check(bool(np.all(np.diff(self.scores) > 0)), "Quantiles: scores must increase")
        _check(bool(np.all(np.diff(self.num_tokens) >= 0)), "Quantiles: num_tokens must not decrease")
        _check(self.num_tokens[0] >= 1, f"Quantiles: counts must be at least 1, got {self.num_tokens[0]}")

    def tokens(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `Marginal.tokens`."""
        return _whole(np.exp(np.interp(scores, self.scores, np.log(self.num_tokens))))


@dataclass(frozen=True)
class Uniform:
    """Every whole number between two ends alike.

    Attributes:
        low: smallest count, at least 1.
        high: largest count.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        _check(1 <= self.low <= self.high, f"Uniform: needs 1 <= low <= high, got {self.low} and {self.high}")

    def tokens(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """See `Marginal.tokens`."""
        shares = np.array([0.5 * math.erfc(-score / math.sqrt(2.0)) for score in scores.tolist()])
        return np.minimum(self.low + (shares * (self.high - self.low + 1)).astype(np.int64), self.high)


class LengthSample(NamedTuple):
    """Lengths of n requests: token counts, and which component of a mixture each came from (else zeros)."""

    num_prompt_tokens: NDArray[np.int64]
    num_output_tokens: NDArray[np.int64]
    component: NDArray[np.int64]


class Lengths(Protocol):
    """Anything that draws prompt and output lengths."""

    def sample(self, rng: np.random.Generator, n: int) -> LengthSample:
        """Draw the lengths of n requests; `rng` must know its seed sequence (`np.random.default_rng` does)."""
        ...


@dataclass(frozen=True)
class Joint:
    """Prompt and output lengths, tied by a Gaussian copula.

    Attributes:
        prompt: distribution of the prompt length.
        output: distribution of the output length.
        correlation: of the two normal scores, in [-1, 1]; 0 is independence.
    """

    prompt: Marginal
    output: Marginal
    correlation: float = 0.0

    def __post_init__(self) -> None:
        _check(-1.0 <= self.correlation <= 1.0, f"Joint: correlation must lie in [-1, 1], got {self.correlation}")

    def sample(self, rng: np.random.Generator, n: int) -> LengthSample:
        """See `Lengths.sample`."""
        prompt, other = rng.standard_normal((n, 2)).T
        output = self.correlation * prompt + math.sqrt(1.0 - self.correlation**2) * other
        return LengthSample(self.prompt.tokens(prompt), self.output.tokens(output), np.zeros(n, np.int64))


@dataclass(frozen=True)
class Mixture:
    """Several kinds of request, each drawn independently with a fixed weight.

    Attributes:
        weights: of the components, positive; they need not sum to 1.
        components: lengths of each kind.
    """

    weights: tuple[float, ...]
    components: tuple[Joint, ...]

    def __post_init__(self) -> None:
        _check(
            len(self.weights) == len(self.components) > 0,
            f"Mixture: needs as many weights as components, got {len(self.weights)} and {len(self.components)}",
        )
        _check(min(self.weights) > 0.0, f"Mixture: weights must be positive, got {self.weights}")

    def sample(self, rng: np.random.Generator, n: int) -> LengthSample:
        """See `Lengths.sample`; `component` is an index into `components`."""
        which_rng, *component_rngs = rng.spawn(1 + len(self.components))
        edges = np.cumsum(self.weights) / math.fsum(self.weights)
        component = np.searchsorted(edges[:-1], which_rng.random(n), side="right").astype(np.int64)
        prompt, output = np.empty(n, np.int64), np.empty(n, np.int64)
        for index, (lengths, component_rng) in enumerate(zip(self.components, component_rngs, strict=True)):
            chosen = np.flatnonzero(component == index)
            prompt[chosen], output[chosen], _ = lengths.sample(component_rng, len(chosen))
        return LengthSample(prompt, output, component)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise WorkloadError(message)


def _whole(values: ArrayLike) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)
