"""What a run of the reference engine leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.reference.request import Request


class Iteration(NamedTuple):
    """One iteration: (request, tokens) in batch order, and whom its decision preempted, in order."""

    start_s: float
    end_s: float
    batch: list[tuple[int, int]]
    preempted: list[int]


@dataclass
class Books:
    """What is written down while a run goes on; the names are those of `ReferenceResult`."""

    schedule: list[Iteration] = field(default_factory=list)
    empty_decisions: list[tuple[int, list[int]]] = field(default_factory=list)
    busy_s: float = 0.0
    block_seconds: float = 0.0
    num_guarded: int = 0


@dataclass(frozen=True)
class ReferenceResult:
    """Per request (arrays in the workload's order, nan where there is no such time), totals, and the schedule.

    Attributes:
        status: 'finished' or 'rejected', per request.
        busy_s: sum of the iterations' durations.
        makespan_s: end of the last iteration (0 without one).
        kv_utilization: time integral of the used blocks over the iterations / (makespan x all blocks).
        schedule: the iterations.
        empty_decisions: (number of iterations before it, who it preempted in order) of each decision without a
            batch that preempted or resumed somebody.
        num_guarded_iterations: iterations under the progress guard.
    """

    arrival_s: NDArray[np.float64]
    first_scheduled_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    num_preemptions: NDArray[np.int64]
    num_recomputed_tokens: NDArray[np.int64]
    num_cached_tokens: NDArray[np.int64]
    status: list[str]
    busy_s: float
    makespan_s: float
    kv_utilization: float
    schedule: list[Iteration]
    empty_decisions: list[tuple[int, list[int]]]
    num_guarded_iterations: int

    @property
    def num_iterations(self) -> int:
        """Iterations that computed something."""
        return len(self.schedule)

    @property
    def total_preemptions(self) -> int:
        """Preemptions of all requests."""
        return int(self.num_preemptions.sum())

    @property
    def total_recomputed_tokens(self) -> int:
        """Recomputed tokens of all requests."""
        return int(self.num_recomputed_tokens.sum())


def collect_result(requests: Sequence[Request], books: Books, num_blocks: int) -> ReferenceResult:
    """The result of a run that is over."""
    makespan_s = books.schedule[-1].end_s if books.schedule else 0.0
    return ReferenceResult(
        arrival_s=np.array([r.arrival_s for r in requests], np.float64),
        first_scheduled_s=np.array([r.first_scheduled_s for r in requests], np.float64),
        first_token_s=np.array([r.first_token_s for r in requests], np.float64),
        finish_s=np.array([r.finish_s for r in requests], np.float64),
        num_preemptions=np.array([r.num_preemptions for r in requests], np.int64),
        num_recomputed_tokens=np.array([r.num_recomputed_tokens for r in requests], np.int64),
        num_cached_tokens=np.array([r.num_cached_tokens for r in requests], np.int64),
        status=[r.status for r in requests],
        busy_s=books.busy_s,
        makespan_s=makespan_s,
        kv_utilization=books.block_seconds / (makespan_s * num_blocks) if makespan_s > 0.0 else 0.0,
        schedule=books.schedule,
        empty_decisions=books.empty_decisions,
        num_guarded_iterations=books.num_guarded,
    )
