"""How sure a figure is: Student intervals over seeds, and paired bootstrap intervals for ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
# fmt: off
_T975 = (
    12.70620, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600, 2.26216, 2.22814,
    2.20099, 2.17881, 2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596,
    2.07961, 2.07387, 2.06866, 2.06390, 2.05954, 2.05553, 2.05183, 2.04841, 2.04523, 2.04227,
)
# fmt: on
_Z975 = 1.959963984540054
_RESAMPLES_AT_ONCE = 2_000_000  # indices drawn at a time: 16 MB


def student_t975(degrees: int) -> float:
    """97.5 % quantile of Student's t: a table up to 30 degrees of freedom, then its expansion around the normal."""
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be at least 1, got {degrees}")
    if degrees <= len(_T975):
        return _T975[degrees - 1]
    z = _Z975
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / degrees + second / degrees**2 + third / degrees**3


def mean_and_ci95(values: ArrayLike) -> tuple[float, float]:
    """Mean of independent values and the half-width of its 95 % confidence interval (Student's t).

    Args:
        values: (n,) numbers, one per seed.

    Returns:
        The mean and the half-width; the half-width is nan for a single value, the mean is exact if all are equal.

    Example:
        >>> mean_and_ci95([1.0, 2.0, 3.0])
        (2.0, 2.4841...)
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"expected at least one number in one dimension, got shape {data.shape}")
    if data.size > 1 and bool(np.all(data == data[0])):
        return float(data[0]), 0.0
    mean = float(data.mean())
    if data.size == 1:
        return mean, math.nan
    return mean, student_t975(data.size - 1) * float(data.std(ddof=1)) / math.sqrt(data.size)


@dataclass(frozen=True)
class Ratio:
    """How large a is compared to b, and the 95 % interval [low, high]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def paired_ratio(a: ArrayLike, b: ArrayLike) -> Ratio:
    """Geometric mean of a / b over pairs, with the Student interval of its logarithm: right for a few seeds.

    What is common to a pair, such as the load that its seed drew, cancels.

    Args:
        a: (n,) positive figures of one policy, n at least 2.
        b: (n,) positive figures of the other, pair by pair.

    Raises:
        ValueError: the shapes differ, there are fewer than two pairs, or a number is not positive and finite.

    Example:
        >>> print(paired_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]))
        2.000 [2.000, 2.000]
    """
    first, second = _pairs(a, b)
    if first.size < 2 or min(first.min(), second.min()) <= 0.0:
        raise ValueError("a ratio with an interval needs at least two pairs of positive figures")
    mean, half = mean_and_ci95(np.log(first / second))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def paired_bootstrap(a: ArrayLike, b: ArrayLike, seed: int = 0, num_resamples: int = 10_000) -> Ratio:
    """mean(a) / mean(b) with a percentile bootstrap interval over pairs: right for many pairs, such as requests.

    What is common to a pair cancels. With fewer than about ten pairs the interval is too narrow: use `paired_ratio`.

    Args:
        a: (n,) figures of one policy.
        b: (n,) figures of the other, pair by pair.
        seed: seed of the resampling.
        num_resamples: bootstrap samples.

    Raises:
        ValueError: the shapes differ or are empty, or a number is not finite.

    Example:
        >>> print(paired_bootstrap([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]))
        2.000 [2.000, 2.000]
    """
    first, second = _pairs(a, b)
    rng = np.random.default_rng(seed)
    ratios = np.empty(num_resamples)
    step = max(1, _RESAMPLES_AT_ONCE // first.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, num_resamples, step):
            stop = min(start + step, num_resamples)
            index = rng.integers(0, first.size, size=(stop - start, first.size))
            ratios[start:stop] = first[index].sum(axis=1) / second[index].sum(axis=1)
        value = float(first.sum() / second.sum())
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Ratio(value, float(low), float(high))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError(f"expected two equally long lists, got shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("the figures must be finite; leave pairs out that are not")
    return first, second
