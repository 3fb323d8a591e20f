"""What a run leaves behind: one row per request, the totals, and the schedule where it was recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.layout import FINISHED, REJECTED
from infermax_gym.workload.workload import Workload

STATUS_NAMES = ("finished", "rejected", "unfinished")


@dataclass(frozen=True)
class Iteration:
    """One iteration of a recorded schedule.

    Attributes:
        start_s: when it began.
        end_s: when its tokens appeared.
        batch: (request, tokens) in the order granted.
        preempted: requests preempted by the decision, in order.
    """

    start_s: float
    end_s: float
    batch: tuple[tuple[int, int], ...]
    preempted: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """Per-request records and totals of one run. Arrays have shape (n,), in the workload's order.

    Attributes:
        workload: the requests that were served.
        first_scheduled_s: start of the first iteration with a token of the request; nan if there was none.
        first_token_s: when its first output token appeared; nan if it did not.
        finish_s: when its last output token appeared; nan if it did not.
        num_preemptions_of: times it was preempted.
        num_recomputed_tokens_of: its KV tokens that preemptions threw away.
        num_generated_tokens: output tokens that appeared.
        status: int8 index into STATUS_NAMES.
        gap_s: (g,) seconds between a token and its request's previous one ...
        gap_counts: (g,) ... and how many tokens of the run had exactly that entry (pooled over requests).
        makespan_s: last finish, on the clock that starts at 0.
        busy_s: sum of iteration durations.
        num_iterations: iterations with at least one token.
        num_decisions: calls of the scheduling algorithm (fast-forwarded iterations need none).
        num_preemptions: of all requests.
        num_recomputed_tokens: of all requests.
        num_guarded_iterations: iterations under the progress guard, which overrules a policy that gets nowhere
            (docs/engine.md).
        kv_utilization: held KV blocks, integrated over the iterations, over makespan x capacity.
        schedule: the iterations, if they were recorded.
        num_cached_tokens_of: its tokens that came from the prefix cache, those not counted that it had computed itself
            before a preemption; empty without a cache.
        arrival_s: when each request was sent: `workload.arrival_s`, or what the run made of it where requests are sent
            when others have ended; nan for those never sent.
    """

    workload: Workload
    first_scheduled_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    num_preemptions_of: NDArray[np.int64]
    num_recomputed_tokens_of: NDArray[np.int64]
    num_generated_tokens: NDArray[np.int64]
    status: NDArray[np.int8]
    gap_s: NDArray[np.float64]
    gap_counts: NDArray[np.int32]
    makespan_s: float
    busy_s: float
    num_iterations: int
    num_decisions: int
    num_preemptions: int
    num_recomputed_tokens: int
    kv_utilization: float
    schedule: tuple[Iteration, ...] | None = None
    num_guarded_iterations: int = 0
    num_cached_tokens_of: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    arrival_s: NDArray[np.float64] = None  # type: ignore[assignment]  # __post_init__ fills it

    def __post_init__(self) -> None:
        if self.arrival_s is None:
            object.__setattr__(self, "arrival_s", self.workload.arrival_s)

    @property
    def finished(self) -> NDArray[np.bool_]:
        """(n,) whether the request finished."""
        return np.asarray(self.status == 0)

    @property
    def prefix_hit_rate(self) -> float | None:
        """Tokens from the prefix cache over prompt tokens of the requests that were scheduled; None without a cache."""
        if not self.num_cached_tokens_of.size:
            return None
        prompts = self.workload.num_prompt_tokens[np.isfinite(self.first_scheduled_s)].sum()
        return float(self.num_cached_tokens_of.sum() / max(prompts, 1))

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        """(n,) first token - arrival, seconds; nan where there is none."""
        return self.first_token_s - self.arrival_s

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """(n,) finish - arrival (E2E), seconds; nan where there is none."""
        return self.finish_s - self.arrival_s

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        """(n,) (finish - first token) / (output tokens - 1), seconds; nan for single-token outputs."""
        outputs = self.workload.num_output_tokens
        divisor = np.where(outputs > 1, outputs - 1, 1)
        return np.where(outputs > 1, (self.finish_s - self.first_token_s) / divisor, np.nan)


def statuses(requests: Any) -> NDArray[np.int8]:
    """Status codes of a REQUEST array."""
    place = requests["place"]
    return np.where(place == FINISHED, 0, np.where(place == REJECTED, 1, 2)).astype(np.int8)
