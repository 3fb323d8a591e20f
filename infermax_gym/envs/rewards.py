"""Rewards as small named objects: a reward is a weighted sum of what happened since the last decision.

Source of `latency`: by Little's law the integral of the number of requests in the system is the sum of their
latencies, so the rewards of an episode that runs to its end sum exactly to minus the total latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Component(IntEnum):
    """What happened since the last decision, in order."""

    ELAPSED_S = 0  # seconds passed
    SYSTEM_REQUEST_S = 1  # requests in the system x seconds
    UNSTARTED_REQUEST_S = 2  # requests without a first token x seconds
    BUSY_S = 3  # seconds of iterations
    NUM_GOOD = 4  # requests finished within their SLOs
    NUM_FINISHED = 5  # requests finished


COMPONENTS = tuple(entry.name.lower() for entry in Component)
"""Names of the components."""

NUM_COMPONENTS = len(COMPONENTS)


@dataclass(frozen=True)
class Reward:
    """A reward: weights . components.

    Attributes:
        name: short name, kebab-case.
        weights: one weight per entry of COMPONENTS.
        unit: what one unit of it means.
    """

    name: str
    weights: tuple[float, ...]
    unit: str

    @property
    def vector(self) -> NDArray[np.float64]:
        """(NUM_COMPONENTS,) float64."""
        return np.array(self.weights)

    def __post_init__(self) -> None:
        if len(self.weights) != NUM_COMPONENTS:
            raise ValueError(f"a reward weighs {', '.join(COMPONENTS)}; got {len(self.weights)} weights")


def _weights(of: Mapping[Component, float]) -> tuple[float, ...]:
    return tuple(of.get(component, 0.0) for component in Component)


LATENCY = Reward("latency", _weights({Component.SYSTEM_REQUEST_S: -1.0}), "minus request-seconds in the system")
TTFT = Reward("ttft", _weights({Component.UNSTARTED_REQUEST_S: -1.0}), "minus request-seconds without a first token")
GPU_COST = Reward("gpu_cost", _weights({Component.BUSY_S: -1.0}), "minus busy seconds")
GOODPUT = Reward("goodput", _weights({Component.NUM_GOOD: 1.0}), "requests finished within their SLOs")

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
    return Reward(name, weights, "weighted mix")


def reward_of(config: Any) -> Reward:
    """The reward of an environment's configuration, which has resolved its name."""
    assert isinstance(config.reward, Reward)
    return config.reward


def paid(components: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The reward of a step; sums in the order of `paid_all`, so that both agree to the bit.

    Args:
        components: (NUM_COMPONENTS,) what happened.
        weights: (NUM_COMPONENTS,) of a reward.
    """
    total = 0.0
    for component, weight in zip(components.tolist(), weights.tolist(), strict=True):
        total += component * weight
    return total


def paid_all(components: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) float64: `paid` of n steps at once, components (n, NUM_COMPONENTS)."""
    return np.asarray((components * weights).sum(axis=-1))
