"""Statistics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from infermax_gym.suite.scoring import (
    bootstrap,
    interquartile_mean,
    performance_profile,
    pooled_mean,
    probability_of_improvement,
    samples_of,
)


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 6.0]) == 3.5  # of 2, 3, 4, 5
    assert interquartile_mean([1.0, 2.0, 6.0]) == 3.0  # a quarter of three is none
    with pytest.raises(ValueError, match="at least one number"):
        interquartile_mean([])


def test_samples_are_run_means_or_the_episodes_of_a_single_run() -> None:
    assert samples_of(np.array([[1.0, 3.0]])).tolist() == [1.0, 3.0]
    assert samples_of(np.array([[1.0, 3.0], [4.0, 6.0]])).tolist() == [2.0, 5.0]


def test_the_bootstrap_keeps_to_the_strata() -> None:
    """A task of constant samples adds nothing to the width, however far away it is."""
    rng = np.random.default_rng(0)
    sample = rng.normal(size=40)
    mean = lambda strata: float(np.mean([s.mean() for s in strata]))  # noqa: E731
    low, high = bootstrap(mean, [sample, np.full(10, 1_000.0)])
    half = 1.96 * sample.std(ddof=1) / np.sqrt(40) / 2.0
    assert high - low == pytest.approx(2.0 * half, rel=0.15)
    assert low < (sample.mean() + 1_000.0) / 2.0 < high
    assert bootstrap(pooled_mean, [sample]) == bootstrap(pooled_mean, [sample])


def test_profile_and_probability_of_improvement() -> None:
    a, b = [np.array([1.0, 2.0]), np.array([0.0])], [np.array([0.0, 1.5]), np.array([0.0])]
    assert performance_profile(a, [-1.0, 0.5, 1.5]).tolist() == [1.0, 0.5, 0.25]
    value, (low, high) = probability_of_improvement(a, b)
    assert value == (0.75 + 0.5) / 2.0  # three of four pairs; a tie
    assert low <= value <= high
    with pytest.raises(ValueError, match="samples of 2 and of 1 tasks"):
        probability_of_improvement(a, b[:1])
