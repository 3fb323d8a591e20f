"""After ProServe's SlideBatching (arXiv 2512.12928): deadlines first while there is time, gain per work when not.

Sourced: an engine's batches are formed by a boundary that slides with the load between deadline-first and
density-first order, and priorities are worth different gains. The formulas are ours:

- a request's deadline is its arrival + its limit on the time to first token (`ttft_slo_s` where it has none);
- the boundary is the time that the prefills of all waiting requests take one after another. Whose slack (deadline - now
  - own prefill) is less is urgent. Nobody is while queues are short, everybody in overload;
- urgent requests go first, most gain per second of prefill first, and among them those too late already last;
  all others follow by deadline. The gain of priority p is 1 / (1 + p).

Left out: the service level (GoRouting), and block transfers beside the computation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.table.engines import SARATHI
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.policy import QueueOrder, queue_weights
from infermax_gym.engine.session import Session
from infermax_gym.workload import Workload


@dataclass(frozen=True)
class SlideBatching:
    """A player that orders the waiting queue anew every `interval_s`.

    Attributes:
        ttft_slo_s: limit on the time to first token of requests that have none of their own.
        interval_s: simulated seconds between two orders; whoever comes in between stands at the end.
        batches: the policy whose batches and memory it uses.
    """

    name: str = "proserve-like"
    ttft_slo_s: float = 5.0
    interval_s: float = 0.25
    batches: Policy = SARATHI
    information: Information = Information.NONE
    source: str = "after ProServe (2512.12928), SlideBatching: from deadline to density first; formulas ours"
    note: str = "Keeps deadlines while it can, then serves what is worth most per second of prefill."

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; nothing is random."""
        row = replace(
            self.batches, name=self.name, queue_order=QueueOrder.LINEAR, queue_weights=queue_weights(level_place_s=1.0)
        )
        session = Session(workload, engine, row, record_schedule=record_schedule)
        req = session.engine.requests
        limit_s = np.where(np.isfinite(workload.ttft_slo_s), workload.ttft_slo_s, self.ttft_slo_s)
        while session.run(session.clock_s + self.interval_s):
            present = session.engine.waiting
            if len(present) < 2:
                continue
            known = req["prompt"][present] + req["generated"][present]
            prefill_s = np.array([engine.cost.seconds(prefills=[(int(tokens), 0)]) for tokens in known])
            number = req["number"][present]
            deadline_s = req["arrival_s"][present] + limit_s[number]
            gain = 1.0 / (1.0 + workload.priority[number].astype(np.float64))
            order = slide(session.clock_s, deadline_s, prefill_s, gain)
            req["level_place_s"][present[order]] = np.arange(len(present)) - len(workload)
            session.rekey()
        return session.result()


def slide(
    now_s: float, deadline_s: NDArray[np.float64], prefill_s: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(n,) indices of the waiting requests, the next first.

    Args:
        now_s: the clock.
        deadline_s: (n,) when first tokens are due.
        prefill_s: (n,) seconds of each prefill alone.
        gain: (n,) worth of meeting the deadline.
    """
    slack_s = deadline_s - now_s - prefill_s
    urgent = slack_s < prefill_s.sum()
    late = slack_s < 0.0
    second = np.where(urgent, -gain / prefill_s, deadline_s)
    return np.lexsort((second, late & urgent, ~urgent))
