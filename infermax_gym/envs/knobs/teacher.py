"""A policy of the table as an agent of `InferMaxKnobs-v0`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QUEUE_FEATURES, VICTIM_FEATURES, QueueOrder, Victim
from infermax_gym.envs.knobs.layout import Knob, policy_of

_QUEUE = {
    "arrival_s": (Knob.AGING, 10.0),
    "num_known_tokens": (Knob.KNOWN_TOKENS, 1000.0),
    "log_known_tokens": (Knob.LOG_KNOWN_TOKENS, 7.0),
    "num_generated_tokens": (Knob.GENERATED_TOKENS, 100.0),
    "predicted_remaining_tokens": (Knob.PREDICTED_REMAINING, 100.0),
}
_VICTIM = {
    "num_processed_tokens": (Knob.VICTIM_PROCESSED, 1000.0),
    "num_generated_tokens": (Knob.VICTIM_GENERATED, 100.0),
    "arrival_s": (Knob.VICTIM_ARRIVAL, 10.0),
}


class KnobsTeacher:
    """Plays one and the same action: the knobs of a policy.

    Policies that knobs can express: a linear queue key and a victim key of the features that knobs weigh (only the
    proportions of weights matter), headroom up to 1,000 tokens per running request, and a share of prefills of at
    least 0.05. Whatever else the policy says is as in `infermax_gym.envs.knobs.config.BASE`.

    Args:
        policy: the policy.
        max_num_seqs: the engine's.

    Raises:
        ValueError: knobs cannot express it.
    """

    def __init__(self, policy: Policy, max_num_seqs: int) -> None:
        if policy.queue_order != QueueOrder.LINEAR or policy.victim != Victim.KEY:
            raise ValueError(f"policy {policy.name!r}: knobs express a linear queue key and a victim key")
        action = np.zeros(len(Knob))
        _weigh(action, policy.name, QUEUE_FEATURES, policy.queue_weights, _QUEUE)
        _weigh(action, policy.name, VICTIM_FEATURES, policy.victim_weights, _VICTIM)
        most = min(policy.max_running or max_num_seqs, max_num_seqs)
        action[Knob.HEADROOM] = 2.0 * (policy.headroom_tokens / 1000.0) ** (1.0 / 3.0) - 1.0
        action[Knob.MAX_RUNNING] = 2.0 * math.log(most) / math.log(max(max_num_seqs, 2)) - 1.0
        action[Knob.PREFILL_SHARE] = 2.0 * (policy.prefill_share - 0.05) / 0.95 - 1.0
        if np.abs(action).max() > 1.0 + 1e-9:
            raise ValueError(f"policy {policy.name!r} lies outside what knobs can express")
        self.policy = policy_of(action, max_num_seqs, policy.name)
        self._action = np.clip(action, -1.0, 1.0)

    def action(self) -> NDArray[np.float64]:
        """(len(Knob),) float64 in [-1, 1]."""
        return self._action.copy()


def _weigh(
    action: NDArray[np.float64],
    name: str,
    features: Sequence[str],
    weights: Sequence[float],
    knobs: dict[str, tuple[Knob, float]],
) -> None:
    """Weights as knobs, scaled so that the largest is 1."""
    given = {feature: weight for feature, weight in zip(features, weights, strict=True) if weight}
    unknown = sorted(set(given) - set(knobs))
    if unknown:
        raise ValueError(f"policy {name!r}: no knob weighs {unknown[0]!r}")
    scaled = {feature: weight * knobs[feature][1] for feature, weight in given.items()}
    largest = max((abs(weight) for weight in scaled.values()), default=1.0)
    for feature, weight in scaled.items():
        action[knobs[feature][0]] = weight / largest
