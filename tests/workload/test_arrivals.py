from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.workload import (
    AllAtOnce,
    Diurnal,
    Gamma,
    Modulated,
    OnOff,
    Poisson,
    Silences,
    WorkloadError,
)

LEVELS = Modulated(5.0, 10.0, (-1.0, 0.0, 1.0), (0.2, 1.0, 1.8), correlation=0.8, gap_cv=1.5)
PROCESSES = [
    AllAtOnce(),
    Poisson(5.0),
    Gamma(5.0, cv=0.3),
    Gamma(5.0, cv=4.0),
    OnOff(20.0, 0.0, mean_on_s=3.0, mean_off_s=9.0),
    OnOff(8.0, 2.0, mean_on_s=30.0, mean_off_s=30.0),
    Diurnal(5.0, amplitude=1.0, period_s=100.0),
    LEVELS,
    Silences(Poisson(20.0), probability=0.005, mean_s=30.0, sigma=0.8),
]
PROCESS = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)


def dispersion(arrival_s, window_s):
    counts = np.bincount((arrival_s // window_s).astype(int))[:-1]
    return counts.var() / counts.mean()


@PROCESS
@given(seed=st.integers(0, 2**32), n=st.integers(0, 600))
def test_arrivals_start_at_zero_and_never_decrease(process, seed, n):
    arrival_s = process.sample(np.random.default_rng(seed), n)
    assert arrival_s.shape == (n,)
    assert arrival_s.dtype == np.float64
    assert np.isfinite(arrival_s).all()
    assert (np.diff(arrival_s) >= 0.0).all()
    assert n == 0 or arrival_s[0] == 0.0


@PROCESS
def test_a_shorter_sample_is_the_beginning_of_a_longer_one(process):
    long = process.sample(np.random.default_rng(3), 5_000)
    assert process.sample(np.random.default_rng(3), 700).tobytes() == long[:700].tobytes()


@PROCESS
def test_mean_rate(process):
    if isinstance(process, AllAtOnce):
        return
    ends = [process.sample(np.random.default_rng(seed), 20_000)[-1] for seed in range(8)]
    assert 19_999 / np.mean(ends) == pytest.approx(5.0, rel=0.06)


@pytest.mark.parametrize("cv", [0.3, 1.0, 4.0])
def test_gamma_gaps_vary_as_told(cv):
    gaps = np.diff(Gamma(2.0, cv).sample(np.random.default_rng(0), 200_000))
    assert gaps.mean() == pytest.approx(0.5, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_counts_are_as_dispersed_as_their_mean():
    assert dispersion(Poisson(5.0).sample(np.random.default_rng(0), 100_000), 10.0) == pytest.approx(1.0, abs=0.1)


def test_bursts_fall_silent_between():
    gaps = np.diff(OnOff(20.0, 0.0, mean_on_s=3.0, mean_off_s=9.0).sample(np.random.default_rng(0), 20_000))
    long = gaps[gaps > 1.0]
    assert long.mean() == pytest.approx(9.0, rel=0.15)
    assert len(gaps) / len(long) == pytest.approx(60.0, rel=0.2)


def test_a_day_follows_its_sine():
    arrival_s = Diurnal(50.0, amplitude=0.8, period_s=1_000.0).sample(np.random.default_rng(0), 500_000)
    phase = np.histogram(arrival_s % 1_000.0, bins=20, range=(0.0, 1_000.0))[0]
    middle = (np.arange(20) + 0.5) * (2 * math.pi / 20)
    assert phase / phase.mean() == pytest.approx(1.0 + 0.8 * np.sin(middle), abs=0.03)


def test_levels_hold_for_a_window_and_drift():
    arrival_s = LEVELS.sample(np.random.default_rng(0), 200_000)
    counts = np.bincount((arrival_s // 10.0).astype(int))[:-1]
    assert dispersion(arrival_s, 10.0) > 5.0
    assert np.corrcoef(counts[1:], counts[:-1])[0, 1] == pytest.approx(0.6, abs=0.15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0.0), "Poisson: rate_per_s must be positive and finite, got 0.0"),
        (lambda: Poisson(math.nan), "Poisson: rate_per_s must be positive"),
        (lambda: Gamma(1.0, -1.0), "Gamma: cv must be positive"),
        (lambda: OnOff(1.0, -0.1, 1.0, 1.0), "OnOff: off_rate_per_s must be at least 0"),
        (lambda: OnOff(1.0, 0.0, 0.0, 1.0), "OnOff: mean_on_s must be positive"),
        (lambda: Diurnal(1.0, 1.5), r"Diurnal: amplitude must lie in \[0, 1\]"),
        (lambda: Modulated(1.0, 1.0, (0.0,), (0.0,), 0.5, 1.0), "Modulated: needs as many multipliers"),
        (lambda: Modulated(1.0, 1.0, (0.0,), (1.0,), 1.0, 1.0), r"Modulated: correlation must lie in \[0, 1\)"),
        (lambda: Silences(Poisson(1.0), 2.0, 1.0, 1.0), r"Silences: probability must lie in \[0, 1\]"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(WorkloadError, match=message):
        make()
