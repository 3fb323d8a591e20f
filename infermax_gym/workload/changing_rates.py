"""Arrivals whose rate changes: bursts, days, drifts and silences.

All of them draw points on a clock that runs with the rate, then carry the points to seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.arrivals import Arrivals, check_positive, from_zero, unit_points
from infermax_gym.workload.workload import WorkloadError

_SPELLS_PER_DRAW = 256  # fixed, so that the rates drawn for early spells do not depend on how many are needed


@dataclass(frozen=True)
class OnOff:
    """Bursts: Poisson arrivals whose rate alternates between two levels, for exponential spells of each.

    Attributes:
        on_rate_per_s: rate during a burst.
        off_rate_per_s: rate between bursts; may be 0.
        mean_on_s: mean length of a burst.
        mean_off_s: mean length of the time between two bursts.
    """

    on_rate_per_s: float
    off_rate_per_s: float
    mean_on_s: float
    mean_off_s: float

    def __post_init__(self) -> None:
        check_positive(self, on_rate_per_s=self.on_rate_per_s, mean_on_s=self.mean_on_s, mean_off_s=self.mean_off_s)
        if not 0.0 <= self.off_rate_per_s < math.inf:
            raise WorkloadError(f"OnOff: off_rate_per_s must be at least 0, got {self.off_rate_per_s}")

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        points_rng, spells_rng = rng.spawn(2)
        mean_s = np.tile([self.mean_on_s, self.mean_off_s], _SPELLS_PER_DRAW // 2)
        rates = np.tile([self.on_rate_per_s, self.off_rate_per_s], _SPELLS_PER_DRAW // 2)

        def spells() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            return mean_s * spells_rng.standard_exponential(len(mean_s)), rates

        return _through_rates(unit_points(points_rng, n, 1.0), spells)


@dataclass(frozen=True)
class Diurnal:
    """Poisson arrivals whose rate follows a sine, as day and night do; starts at the mean rate, rising.

    Attributes:
        rate_per_s: mean rate over a whole period.
        amplitude: how far the rate swings, as a fraction of the mean, in [0, 1].
        period_s: length of a period; a day by default.
    """

    rate_per_s: float
    amplitude: float
    period_s: float = 86_400.0

    def __post_init__(self) -> None:
        check_positive(self, rate_per_s=self.rate_per_s, period_s=self.period_s)
        if not 0.0 <= self.amplitude <= 1.0:
            raise WorkloadError(f"Diurnal: amplitude must lie in [0, 1], got {self.amplitude}")

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        steps = 1024  # the rate is held constant for 1/1024 of a period
        phase = (np.arange(steps) + 0.5) * (2.0 * np.pi / steps)
        rates = self.rate_per_s * (1.0 + self.amplitude * np.sin(phase))
        length_s = np.full(steps, self.period_s / steps)
        return _through_rates(unit_points(rng, n, 1.0), lambda: (length_s, rates))


@dataclass(frozen=True)
class Modulated:
    """A drifting rate, one level per spell, with gamma gaps inside: the process fitted to real traces.

    The level of a spell is the mean rate times a multiplier. Multipliers have the distribution of a quantile
    table, and follow one another as a Gaussian autoregression of order one does (a copula in time), so the
    process is stationary: it can be sampled for any length and starts anywhere in its range.

    Attributes:
        rate_per_s: mean requests per second.
        level_s: how long a level lasts.
        scores: standard normal scores of the table, increasing.
        multipliers: rate over mean rate at each score, not decreasing, at least 0.
        correlation: between the scores of successive spells, in [0, 1).
        gap_cv: coefficient of variation of the gaps, measured on a clock that runs with the rate.
    """

    rate_per_s: float
    level_s: float
    scores: tuple[float, ...]
    multipliers: tuple[float, ...]
    correlation: float
    gap_cv: float

    def __post_init__(self) -> None:
        check_positive(self, rate_per_s=self.rate_per_s, level_s=self.level_s, gap_cv=self.gap_cv)
        if not 0.0 <= self.correlation < 1.0:
            raise WorkloadError(f"Modulated: correlation must lie in [0, 1), got {self.correlation}")
        if len(self.scores) != len(self.multipliers) or not self.scores or max(self.multipliers) <= 0.0:
            raise WorkloadError("Modulated: needs as many multipliers as scores, at least one of them positive")

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        points_rng, level_rng = rng.spawn(2)
        innovation = math.sqrt(1.0 - self.correlation**2)
        level = float(level_rng.standard_normal())
        length_s = np.full(_SPELLS_PER_DRAW, self.level_s)

        def spells() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            nonlocal level
            levels = np.empty(_SPELLS_PER_DRAW)
            for i, noise in enumerate(level_rng.standard_normal(_SPELLS_PER_DRAW).tolist()):
                levels[i] = level
                level = self.correlation * level + innovation * noise
            return length_s, self.rate_per_s * np.interp(levels, self.scores, self.multipliers)

        return _through_rates(unit_points(points_rng, n, self.gap_cv), spells)


@dataclass(frozen=True)
class Silences:
    """Another process, interrupted: now and then nothing arrives for a log-normal time.

    Attributes:
        process: arrivals between the silences.
        probability: that a silence follows a request, in [0, 1].
        mean_s: mean length of a silence, which comes on top of the usual gap.
        sigma: standard deviation of the logarithm of that length.
    """

    process: Arrivals
    probability: float
    mean_s: float
    sigma: float

    def __post_init__(self) -> None:
        check_positive(self, mean_s=self.mean_s)
        if not 0.0 <= self.probability <= 1.0 or not 0.0 <= self.sigma < math.inf:
            raise WorkloadError("Silences: probability must lie in [0, 1], and sigma must not be negative")

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """See `Arrivals.sample`."""
        process_rng, which_rng, length_rng = rng.spawn(3)
        mu = math.log(self.mean_s) - 0.5 * self.sigma**2
        silent_s = np.exp(mu + self.sigma * length_rng.standard_normal(n))
        silent_s[which_rng.random(n) >= self.probability] = 0.0
        return from_zero(self.process.sample(process_rng, n) + np.cumsum(silent_s))


def _through_rates(
    points: NDArray[np.float64], spells: Callable[[], tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> NDArray[np.float64]:
    """Carry points from the rate's clock to seconds, through a rate that is constant in each spell.

    Args:
        points: (n,) increasing points, one unit apart on average.
        spells: the next (lengths in seconds, rates per second), called until they reach the last point.

    Returns:
        (n,) seconds from the first point.
    """
    if not len(points):
        return points
    seconds, expected = [np.zeros(1)], [np.zeros(1)]  # spell edges in seconds, requests expected until then
    while expected[-1][-1] <= points[-1]:
        length_s, rates = spells()
        seconds.append(seconds[-1][-1] + np.cumsum(length_s))
        expected.append(expected[-1][-1] + np.cumsum(length_s * rates))
    times_s = np.interp(points, np.concatenate(expected), np.concatenate(seconds))
    return np.maximum.accumulate(from_zero(times_s))  # interpolation may step back by a rounding error
