"""Sorted-F (arXiv 2508.06133): a plan, which batches to serve in which order, replayed by a policy of the table.

Of the requests that wait, the batch X with the least F(X) = sum of outputs / |X|^2 among those that fit memory to
their ends comes first, then the best of the rest, and so on; inside a batch shorter outputs come first. The order is
given to the requests as their priority, and MC-SF's rule starts the next one as soon as it fits. The plan is made
anew every `replan_every` arrivals.

The paper finds X by dynamic programming, local search or a linear program; here it is the best prefix of a few sorted
orders, by output + w x prompt for the weights in `PROMPT_WEIGHTS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.policy import AdmissionCheck, LengthEstimate, QueueOrder, queue_weights
from infermax_gym.engine.session import Session
from infermax_gym.workload import Workload

PROMPT_WEIGHTS = (0.0, 0.1, 0.3, 1.0)
MOST_BATCHES = 8
"""Batches that are planned; the rest follows by output length."""
_UNPLANNED = 1e9

_ROW = Policy(
    "sorted-f-replay",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(priority=1.0),
    admission_check=AdmissionCheck.FUTURE_PEAK,
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
)


@dataclass(frozen=True)
class SortedF:
    """A player that plans with the true output lengths of those who have arrived.

    Attributes:
        replan_every: arrivals between two plans.
    """

    name: str = "sorted-f-oracle"
    replan_every: int = 32
    information: Information = Information.ORACLE
    source: str = "Sorted-F (2508.06133), planned anew every 32 arrivals; X is the best prefix of four sorted orders"
    note: str = "Balances batch size against decode work; needs lengths, and long outputs wait."

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; nothing is random."""
        outputs = workload.num_output_tokens.astype(np.float64)
        session = Session(workload, engine, _ROW, outputs, record_schedule=record_schedule)
        req = session.engine.requests
        session.engine.requests_to_come["priority"] = _UNPLANNED + np.arange(len(workload))
        capacity = engine.num_blocks * engine.block_size
        for start in range(self.replan_every - 1, len(workload), self.replan_every):
            if not _run_until_arrival(session, start):
                break
            present = session.engine.waiting
            rest = req["output"][present] - req["generated"][present]
            ranks = plan(req["prompt"][present] + req["generated"][present], rest, capacity)
            req["priority"][present] = ranks
            session.rekey()
        session.run()
        return session.result()


def _run_until_arrival(session: Session, count: int) -> bool:
    """Run to the first iteration end at which more than `count` requests have arrived; False once all have ended."""
    if not session.workload.is_closed_loop:
        return session.run(float(session.workload.arrival_s[count]))
    goes_on = True
    while goes_on and session.engine.num_arrived <= count:  # nobody knows when, so iteration by iteration
        goes_on = session.run(float(np.nextafter(session.clock_s, np.inf)))
    return goes_on


def plan(known: NDArray[np.int64], rest: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """(n,) place of each request in the plan.

    Args:
        known: (n,) tokens to prefill.
        rest: (n,) output tokens to come.
        capacity: KV tokens.
    """
    left = np.argsort(rest, kind="stable")
    order: list[int] = []
    for _ in range(MOST_BATCHES):
        if not left.size:
            break
        batch = _best_batch(known, rest, left, capacity)
        order.extend(batch[np.argsort(rest[batch], kind="stable")].tolist())
        left = left[~np.isin(left, batch)]
    order.extend(left.tolist())
    ranks = np.empty(len(known), np.int64)
    ranks[order] = np.arange(len(known))
    return ranks


def _best_batch(
    known: NDArray[np.int64], rest: NDArray[np.int64], left: NDArray[np.int64], capacity: int
) -> NDArray[np.int64]:
    best, least = left[:1], np.inf
    for weight in PROMPT_WEIGHTS:
        order = left[np.argsort(rest[left] + weight * known[left], kind="stable")]
        count = _longest_fitting_prefix(known[order], rest[order], capacity)
        values = np.cumsum(rest[order[:count]]) / np.arange(1, count + 1) ** 2
        k = int(values.argmin())
        if values[k] < least:
            best, least = order[: k + 1], float(values[k])
    return best


def _longest_fitting_prefix(known: NDArray[np.int64], rest: NDArray[np.int64], capacity: int) -> int:
    """How many of the first requests fit to their ends together; at least one."""
    low, high = 1, len(known)
    while low < high:
        middle = (low + high + 1) // 2
        if future_peak(known[:middle], rest[:middle]) <= capacity:
            low = middle
        else:
            high = middle - 1
    return low


def future_peak(known: NDArray[np.int64], rest: NDArray[np.int64]) -> int:
    """Most KV tokens that requests need at one time, were they all to decode in lock-step from now on."""
    longest_first = np.argsort(-rest, kind="stable")
    remaining = np.maximum(rest[longest_first] - 1, 0)
    return int((remaining * np.arange(1, len(rest) + 1) + np.cumsum(known[longest_first])).max())
