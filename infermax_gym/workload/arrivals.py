"""When requests arrive: arrival processes as plain records with a `sample` method.

Every process returns arrival times in seconds that count from the first request (which arrives at 0), the way
a trace does. The first k of n sampled arrivals do not depend on n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.workload import WorkloadError


class Arrivals(Protocol):
    """Anything that draws arrival times."""

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """Draw n arrival times.

        Args:
            rng: the only source of randomness; it must know its seed sequence (`np.random.default_rng` does).
            n: how many requests.

        Returns:
            (n,) float64 seconds, not decreasing, the first one 0.
        """
        ...


@dataclass(frozen=True)
class AllAtOnce:
    """A closed batch: every request is there at time 0."""

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        return np.zeros(n)


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals: exponential gaps.

    Attributes:
        rate_per_s: mean requests per second.
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        check_positive(self, rate_per_s=self.rate_per_s)

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        return from_zero(np.cumsum(rng.standard_exponential(n))) / self.rate_per_s


@dataclass(frozen=True)
class Gamma:
    """Independent gamma-distributed gaps, more bursty (cv > 1) or more regular (cv < 1) than Poisson.

    Attributes:
        rate_per_s: mean requests per second.
        cv: standard deviation of the gaps over their mean; 1 is Poisson.
    """

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        check_positive(self, rate_per_s=self.rate_per_s, cv=self.cv)

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        return from_zero(unit_points(rng, n, self.cv)) / self.rate_per_s


def check_positive(process: Arrivals, **values: float) -> None:
    """Raise `WorkloadError` for the first parameter that is not positive and finite."""
    for name, value in values.items():
        if not 0.0 < value < math.inf:
            raise WorkloadError(f"{type(process).__name__}: {name} must be positive and finite, got {value}")


def from_zero(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times counted from the first of them."""
    return times_s - times_s[0] if len(times_s) else times_s


def unit_points(rng: np.random.Generator, n: int, cv: float) -> NDArray[np.float64]:
    """(n,) points on a clock that runs with the rate: gamma gaps of mean 1 and the given coefficient of variation."""
    if cv == 1.0:
        return np.cumsum(rng.standard_exponential(n))
    shape = 1.0 / cv**2
    return np.cumsum(rng.standard_gamma(shape, n) / shape)
