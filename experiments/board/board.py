"""What the scoreboard's tables are made of: figures of every contender on every trace slice, and their ratios.

A figure of a policy in a scenario is compared with a rival's on the same trace slices: the ratio is the geometric mean
over trace slices, its 95 % interval a bootstrap over trace slices (paired; over several scenarios, trace slices are
resampled in each).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.objectives import goodput_per_s
from infermax_gym.engine import SimulationResult
from infermax_gym.evaluation.statistics import Ratio

Array = NDArray[np.float64]

FIGURES = ("mean", "p99", "busy", "goodput", "in_time")
"""Mean and p99 E2E latency in seconds, busy seconds (the GPU cost); of requests within their SLOs how many per second,
and their share.
"""

BOUND = "bound"
"""The name under which the certified bounds stand on the board."""


@dataclass(frozen=True, eq=False)
class Board:
    """Everything measured: `figures[scenario][policy]` is (trace slices, 5), in the order of `FIGURES`."""

    figures: Mapping[str, Mapping[str, Array]]

    def log_ratios(self, scenarios: Sequence[str], policy: str, rival: str, figure: str) -> Array:
        """(scenarios, trace slices) ln(policy / rival)."""
        i = FIGURES.index(figure)
        parts = [np.log(self.figures[c][policy][:, i] / self.figures[c][rival][:, i]) for c in scenarios]
        return np.array(parts)

    def mean(self, scenario: str, policy: str, figure: str) -> float:
        """The arithmetic mean over trace slices."""
        return float(self.figures[scenario][policy][:, FIGURES.index(figure)].mean())

    def best(self, scenario: str, policies: Sequence[str], figure: str) -> str:
        """The policy with the best mean figure in a scenario, of those that ran there."""
        there = [p for p in policies if p in self.figures[scenario]]
        sign = -1.0 if figure == "goodput" else 1.0
        return min(there, key=lambda p: sign * self.mean(scenario, p, figure))


def ratio(log_ratios: Array, seed: int = 0, num_resamples: int = 2_000) -> Ratio:
    """Geometric mean over scenarios and trace slices, with a bootstrap over trace slices in each scenario."""
    rng = np.random.default_rng(seed)
    scenarios, count = log_ratios.shape
    index = rng.integers(count, size=(num_resamples, scenarios, count))
    means = np.take_along_axis(log_ratios[None], index, axis=2).mean(axis=(1, 2))
    low, high = np.quantile(means, (0.025, 0.975))
    return Ratio(float(np.exp(log_ratios.mean())), float(np.exp(low)), float(np.exp(high)))


def figures_of(result: SimulationResult, slos: bool) -> tuple[float, float, float, float, float]:
    """In the order of `FIGURES`; goodput and the share in time are 1 where nobody has SLOs."""
    latency_s = result.latency_s[result.finished]
    mean, p99 = float(latency_s.mean()), float(np.quantile(latency_s, 0.99))
    if not slos:
        return mean, p99, result.busy_s, 1.0, 1.0
    goodput = goodput_per_s(result)
    return mean, p99, result.busy_s, goodput, goodput * result.makespan_s / len(result.workload)
