"""Intervals against SciPy and against what must hold for every sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from infermax_gym.evaluation.statistics import mean_and_ci95, paired_bootstrap, paired_ratio, student_t975

finite = st.integers(-1_000_000, 1_000_000).map(lambda n: n / 8)
positive = st.floats(1e-3, 1e3)


@pytest.mark.parametrize("degrees", [*range(1, 60), 100, 1000, 100_000])
def test_student_quantile(degrees: int) -> None:
    assert student_t975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-5)


def test_student_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        student_t975(0)


@given(st.lists(finite, min_size=2, max_size=20))
def test_interval_is_that_of_scipy(values: list[float]) -> None:
    mean, half = mean_and_ci95(values)
    if len(set(values)) == 1:
        assert (mean, half) == (values[0], 0.0)
        return
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx((low + high) / 2.0, abs=1e-6)
    assert half == pytest.approx((high - low) / 2.0, rel=1e-5)


def test_one_value_has_no_interval() -> None:
    mean, half = mean_and_ci95([3.0])
    assert mean == 3.0
    assert math.isnan(half)


@pytest.mark.parametrize("values", [[], [[1.0]]])
def test_only_a_list_of_numbers(values: list[float]) -> None:
    with pytest.raises(ValueError, match="one dimension"):
        mean_and_ci95(values)


def test_interval_covers_about_95_percent() -> None:
    samples = np.random.default_rng(0).normal(7.0, 2.0, size=(2000, 5))
    hits = sum(abs(mean - 7.0) <= half for mean, half in map(mean_and_ci95, samples))
    assert 0.93 <= hits / 2000 <= 0.97


@given(st.lists(positive, min_size=1, max_size=12), positive)
def test_what_pairs_share_cancels(values: list[float], factor: float) -> None:
    ratio = paired_bootstrap(np.array(values) * factor, values, num_resamples=50)
    assert ratio.value == pytest.approx(factor)
    assert ratio.low == pytest.approx(factor)
    assert ratio.high == pytest.approx(factor)


@given(st.lists(positive, min_size=2, max_size=12), positive)
def test_what_seeds_share_cancels(values: list[float], factor: float) -> None:
    ratio = paired_ratio(np.array(values) * factor, values)
    assert [ratio.low, ratio.value, ratio.high] == pytest.approx([factor] * 3)


def test_paired_ratio_is_the_t_interval_of_the_logarithm() -> None:
    a, b = np.array([3.0, 5.0, 2.0, 8.0]), np.array([2.0, 4.0, 2.5, 5.0])
    test = stats.ttest_rel(np.log(a), np.log(b))
    ratio, interval = paired_ratio(a, b), test.confidence_interval()
    assert np.log([ratio.low, ratio.high]) == pytest.approx([interval.low, interval.high], abs=1e-5)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0]), ([1.0, 0.0], [1.0, 1.0]), ([1.0, 2.0], [-1.0, 1.0])])
def test_paired_ratio_refuses(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="two pairs of positive"):
        paired_ratio(a, b)


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(1)
    load = rng.lognormal(0.0, 1.0, 40)
    a, b = load * rng.normal(1.1, 0.02, 40), load * rng.normal(1.0, 0.02, 40)
    paired, unpaired = paired_bootstrap(a, b, seed=3), paired_bootstrap(a, rng.permutation(b), seed=3)
    assert paired.low > 1.05
    assert paired.high < 1.15
    assert paired.low <= paired.value <= paired.high
    assert unpaired.high - unpaired.low > 5 * (paired.high - paired.low)


def test_bootstrap_is_reproducible_whatever_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.arange(1.0, 8.0), np.arange(2.0, 9.0)
    whole = paired_bootstrap(a, b, seed=5, num_resamples=500)
    assert whole == paired_bootstrap(a, b, seed=5, num_resamples=500)
    assert whole != paired_bootstrap(a, b, seed=6, num_resamples=500)
    monkeypatch.setattr("infermax_gym.evaluation.statistics._RESAMPLES_AT_ONCE", 70)
    assert whole == paired_bootstrap(a, b, seed=5, num_resamples=500)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1.0], [1.0, 2.0], "equally long"), ([], [], "equally long"), ([math.nan], [1.0], "finite")],
)
def test_bootstrap_refuses(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(a, b)
