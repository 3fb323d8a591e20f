"""One formula behind every noisy prediction, and one way to fill in limits."""

from __future__ import annotations

import numpy as np
import pytest

from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Information, Policy, Slo, meets_slo, simulate
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.streams import stream
from infermax_gym.workload import Workload, make_workload
from infermax_gym.workload.predictions import noisy_lengths

WORKLOAD = make_workload("azure-conv", 50, seed=2)


def test_the_formula() -> None:
    noise = np.array([0.0, 1.0, -9.0])
    expected = [100.0 * np.exp(-0.125), 10.0 * np.exp(0.375), 1.0]
    np.testing.assert_allclose(noisy_lengths(np.array([100, 10, 5]), 0.5, noise), expected)
    assert noisy_lengths(np.array([7, 1]), 0.0, noise[:2]).tolist() == [7.0, 1.0]
    many = noisy_lengths(np.full(200_000, 300), 0.6, np.random.default_rng(0).standard_normal(200_000))
    assert many.mean() == pytest.approx(300.0, rel=0.01)


def test_all_who_predict_agree_to_the_bit() -> None:
    policy = Policy("guesser", information=Information.PREDICTED, prediction_sigma=0.7)
    sigma = policy.prediction_sigma
    noise = stream(5, "predictor").standard_normal(len(WORKLOAD))
    expected = noisy_lengths(WORKLOAD.num_output_tokens, sigma, noise)
    np.testing.assert_array_equal(predictions(policy, WORKLOAD, 5), expected)
    np.testing.assert_array_equal(TraceSlice(WORKLOAD, EngineConfig(), noise).predicted(sigma), expected)
    env = InferMaxEnv(workloads=WORKLOAD, num_requests=50, information="noisy", prediction_sigma=sigma)
    env.reset(seed=5)
    np.testing.assert_array_equal(env.run.episode.predicted, expected)


def test_limits_fill_in_limit_by_limit_everywhere() -> None:
    """A request with a TTFT limit alone keeps it and gets the common TPOT limit, wherever limits are filled in."""
    own = Workload(
        [0.0, 0.0, 0.0], [30, 30, 30], [4, 4, 4], ttft_slo_s=[2.0, np.inf, np.inf], tpot_slo_s=[np.inf, 0.3, np.inf]
    )
    limited = own.with_limits(1.0, 0.1)
    assert limited.ttft_slo_s.tolist() == [2.0, 1.0, 1.0] and limited.tpot_slo_s.tolist() == [0.1, 0.3, 0.1]
    env = InferMaxEnv(workloads=own, num_requests=3, start=0, ttft_slo_s=1.0, tpot_slo_s=0.1)
    env.reset(seed=0)
    for name in ("ttft_slo_s", "tpot_slo_s"):
        np.testing.assert_array_equal(getattr(env.run.episode.workload, name), getattr(limited, name))
    config = EngineConfig(num_kv_tokens=64, max_num_batched_tokens=32)
    for ttft_s, tpot_s in ((1.0, 0.1), (0.05, 0.1), (1.0, 0.02), (None, 0.02)):
        common = meets_slo(simulate(own, config, POLICIES["sarathi"]), Slo(ttft_s, tpot_s))
        filled = meets_slo(simulate(own.with_limits(ttft_s, tpot_s), config, POLICIES["sarathi"]), None)
        assert common is not None and filled is not None
        np.testing.assert_array_equal(common, filled)
