from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.workload import Constant, Joint, LogNormal, Mixture, Quantiles, WorkloadError

TABLE = Quantiles((-2.0, 0.0, 2.0), (10.0, 100.0, 1_000.0))
SCORES = st.lists(st.floats(-40.0, 40.0), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("marginal", "low", "high"),
    [(Constant(7), 7, 7), (LogNormal(150.0, 0.5, 8, 2_048), 8, 2_048), (TABLE, 10, 1_000)],
)
@given(scores=SCORES)
def test_marginals_rise_with_the_score_within_their_range(marginal, low, high, scores):
    tokens = marginal.tokens(np.sort(scores))
    assert tokens.dtype == np.int64
    assert (np.diff(tokens) >= 0).all()
    assert low <= tokens[0] <= tokens[-1] <= high


def test_tables_are_interpolated_in_log_tokens():
    assert TABLE.tokens(np.array([-9.0, -2.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [10, 10, 32, 100, 316, 1_000]


def test_log_normal_moments():
    tokens = Joint(LogNormal(1_500.0, 1.0, 1, 1_000_000), Constant(1)).sample(np.random.default_rng(0), 400_000)[0]
    assert tokens.mean() == pytest.approx(1_500.0, rel=0.02)
    assert np.log(tokens).std() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.0, 0.9, 1.0])
def test_copula(correlation):
    log_normal = LogNormal(10_000.0, 1.0, 1, 10**9)
    sample = Joint(log_normal, log_normal, correlation).sample(np.random.default_rng(0), 100_000)
    logs = np.log(sample.num_prompt_tokens), np.log(sample.num_output_tokens)
    assert np.corrcoef(*logs)[0, 1] == pytest.approx(correlation, abs=0.01)


def test_mixture():
    mixture = Mixture((5.0, 3.0, 2.0), tuple(Joint(Constant(k), Constant(10 * k)) for k in (1, 2, 3)))
    sample = mixture.sample(np.random.default_rng(0), 100_000)
    assert np.bincount(sample.component) / 100_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.01)
    assert (sample.num_prompt_tokens == sample.component + 1).all()
    assert (sample.num_output_tokens == 10 * (sample.component + 1)).all()


@pytest.mark.parametrize("lengths", [Joint(TABLE, TABLE, 0.5), Mixture((1, 2), (Joint(TABLE, TABLE),) * 2)])
@given(n=st.integers(0, 300), seed=st.integers(0, 99))
def test_a_shorter_sample_is_the_beginning_of_a_longer_one(lengths, n, seed):
    short = lengths.sample(np.random.default_rng(seed), n)
    long = lengths.sample(np.random.default_rng(seed), 300)
    for ours, theirs in zip(short, long, strict=True):
        assert ours.tolist() == theirs[:n].tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(0), "Constant: num_tokens must be at least 1, got 0"),
        (lambda: LogNormal(0.0, 1.0), "LogNormal: mean must be positive"),
        (lambda: LogNormal(1.0, -1.0), "LogNormal: sigma must not be negative"),
        (lambda: LogNormal(1.0, 1.0, 5, 4), "LogNormal: needs 1 <= low <= high"),
        (lambda: Quantiles((0.0,), (1.0, 2.0)), "Quantiles: needs as many counts as scores"),
        (lambda: Quantiles((0.0, 0.0), (1.0, 2.0)), "Quantiles: scores must increase"),
        (lambda: Quantiles((0.0, 1.0), (2.0, 1.0)), "Quantiles: num_tokens must not decrease"),
        (lambda: Quantiles((0.0, 1.0), (0.0, 1.0)), "Quantiles: counts must be at least 1"),
        (lambda: Joint(TABLE, TABLE, 1.5), r"Joint: correlation must lie in \[-1, 1\]"),
        (lambda: Mixture((1.0,), ()), "Mixture: needs as many weights as components"),
        (lambda: Mixture((0.0,), (Joint(TABLE, TABLE),)), "Mixture: weights must be positive"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(WorkloadError, match=message):
        make()
