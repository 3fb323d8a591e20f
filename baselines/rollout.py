"""Try several policies on copies of the engine, and go on with the best: the search that learning has to beat.

At intervals each candidate serves an imagined future on a copy of the engine (`baselines.imagined`): the requests
present, and arrivals like those so far for about as long as a request has been in the system lately, all to their
ends. The candidate with the least mean latency, or the most goodput, takes over. All candidates of a
decision see the same future. Intervals and horizon follow the traffic and the engine: they are counted in times that
requests take, since a horizon of seconds would choose for one engine and not for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.imagined import imagined
from infermax_gym.baselines.observed import Observed, observe, rounded
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.table.shares import Shares
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.kernel.queue import rekey
from infermax_gym.engine.layout import FINISHED
from infermax_gym.engine.policy import QueueOrder
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.scheduler import SchedulerError
from infermax_gym.engine.session import Session, install_policy, run_to
from infermax_gym.engine.state import Engine
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

_LATELY = 100
"""Finished requests whose time in the system says how far to look ahead."""

_AT_LEAST = 4.0
"""Times alone that a future is imagined for, at least."""

_FEW = 3
"""So many requests must have arrived before anything is imagined."""


@dataclass(frozen=True)
class Rollout:
    """A player that picks a policy anew now and then.

    Attributes:
        name: kebab-case.
        candidates: policies to choose from; the first one begins.
        interval: between two choices, in times that a mean request takes alone.
        horizon: for how long requests go on arriving in an imagined future, in mean times in the system.
        tail: weight of ln(p99 latency) beside ln(mean latency).
        goodput: whether the requests within their limits count, and not latency.
        sigma: log-normal error of the predicted output lengths that it and its candidates get; None: they get none.
        memory: weight of the scores so far when new ones come, in [0, 1).
        margin: by how much another must be better than the current one to take over, as a share.
        source: where the idea comes from.
        note: one line, good and bad at.

    Raises:
        ValueError: there is no candidate, one needs predicted lengths, or a number is out of range.
    """

    name: str
    candidates: Sequence[Policy | Shares]
    interval: float = 2.0
    horizon: float = 3.0
    tail: float = 0.0
    goodput: bool = False
    sigma: float | None = None
    memory: float = 0.5
    margin: float = 0.01
    source: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for one in self.candidates:
            policy = one if isinstance(one, Policy) else one.base
            most = Information.BOUND if self.sigma is None else Information.PREDICTED
            if policy.information > most or policy.queue_order == QueueOrder.FAIR:
                raise ValueError(f"rollout {self.name!r}: {one.name} needs lengths or is fair to tenants")
        if not self.candidates or not self.interval > 0.0:
            raise ValueError(f"rollout {self.name!r} needs candidates and a positive interval")
        if not (self.horizon >= 0.0 and self.tail >= 0.0 and 0.0 <= self.memory < 1.0 and self.margin >= 0.0):
            raise ValueError(f"rollout {self.name!r}: horizon, tail and margin must be at least 0, memory in [0, 1)")

    @property
    def information(self) -> Information:
        """The most that a candidate knows about output lengths."""
        return max(one.information for one in self.candidates) if self.sigma is None else Information.PREDICTED

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; the seed is of the imagination (stream `policy`) and of predicted lengths."""
        rng = stream(seed, "policy")
        told = Policy(self.name, information=self.information, prediction_sigma=self.sigma or 0.0)
        predicted = predictions(told, workload, seed)
        first = _resolved(self.candidates[0], engine)
        session = Session(workload, engine, first, predicted, record_schedule=record_schedule)
        choice = Choice(self)
        installed: Policy | None = None
        more = True
        while more:
            seen = observe(session.engine, engine)
            present = session.engine.num_waiting + session.engine.num_running
            if present > 0 and session.engine.num_arrived >= _FEW:
                traffic = rounded(seen.context), rounded(seen.output)
                policies = [_resolved(one, engine, *traffic) for one in self.candidates]
                best = choice.choose(self._losses(session.engine, policies, seen, rng))
                if policies[best] != installed:
                    session.install(policies[best])
                    installed = policies[best]
            more = session.run(session.clock_s + self.interval * seen.alone_s)
        return session.result()

    def _losses(
        self, engine: Engine, policies: Sequence[Policy], seen: Observed, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(candidates,) what each reaches in one imagined future."""
        horizon_s = self.horizon * max(mean_latency_s(engine), _AT_LEAST * seen.alone_s)
        future = imagined(engine, rng, horizon_s, self.sigma)
        return np.array([self._loss(served(future, policy)) for policy in policies])

    def _loss(self, req: NDArray[np.void]) -> float:
        if not len(req):
            return _NEVER
        if self.goodput:
            return -float(np.log((np.count_nonzero(in_time(req)) + 0.5) / len(req)))
        latency_s = req["finish_s"] - req["arrival_s"]
        loss = float(np.log(latency_s.mean()))
        return loss + self.tail * float(np.log(np.quantile(latency_s, 0.99))) if self.tail else loss


class Choice:
    """The choices of a rollout along one run: losses are averaged over decisions, and small gains change nothing."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.losses: NDArray[np.float64] | None = None
        self.current = 0

    def choose(self, losses: NDArray[np.float64]) -> int:
        """The candidate that serves next."""
        new, memory = losses - losses.mean(), self.rollout.memory
        self.losses = new if self.losses is None else memory * self.losses + (1.0 - memory) * new
        best = int(np.argmin(self.losses))
        if self.losses[best] < self.losses[self.current] - self.rollout.margin:
            self.current = best
        return self.current


_NEVER = 1e9


def _resolved(candidate: Policy | Shares, engine: EngineConfig, *traffic: float) -> Policy:
    return candidate if isinstance(candidate, Policy) else candidate.resolve(engine, *traffic)


def mean_latency_s(engine: Engine) -> float:
    """Mean seconds in the system of the requests that ended lately; 0 where none has."""
    req = engine.requests[: engine.num_arrived]
    ended = req[req["place"] == FINISHED][-_LATELY:]
    return float((ended["finish_s"] - ended["arrival_s"]).mean()) if len(ended) else 0.0


def served(future: Engine, policy: Policy) -> NDArray[np.void]:
    """(k,) REQUEST: those of an imagined future, had the policy served it to its end; none if it would get stuck."""
    copy = future.copy()
    install_policy(copy, policy)
    rekey(copy.core)  # a queue that stays FIFO would keep the one it had, which the copy lacks
    try:
        run_to(copy, Recorder())
    except SchedulerError:  # a request that fills memory, where the policy keeps some free
        nobody: NDArray[np.void] = copy.requests[:0]
        return nobody
    ended: NDArray[np.void] = copy.requests[
        (copy.requests["place"] == FINISHED) & (future.requests["place"] != FINISHED)
    ]
    return ended


def in_time(req: NDArray[np.void]) -> NDArray[np.bool_]:
    """(k,) whether each of (k,) finished REQUESTs has met its limits on TTFT and TPOT."""
    ttft_s = req["first_token_s"] - req["arrival_s"]
    tpot_s = (req["finish_s"] - req["first_token_s"]) / np.maximum(req["generated"] - 1, 1)
    late = (req["slo_ttft_s"] > 0.0) & (ttft_s > req["slo_ttft_s"])
    slow = (req["slo_tpot_s"] > 0.0) & (tpot_s > req["slo_tpot_s"])
    return np.asarray(~late & ~slow)
