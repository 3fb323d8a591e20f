"""Controllers read for vLLM: which specialist is active, and which knobs it sets, from what is seen.

The twin of `pick` and `choose` in `infermax_gym.agents.controller_kernel`, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.controller_layout import CONTROLLER_KNOBS, KNOB_PREEMPT, KNOB_SHED
from infermax_gym.agents.serialization import controller_parts
from infermax_gym.engine.policy import Policy, QueueOrder, Victim
from infermax_gym.vllm.errors import PlugInError

BASE = Policy("controller", queue_order=QueueOrder.LINEAR, victim=Victim.KEY)
"""The policy whose knobs a controller sets; of `infermax_gym.agents.controller`."""

_CANNOT = {"preempt": KNOB_PREEMPT, "shed": KNOB_SHED}
"""Knobs that move requests in ways that vLLM cannot."""


@dataclass(frozen=True, eq=False)
class KnobWeights:
    """A controller.

    Attributes:
        name: of the agent.
        weights: (specialists, features, knobs) float64.
        inner: (features, hidden units) float64 of the gating network.
        outer: for each specialist and hidden unit, and a constant.
        interval_s: seconds between two settings.
        estimates_lengths: whether it estimates output lengths.
        classes: whether it knows SLO classes.
        sigma: log-normal error of predicted lengths; 0: it takes none.
        prior: of ln(output): mean, standard deviation, and how many finished requests it is worth.
    """

    name: str
    weights: NDArray[np.float64]
    inner: NDArray[np.float64]
    outer: Sequence[Sequence[float]]
    interval_s: float
    estimates_lengths: bool
    classes: bool
    sigma: float
    prior: tuple[float, float, float]

    def pick(self, features: Sequence[float]) -> int:
        """Which specialist sets the knobs; the only one without being asked."""
        if len(self.outer) == 1:
            return 0
        hidden = [math.tanh(value) for value in _dots(self.inner, features)]
        best, best_score = 0, -math.inf
        for k, row in enumerate(self.outer):
            score = row[len(hidden)]
            for weight, value in zip(row, hidden, strict=False):
                score += weight * value
            if score > best_score:
                best, best_score = k, score
        return best

    def choose(self, specialist: int, features: Sequence[float]) -> list[float]:
        """Knobs in [-1, 1]."""
        return [min(max(value, -1.0), 1.0) for value in _dots(self.weights[specialist], features)]


def _dots(columns: NDArray[np.float64], features: Sequence[float]) -> list[float]:
    """For each output its weights times the features, summed from the first feature on."""
    total = np.zeros(columns.shape[1])
    for column, feature in zip(columns, features, strict=True):
        total += column * feature
    return total.tolist()  # type: ignore[no-any-return]


def read_controller(name: str, record: Any, tensors: Mapping[str, Any], without: tuple[str, ...]) -> KnobWeights:
    """A controller from its card and weights.

    Args:
        name: of the agent.
        record: its settings.
        tensors: its weights.
        without: knobs to switch off.

    Raises:
        PlugInError: it sets a knob that vLLM has no way to follow, or `without` names another one.
        ValueError: the card or the weights are wrong.
    """
    settings, weights, gating = controller_parts(record, tensors)
    weights = switched_off(weights, without)
    for knob, place in _CANNOT.items():
        if may_be_positive(weights, place):
            raise PlugInError(
                f"infermax: agent {name} sets the knob {knob}, which vLLM cannot follow; "
                f'"without": ["{knob}"] runs it with that knob off'
            )
    specialists = weights.reshape(-1, *weights.shape[-2:])
    inner, outer = gating if gating is not None else (np.zeros((0, weights.shape[-1])), np.zeros((1, 1)))
    if len(outer) != len(specialists):
        raise ValueError(f"{len(specialists)} specialists need a gating network for as many")
    return KnobWeights(
        name,
        weights=np.ascontiguousarray(np.swapaxes(specialists, 1, 2), np.float64),
        inner=np.ascontiguousarray(np.transpose(inner), np.float64),
        outer=outer.tolist(),
        interval_s=float(settings["interval_s"]),
        estimates_lengths=bool(settings["estimates_lengths"]),
        classes=bool(settings["classes"]),
        sigma=float(settings["sigma"] or 0.0),
        prior=settings["prior"],
    )


def switched_off(weights: NDArray[np.float64], without: tuple[str, ...]) -> NDArray[np.float64]:
    """(..., knobs, features) weights with some knobs always 0, which is off.

    Raises:
        PlugInError: a name is no knob that may be switched off.
    """
    weights = np.array(weights)
    for knob in without:
        if knob not in _CANNOT:
            raise PlugInError(f"infermax: without knows {', '.join(_CANNOT)}, got {knob!r}")
        weights[..., CONTROLLER_KNOBS.index(knob), :] = 0.0
    return weights


def may_be_positive(weights: NDArray[np.float64], knob: int) -> bool:
    """Whether any specialist may set a knob above 0: its constant, and every other feature in [-1, 1]."""
    row = weights[..., knob, :]
    most = row[..., 0] + np.abs(row[..., 1:]).sum(axis=-1)
    return bool((most > 0.0).any())
