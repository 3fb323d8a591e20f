"""What a policy is told about output lengths: the truth for oracles, a noisy number for predictors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Information, Policy
from infermax_gym.streams import stream
from infermax_gym.workload import Workload


def predictions(policy: Policy, workload: Workload, seed: int = 0) -> NDArray[np.float64] | None:
    """Predicted output tokens for each request, or None if the policy uses none.

    PREDICTED rows get O exp(sigma Z - sigma^2 / 2) with Z standard normal (mean O), at least 1; ORACLE rows get O.

    Args:
        policy: a row of the table.
        workload: the n requests.
        seed: seed of the run; errors come from its "predictor" stream, the same for every policy.

    Returns:
        (n,) float64 tokens, or None.
    """
    if policy.information not in (Information.PREDICTED, Information.ORACLE):
        return None
    truth = workload.num_output_tokens.astype(np.float64)
    noise = stream(seed, "predictor").standard_normal(len(workload))
    sigma = policy.prediction_sigma
    return np.asarray(np.maximum(truth * np.exp(sigma * noise - 0.5 * sigma**2), 1.0))
