"""Predicted output lengths: the truth, or the truth with the same noise for everybody."""

from __future__ import annotations

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import Information, Policy
from infermax_gym.engine.policy import Prediction
from infermax_gym.workload import Workload, make_workload

WORKLOAD = make_workload("azure-conv", 4000, seed=0)
TRUTH = WORKLOAD.num_output_tokens.astype(float)


def noisy(sigma: float, name: str = "noisy") -> Policy:
    return Policy(name, prediction_sigma=sigma, information=Information.PREDICTED)


def predicted(policy: Policy, workload: Workload = WORKLOAD, seed: int = 0) -> np.ndarray:
    values = predictions(policy, workload, seed)
    assert values is not None
    return values


@pytest.mark.parametrize("information", [Information.NONE, Information.BOUND])
def test_nothing_for_those_who_know_nothing(information: Information) -> None:
    assert predictions(Policy("blind", information=information), WORKLOAD) is None


def test_the_truth_for_oracles() -> None:
    np.testing.assert_array_equal(predicted(POLICIES["sjf-oracle"]), TRUTH)
    np.testing.assert_array_equal(predicted(noisy(0.0)), TRUTH)


def test_the_same_noise_for_every_policy() -> None:
    np.testing.assert_array_equal(predicted(POLICIES["sjf-noisy-0.6"]), predicted(POLICIES["srpt-noisy-0.6"]))
    small, large = predicted(noisy(0.3)), predicted(noisy(0.6))
    z_small = (np.log(small / TRUTH) + 0.5 * 0.3**2) / 0.3
    z_large = (np.log(large / TRUTH) + 0.5 * 0.6**2) / 0.6
    kept = (small > 1.0) & (large > 1.0)  # the rest was cut
    assert kept.mean() > 0.95
    np.testing.assert_allclose(z_small[kept], z_large[kept], atol=1e-9)


@pytest.mark.parametrize("sigma", [0.3, 0.6])
def test_right_on_average(sigma: float) -> None:
    long = Workload(np.zeros(20_000), np.ones(20_000), np.full(20_000, 1000))
    ratio = predicted(noisy(sigma), long) / 1000
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / np.sqrt(20_000))
    assert np.log(ratio).std() == pytest.approx(sigma, rel=0.03)


def test_at_least_one_token() -> None:
    short = Workload(np.zeros(1000), np.ones(1000), np.ones(1000))
    assert predicted(noisy(2.0), short).min() == 1.0


def test_seeds() -> None:
    assert not np.array_equal(predicted(noisy(0.3)), predicted(noisy(0.3), seed=1))
    np.testing.assert_array_equal(predicted(noisy(0.3), seed=7), predicted(noisy(0.3), seed=7))


def test_fewer_requests_get_the_same_predictions() -> None:
    few = WORKLOAD.trace_slice(0, 100)
    np.testing.assert_array_equal(predicted(noisy(0.3), few), predicted(noisy(0.3))[:100])


def test_classes_are_ten_of_equal_width() -> None:
    row = Policy("classes", prediction=Prediction.CLASS, information=Information.PREDICTED)
    workload = Workload([0.0] * 6, [1] * 6, [1, 51, 52, 460, 461, 9_000])
    np.testing.assert_allclose(predicted(row, workload), [25.6, 25.6, 76.8, 435.2, 486.4, 486.4])
    predicted_lengths = predicted(POLICIES["sjf-classes"])
    assert len(np.unique(predicted_lengths)) == 10
    noise = predicted(noisy(0.3))
    assert (np.abs(predicted_lengths - np.minimum(noise, 486.4)) <= 25.6 + 1e-9).all()
