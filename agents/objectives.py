"""What a scheduler is scored by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infermax_gym.engine import SimulationResult
from infermax_gym.engine.metrics import meets_slo


@dataclass(frozen=True)
class Objective:
    """A sum of weighted logarithms, so that trace slices of any scale count alike; lower is better.

    Attributes:
        mean_latency: weight of ln(mean latency).
        p99_latency: weight of ln(p99 latency).
        busy: weight of ln(busy seconds), the GPU cost.
        goodput: weight of -ln(goodput): requests that meet their SLOs, over the makespan.
    """

    mean_latency: float = 1.0
    p99_latency: float = 0.0
    busy: float = 0.0
    goodput: float = 0.0

    def loss(self, result: SimulationResult) -> float:
        """The loss of a run. Unfinished requests do not occur here; rejected ones are the same for everybody."""
        latency_s = result.latency_s[result.finished]
        loss = self.mean_latency * np.log(latency_s.mean())
        if self.p99_latency:
            loss += self.p99_latency * np.log(np.quantile(latency_s, 0.99))
        if self.busy:
            loss += self.busy * np.log(result.busy_s)
        if self.goodput:
            loss -= self.goodput * np.log(goodput_per_s(result))
        return float(loss)


def goodput_per_s(result: SimulationResult) -> float:
    """Requests per second of makespan that met their own SLOs; half a request where none did (logarithms are taken).

    Raises:
        ValueError: no request has an SLO.
    """
    met = meets_slo(result, None)
    if met is None:
        raise ValueError("goodput needs requests with SLOs")
    return max(float(met.sum()), 0.5) / result.makespan_s
