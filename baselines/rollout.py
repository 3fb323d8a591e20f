"""Try several policies on copies of the engine, and go on with the best: the search that learning has to beat.

Every `interval_s` of simulated time each candidate serves what is present to its end on a copy of the engine, in
which every output length is imagined and nobody else arrives. The one with the least total latency takes over. All
candidates of a decision see the same imagined lengths.

Nothing is peeked at: a request that has generated g tokens is imagined to end where one of the outputs that this
engine has finished, drawn among those longer than g, ended; as long as there is none, at twice g, or 128 more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.layout import LOG_ARRAYS
from infermax_gym.engine.policy import QueueOrder
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.session import Session, install_policy, run_to
from infermax_gym.engine.state import Engine
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

FIRST_GUESS = 128
"""Output tokens beyond those generated that are imagined before any output is known."""


@dataclass(frozen=True)
class Rollout:
    """A player that picks a policy of the table anew every few seconds.

    Attributes:
        name: kebab-case.
        candidates: policies to choose from, with queue keys that do not move and without predictions.
        interval_s: simulated seconds between two choices.
        source: where the idea comes from.
        note: one line, good and bad at.

    Raises:
        ValueError: there is no candidate, or one does not qualify.
    """

    name: str
    candidates: Sequence[Policy]
    interval_s: float = 2.0
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.candidates:
            moving = row.queue_order not in (QueueOrder.FIFO, QueueOrder.LINEAR)
            if moving or row.information not in (Information.NONE, Information.BOUND) or not row.chunking:
                raise ValueError(f"rollout {self.name!r}: {row.name} needs predictions, moving keys or whole prompts")
        if not self.candidates or not self.interval_s > 0.0:
            raise ValueError(f"rollout {self.name!r} needs candidates and a positive interval")

    @property
    def information(self) -> Information:
        """The most that a candidate knows about output lengths."""
        return max(row.information for row in self.candidates)

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; the seed is of the imagination (stream `policy`)."""
        rng = stream(seed, "policy")
        session = Session(workload, engine, self.candidates[0], record_schedule=record_schedule)
        current = self.candidates[0]
        while session.run(session.clock_s + self.interval_s):
            best = self._best(session.engine, current, rng)
            if best is not current:
                session.install(best)
                current = best
        return session.result()

    def _best(self, engine: Engine, current: Policy, rng: np.random.Generator) -> Policy:
        """The candidate with the least total latency; the current one where others are no better."""
        if engine.num_waiting == 0:
            return current  # whoever runs keeps running
        dream = imagined(engine, rng)
        order = [current, *(row for row in self.candidates if row is not current)]
        return min(order, key=lambda row: total_latency_s(dream, row))


def imagined(engine: Engine, rng: np.random.Generator) -> Engine:
    """A copy of an engine in which nobody else arrives and all lengths are guesses."""
    disband(engine.core)  # which changes no result, and makes all records absolute
    copy = _with_small_log(engine)
    req = copy.requests
    copy.core["num_requests"] = copy.num_arrived
    copy.core["num_unsent"] = copy.core["has_loop"] = copy.core["takes_from_loop"] = 0
    present = np.sort(np.concatenate((copy.waiting, copy.running)))
    done = np.sort(req["output"][copy.finished])
    generated = req["generated"][present]
    most = np.maximum(copy.num_kv_tokens - req["prompt"][present] + 1, generated + 1)
    req["output"][present] = np.minimum(guess_lengths(generated, done, rng), most)
    return copy


def _with_small_log(engine: Engine) -> Engine:
    """A copy whose log is empty, small and without a schedule, so that copying it again is cheap."""
    core = engine.record.copy()
    arrays = {name: array.copy() for name, array in engine.arrays.items() if name not in LOG_ARRAYS}
    size = 4 * int(core["list_size"][0]) + 512
    arrays |= {name: np.zeros((0, *engine.arrays[name].shape[1:]), engine.arrays[name].dtype) for name in LOG_ARRAYS}
    arrays["gaps"], arrays["gap_counts"] = np.zeros(size), np.zeros(size, np.int64)
    core["gaps_size"] = size
    for name in ("spans_size", "num_gaps", "num_spans", "num_members", "num_victims"):
        core[name] = 0
    arrays["preempted"][0] = 0
    return Engine(core, arrays)


def guess_lengths(
    generated: NDArray[np.int64], finished: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """(k,) output lengths of requests that have generated so many tokens, drawn from (m,) sorted finished ones."""
    first = np.searchsorted(finished, generated, side="right")
    beyond = len(finished) - first
    draws = rng.random(len(generated))
    drawn = np.minimum(first + (draws * beyond).astype(np.int64), max(len(finished) - 1, 0))
    guesses = np.maximum(2 * generated, generated + FIRST_GUESS)
    if len(finished):
        guesses = np.where(beyond > 0, finished[drawn], guesses)
    return np.asarray(guesses, np.int64)


def total_latency_s(dream: Engine, row: Policy) -> float:
    """Seconds in the system, summed over the requests present, were the policy to serve them to their ends."""
    copy = dream.copy()
    install_policy(copy, row)
    before = float(copy.record["system_seconds"][0])
    run_to(copy, Recorder())
    return float(copy.record["system_seconds"][0]) - before
