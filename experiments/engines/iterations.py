"""Iterations that can occur, log-uniform in every size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.profiler import Batch, Limits

_MOST_DECODES = 1_024  # beyond it the measured operators end
_MOST_CONTEXT = 32_768
_MOST_PREFILLS = 8


def iterations(limits: Limits, count: int, seed: int = 0) -> list[Batch]:
    """Batches within the limits, a third of each kind, prefills alike and decodes alike.

    Raises:
        ValueError: hardly any batch fits the limits.
    """
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(round(np.exp(rng.uniform(np.log(low), np.log(max(low, high))))))

    most_decodes = min(limits.max_num_seqs, _MOST_DECODES)
    found: list[Batch] = []
    for attempt in range(100 * count):
        if len(found) == count:
            return found
        decodes, context = draw(1, most_decodes), draw(16, _MOST_CONTEXT)
        prefills, before = draw(1, _MOST_PREFILLS), draw(1, _MOST_CONTEXT) if rng.random() < 0.5 else 0
        tokens = draw(16, limits.max_num_batched_tokens)
        if attempt % 3 == 0:
            batch = Batch(num_decodes=decodes, decode_context_tokens=context)
        elif attempt % 3 == 1:
            batch = Batch(prefills, max(1, tokens // prefills), before)
        else:
            batch = Batch(prefills, max(1, tokens // prefills), before, decodes, context)
        if limits.allow(batch):
            found.append(batch)
    raise ValueError(f"only {len(found)} of {count} batches fit {limits}")


def features_of(batches: list[Batch]) -> NDArray[np.float64]:
    """(n, 9) features of batches."""
    return np.array([batch.features for batch in batches], np.float64)
