"""Closed-loop traffic: requests that are sent when others have ended.

Load generators such as vLLM's and SGLang's `bench serve --max-concurrency` and InferenceMAX keep a number of clients
busy: each sends the next request of one list when its last one has ended. In a conversation, a turn is sent when the
answer to the one before it was read. Both are `Workload.after` and `Workload.think_s`, which the engines obey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.workload import ANYBODY, NOBODY, Workload, WorkloadError


def closed_loop(workload: Workload, num_clients: int, think_s: float = 0.0, ramp_up_s: float = 0.0) -> Workload:
    """The requests of a workload, in order, sent by clients of which each waits for its answer.

    The first `num_clients` requests begin at 0, or evenly over `ramp_up_s`; each later one is sent when a client is
    free: `think_s` after the end of its last request. A conversation (requests that already come after others, see
    `as_sessions`) stays with its client, which takes the next first turn after the last one.

    Args:
        workload: whose arrival times play no part.
        num_clients: at least 1.
        think_s: seconds from an end to the next request; turns of a conversation keep their own.
        ramp_up_s: seconds over which clients begin: client k of C at k / C of them.

    Raises:
        WorkloadError: a number is out of range, or the requests are shared by clients already.

    Example:
        >>> closed_loop(Workload([0.0, 1.0, 2.0], [10, 10, 10], [5, 5, 5]), num_clients=2).after.tolist()
        [-1, -1, -2]
    """
    if num_clients < 1:
        raise WorkloadError(f"num_clients must be at least 1, got {num_clients}")
    for name, value in (("think_s", think_s), ("ramp_up_s", ramp_up_s)):
        if not 0.0 <= value < math.inf:
            raise WorkloadError(f"{name} must be a finite time >= 0, got {value}")
    if np.any(workload.after == ANYBODY):
        raise WorkloadError(f"{workload.name}: clients share its requests already")
    begins = workload.after == NOBODY
    rank = np.cumsum(begins) - 1  # of the first turn of each request's conversation, among first turns
    start_s = np.minimum(rank, num_clients - 1) * (ramp_up_s / num_clients)
    shared = begins & (rank >= num_clients)
    return replace(
        workload,
        arrival_s=np.maximum.accumulate(start_s),
        after=np.where(shared, ANYBODY, workload.after),
        think_s=np.where(shared, think_s, workload.think_s),
        metadata={**workload.metadata, "num_clients": num_clients, "think_s": think_s, "ramp_up_s": ramp_up_s},
    )


def as_sessions(workload: Workload, think_s: float | None = None, answer_s_per_token: float = 0.0) -> Workload:
    """The requests of a workload, where each turn of a conversation is sent after the one before it was answered.

    `Workload.session` says which requests are one conversation; they are turns in order of arrival. First turns keep
    their arrivals.

    Args:
        workload: with recorded or drawn arrivals.
        think_s: seconds from an answer to the next turn. None: the time between the arrivals of both turns, less what
            the answer took.
        answer_s_per_token: seconds per output token that answers took when arrivals were recorded.

    Raises:
        WorkloadError: a number is out of range, or clients share the requests.
    """
    if think_s is not None and not 0.0 <= think_s < math.inf:
        raise WorkloadError(f"think_s must be a finite time >= 0, got {think_s}")
    if not 0.0 <= answer_s_per_token < math.inf:
        raise WorkloadError(f"answer_s_per_token must be a finite time >= 0, got {answer_s_per_token}")
    if np.any(workload.after == ANYBODY):
        raise WorkloadError(f"{workload.name}: clients share its requests; take sessions first, then closed_loop")
    after = _turns_before(workload)
    follows = after >= 0
    before = after[follows]
    pause_s = np.zeros(len(workload))
    if think_s is None:
        gap_s = workload.arrival_s[follows] - workload.arrival_s[before]
        pause_s[follows] = np.maximum(gap_s - answer_s_per_token * workload.num_output_tokens[before], 0.0)
    else:
        pause_s[follows] = think_s
    return replace(workload, after=after, think_s=pause_s)


@dataclass(frozen=True)
class Traffic:
    """Who sends the requests of a workload, and when: what `--concurrency`, `--sessions` and their kin say.

    Attributes:
        concurrency: so many clients share the requests (`closed_loop`); None: they arrive when they arrive.
        think_s: seconds that clients think, and with `sessions` the pause before a turn; None: no time, and of turns
            the recorded pause.
        ramp_up_s: seconds over which the clients begin.
        sessions: turns of a conversation are sent after the answer before (`as_sessions`).

    Raises:
        WorkloadError: a number is out of range, or nothing would use it.
    """

    concurrency: int | None = None
    think_s: float | None = None
    ramp_up_s: float = 0.0
    sessions: bool = False

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise WorkloadError(f"concurrency must be at least 1, got {self.concurrency}")
        for name in ("think_s", "ramp_up_s"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < math.inf:
                raise WorkloadError(f"{name} must be a finite time >= 0, got {value}")
        if self.concurrency is None and self.ramp_up_s > 0.0:
            raise WorkloadError("ramp_up_s needs concurrency, whose clients begin one after another")
        if self.concurrency is None and not self.sessions and self.think_s is not None:
            raise WorkloadError("think_s needs concurrency or sessions, which send requests after an answer")

    @property
    def is_open(self) -> bool:
        """Whether it leaves a workload as it is."""
        return self.concurrency is None and not self.sessions

    def __call__(self, workload: Workload) -> Workload:
        """The same requests, so sent."""
        if self.sessions:
            workload = as_sessions(workload, self.think_s)
        if self.concurrency is None:
            return workload
        return closed_loop(workload, self.concurrency, self.think_s or 0.0, self.ramp_up_s)


def _turns_before(workload: Workload) -> NDArray[np.int64]:
    """(n,) the request of the same conversation that arrived before each, NOBODY for first ones."""
    numbers = np.arange(len(workload))
    order = np.lexsort((numbers, workload.session))
    same = workload.session[order][1:] == workload.session[order][:-1]
    after = np.full(len(workload), NOBODY)
    after[order[1:][same]] = order[:-1][same]
    return after


__all__ = ["Traffic", "as_sessions", "closed_loop"]
