"""Scores and their statistics: interquartile means, profiles, probability of improvement, stratified bootstrap.

After Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021
(arXiv 2108.13264). A sample of a task is the mean score of one training run over the test episodes; of an agent with a
single run it is the score of one episode. The bootstrap resamples the samples of each task by themselves (the strata).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]
NUM_RESAMPLES = 2_000
_CUT = 0.25


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at either end.

    Args:
        values: (n,) numbers, n at least 1.

    Example:
        >>> interquartile_mean([0.0, 1.0, 2.0, 100.0])
        1.5
    """
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    if not ordered.size:
        raise ValueError("an interquartile mean needs at least one number")
    cut = int(_CUT * ordered.size)
    return float(ordered[cut : ordered.size - cut].mean())


def pooled_mean(samples: Sequence[Floats]) -> float:
    """The interquartile mean over the samples of all tasks together."""
    return interquartile_mean(np.concatenate(list(samples)))


def bootstrap(
    statistic: Callable[[Sequence[Floats]], float],
    samples: Sequence[Floats],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The 95 % percentile interval of a statistic of stratified samples.

    Args:
        statistic: of one array of samples per task.
        samples: (n_t,) for each task.
        seed: of the resampling; the same seed gives the same interval.
        num_resamples: bootstrap samples.
    """
    rng = np.random.default_rng(seed)
    values = [
        statistic([stratum[rng.integers(0, stratum.size, stratum.size)] for stratum in samples])
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def performance_profile(samples: Sequence[Floats], thresholds: ArrayLike) -> Floats:
    """(k,) share of samples above each threshold, every task with the same weight.

    Example:
        >>> performance_profile([np.array([0.0, 1.0])], [0.5, 2.0]).tolist()
        [0.5, 0.0]
    """
    taus = np.asarray(thresholds, np.float64)
    return np.asarray(np.mean([(stratum[:, None] > taus).mean(0) for stratum in samples], axis=0), np.float64)


def probability_of_improvement(
    first: Sequence[Floats], second: Sequence[Floats], *, seed: int = 0
) -> tuple[float, Interval]:
    """How likely a sample of one agent beats one of another in the same task, mean over tasks, with its interval.

    Args:
        first: (n_t,) samples for each task.
        second: (m_t,) those of the other agent, of the same tasks.
        seed: of the bootstrap.

    Example:
        >>> probability_of_improvement([np.array([1.0, 2.0])], [np.array([0.0, 1.5])])[0]
        0.75
    """
    if len(first) != len(second):
        raise ValueError(f"the agents have samples of {len(first)} and of {len(second)} tasks; compare the same tasks")
    count = len(first)

    def mean(both: Sequence[Floats]) -> float:
        return float(np.mean([_beats(a, b) for a, b in zip(both[:count], both[count:], strict=True)]))

    both = [*first, *second]
    return mean(both), bootstrap(mean, both, seed=seed)


def _beats(a: Floats, b: Floats) -> float:
    """Share of pairs that a wins; ties count half."""
    return float(((a[:, None] > b).mean() + (a[:, None] >= b).mean()) / 2.0)


def samples_of(scores: Floats) -> Floats:
    """The samples of a task from (runs, episodes) scores: run means, or of a single run its episodes."""
    return np.asarray(scores[0] if len(scores) == 1 else scores.mean(1), np.float64)
