"""What a policy is told about output lengths: the truth for oracles, a noisy number for predictors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster import Router
from infermax_gym.engine import Information, Policy
from infermax_gym.engine.policy import Prediction
from infermax_gym.streams import stream
from infermax_gym.workload import Workload
from infermax_gym.workload.predictions import noisy_lengths

NUM_CLASSES = 10
CLASS_TOKENS = 51.2
"""Length classes of TRAIL's classifier: ten of equal width up to 512 tokens; the last takes whatever is longer."""


def router_predictions(router: Router, workload: Workload, seed: int = 0) -> NDArray[np.float64] | None:
    """What a router is told, as a policy of its information would be: (n,) float64 tokens, or None."""
    return predictions(router.predictor, workload, seed)


def predictions(policy: Policy, workload: Workload, seed: int = 0) -> NDArray[np.float64] | None:
    """Predicted output tokens for each request, or None if the policy uses none.

    PREDICTED policies get O exp(sigma Z - sigma^2 / 2) with Z standard normal (mean O), at least 1; ORACLE policies get
    O. Policies that are told an end of an interval get max(l, 1) or u, with l / u the policy's `interval_ratio` and O
    placed log-uniformly in [l, u]. CLASS policies get the middle of the class in which the noisy number falls.

    Args:
        policy: a policy of the table.
        workload: the n requests.
        seed: seed of the run; errors come from its "predictor" stream, the same for every policy.

    Returns:
        (n,) float64 tokens, or None.
    """
    if policy.information not in (Information.PREDICTED, Information.ORACLE):
        return None
    truth = workload.num_output_tokens.astype(np.float64)
    rng = stream(seed, "predictor")
    if policy.prediction in (Prediction.LOWER, Prediction.UPPER):
        place = rng.random(len(workload))
        lower = truth * policy.interval_ratio**place
        return np.maximum(lower if policy.prediction == Prediction.LOWER else lower / policy.interval_ratio, 1.0)
    sigma = policy.prediction_sigma
    noise = rng.standard_normal(len(workload))
    guess = noisy_lengths(truth, sigma, noise)
    if policy.prediction == Prediction.CLASS:
        guess = (np.minimum(guess // CLASS_TOKENS, NUM_CLASSES - 1) + 0.5) * CLASS_TOKENS
    return np.asarray(guess)
