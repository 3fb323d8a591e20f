"""Rewards as small named objects: a reward is a weighted sum of what happened since the last decision.

Source of `latency`: by Little's law the integral of the number of requests in the system is the sum of their
latencies, so the rewards of an episode that runs to its end sum exactly to minus the total latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COMPONENTS = ("elapsed_s", "system_request_s", "unstarted_request_s", "busy_s", "num_good", "num_finished")
"""What happened since the last decision: seconds passed, requests in the system x seconds, requests without a first
token x seconds, seconds of iterations, requests finished within their SLOs, requests finished."""


@dataclass(frozen=True)
class Reward:
    """A reward: weights . components.

    Attributes:
        name: short name, kebab-case.
        weights: one weight per entry of COMPONENTS.
        unit: what one unit of it means.
    """

    name: str
    weights: tuple[float, float, float, float, float, float]
    unit: str

    @property
    def vector(self) -> NDArray[np.float64]:
        """(6,) float64."""
        return np.array(self.weights)


LATENCY = Reward("latency", (0.0, -1.0, 0.0, 0.0, 0.0, 0.0), "minus request-seconds in the system")
TTFT = Reward("ttft", (0.0, 0.0, -1.0, 0.0, 0.0, 0.0), "minus request-seconds without a first token")
GPU_COST = Reward("gpu_cost", (0.0, 0.0, 0.0, -1.0, 0.0, 0.0), "minus busy seconds")
GOODPUT = Reward("goodput", (0.0, 0.0, 0.0, 0.0, 1.0, 0.0), "requests finished within their SLOs")

REWARDS: dict[str, Reward] = {reward.name: reward for reward in (LATENCY, TTFT, GPU_COST, GOODPUT)}
"""The named rewards."""


def mix(parts: Mapping[str, float]) -> Reward:
    """A weighted mix of named rewards.

    Raises:
        ValueError: a name is unknown or the mix is empty.

    Example:
        >>> mix({"latency": 1.0, "gpu_cost": 0.5}).weights
        (0.0, -1.0, 0.0, -0.5, 0.0, 0.0)
    """
    unknown = sorted(set(parts) - set(REWARDS))
    if unknown or not parts:
        what = f"unknown reward {unknown[0]!r}" if unknown else "a mix needs at least one reward"
        raise ValueError(f"{what}; known: {', '.join(REWARDS)}")
    total = sum(weight * REWARDS[name].vector for name, weight in parts.items())
    weights = tuple(float(w) + 0.0 for w in np.asarray(total))
    name = "+".join(f"{weight:g}*{name}" for name, weight in parts.items())
    return Reward(name, weights, "weighted mix")  # type: ignore[arg-type]
