"""The knobs of an action of `InferMaxKnobs-v0`, and the policy that an action stands for."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights


class Knob(IntEnum):
    """The entries of an action, each in [-1, 1], in order."""

    AGING = 0  # queue key: arrival, per 10 s (positive: the longest waiting first)
    KNOWN_TOKENS = 1  # queue key: known tokens, per 1,000 (positive: the shortest first)
    LOG_KNOWN_TOKENS = 2  # queue key: ln(known tokens), per 7
    GENERATED_TOKENS = 3  # queue key: generated tokens, per 100
    PREDICTED_REMAINING = 4  # queue key: predicted remaining tokens, per 100; nothing without predictions
    HEADROOM = 5  # KV tokens per running request that admission leaves free: 0 .. 1,000, cubic
    MAX_RUNNING = 6  # cap on running requests: 1 .. sequences, geometric
    PREFILL_SHARE = 7  # share of the token budget for prefills beside decodes: 0.05 .. 1
    VICTIM_PROCESSED = 8  # victim key: processed tokens, per 1,000
    VICTIM_GENERATED = 9  # victim key: generated tokens, per 100
    VICTIM_ARRIVAL = 10  # victim key: arrival, per 10 s (positive: the newest first)


KNOB_NAMES = tuple(knob.name.lower() for knob in Knob)
"""The names of the entries."""


def checked(action: Any) -> NDArray[np.float64]:
    """(len(Knob),) float64 in [-1, 1]: an action, clipped.

    Raises:
        ValueError: the shape is wrong or a number is not finite.
    """
    try:
        values = np.asarray(action, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (len(Knob),) or not np.isfinite(values).all():
        raise ValueError(f"an action is {len(Knob)} finite numbers ({', '.join(KNOB_NAMES)}), got {action!r}")
    return np.clip(values, -1.0, 1.0)


def policy_of(action: NDArray[np.floating[Any]], max_num_seqs: int, name: str = "knobs") -> Policy:
    """The policy that an action of `InferMaxKnobs-v0` stands for.

    Args:
        action: (len(Knob),) in [-1, 1], order of `Knob`; values outside are clipped.
        max_num_seqs: the engine's `max_num_seqs`.
        name: of the policy.

    Raises:
        ValueError: the shape is wrong or a number is not finite.
    """
    a = checked(action)
    unit = (a + 1.0) / 2.0
    return Policy(
        name,
        queue_order=QueueOrder.LINEAR,
        queue_weights=queue_weights(
            arrival_s=a[Knob.AGING] / 10.0,
            num_known_tokens=a[Knob.KNOWN_TOKENS] / 1000.0,
            log_known_tokens=a[Knob.LOG_KNOWN_TOKENS] / 7.0,
            num_generated_tokens=a[Knob.GENERATED_TOKENS] / 100.0,
            predicted_remaining_tokens=a[Knob.PREDICTED_REMAINING] / 100.0,
        ),
        headroom_tokens=1000.0 * float(unit[Knob.HEADROOM]) ** 3,
        max_running=max(1, round(max_num_seqs ** float(unit[Knob.MAX_RUNNING]))),
        prefill_share=0.05 + 0.95 * float(unit[Knob.PREFILL_SHARE]),
        victim=Victim.KEY,
        victim_weights=victim_weights(
            num_processed_tokens=a[Knob.VICTIM_PROCESSED] / 1000.0,
            num_generated_tokens=a[Knob.VICTIM_GENERATED] / 100.0,
            arrival_s=a[Knob.VICTIM_ARRIVAL] / 10.0,
        ),
    )
