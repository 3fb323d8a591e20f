"""What the queue keeps of each waiting request as a column of numbers, so that all keys are set anew at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from infermax_gym.vllm.requests import Seen
from infermax_gym.vllm.seconds import prefill_seconds

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel

Table = NDArray[np.float64]
"""(NUM_COLUMNS, requests) float64; token counts are whole."""

(
    NUMBER,
    KEY,
    SLOPE,
    ARRIVAL_S,
    PROMPT,
    KNOWN,
    GENERATED,
    LOG_KNOWN,
    LOG_ONE_MORE,  # ln(1 + generated)
    LOG_GENERATED,
    SLO_TTFT_S,
    GROUP,
    LOG_FIRST_PREDICTION,  # NaN without one
    PREDICTION,
    INDEX,
    PREFILL_S,
) = range(16)
NUM_COLUMNS = 16


def describe(entry: Seen, cost: CostModel | None) -> tuple[float, ...]:
    """The column of a request that joins the queue; none of it but key, slope, prediction and index changes there.

    Args:
        entry: the request, its key set.
        cost: what iterations cost, where keys weigh `prefill_s`; None: that is left at 0.
    """
    known, generated = entry.known, entry.generated
    return (
        entry.number,
        entry.key,
        entry.slope,
        entry.arrival_s,
        entry.prompt,
        known,
        generated,
        math.log(known),
        math.log(1.0 + generated) if generated else 0.0,
        math.log(generated) if generated else 0.0,
        entry.slo_ttft_s,
        entry.group,
        math.log(entry.first_prediction) if entry.first_prediction > 0.0 else math.nan,
        entry.prediction,
        entry.index,
        prefill_seconds(cost, known) if cost is not None else 0.0,
    )
