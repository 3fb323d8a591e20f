"""Two runs are the same run."""

from __future__ import annotations

import numpy as np

from infermax_gym.engine import SimulationResult

PER_REQUEST = (
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "num_preemptions_of",
    "num_recomputed_tokens_of",
    "num_generated_tokens",
    "status",
)
TOTALS = (
    "makespan_s",
    "busy_s",
    "num_iterations",
    "num_preemptions",
    "num_recomputed_tokens",
    "num_guarded_iterations",
    "kv_utilization",
)


def pooled_gaps(result: SimulationResult) -> np.ndarray:
    """Every gap between two tokens of a request, sorted."""
    return np.sort(np.repeat(result.gap_s, result.gap_counts))


def same_result(a: SimulationResult, b: SimulationResult) -> None:
    """The same to the bit, but for the schedule and for how many decisions it took."""
    for name in PER_REQUEST:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in TOTALS:
        assert getattr(a, name) == getattr(b, name), name
    np.testing.assert_array_equal(pooled_gaps(a), pooled_gaps(b))
