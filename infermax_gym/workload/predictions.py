"""Predicted output lengths with log-normal errors: the one formula behind every noisy prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def noisy_lengths(num_output_tokens: NDArray[Any], sigma: float, noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """O exp(sigma Z - sigma^2 / 2), at least 1: log-normal around the truth, with the truth as its mean.

    Args:
        num_output_tokens: (n,) the true output lengths O.
        sigma: standard deviation of the error's logarithm; 0 gives the truth.
        noise: (n,) standard normal errors Z.

    Returns:
        (n,) float64 tokens.
    """
    truth = np.asarray(num_output_tokens, np.float64)
    return np.asarray(np.maximum(truth * np.exp(sigma * noise - 0.5 * sigma**2), 1.0))
