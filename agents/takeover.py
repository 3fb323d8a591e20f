"""What a state is worth if a row takes over: the potential by which rewards tell at once what an action was worth.

Returns differ far more with the traffic than with the decisions, and what a decision does shows many decisions later.
So at every decision the environment's own row (`EnvConfig.base`) serves a copy of the engine to the end of the episode,
on the same requests. Minus the discounted request-seconds of that run is a potential Phi: rewards become
r + D Phi(s') - Phi(s), D the discount of the step, which is what the action gains over leaving it to the row. Shaping
by a potential changes no policy's rank (Ng, Harada & Russell, "Policy Invariance under Reward Transformations", 1999).
This one is the value of a base policy, as rollout methods measure it (Bertsekas, "Rollout, Policy Iteration, and
Distributed Reinforcement Learning", 2020). A learner that looks no further than such a reward improves on the row; one
that looks further has a critic, which has to know only what the learner does otherwise later (`PpoSettings.ahead_s`).
Only the trainer sees the future of the requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.memory import preempted_of, requests
from infermax_gym.engine.kernel.run import LOG_FULL, run
from infermax_gym.engine.state import CORE, LOG_ARRAYS, NUM_SCALARS, REJECTED, Engine
from infermax_gym.envs.episode import Run

_NOT_COPIED = (*LOG_ARRAYS, "theta", "term_end", "preempted", "batch", "keys", "ids")  # fixed, or of one iteration

Array = NDArray[np.float64]


@compiled
def request_seconds_ahead(s: Any, tau_s: float) -> Any:
    """Run an engine to its end: the integral of its number of requests, discounted by exp(-t / tau_s)."""
    start_s = s.clock_s
    s.num_gaps = 0
    preempted_of(s)[0] = 0
    while run(s, 2**62, math.inf, True) == LOG_FULL:
        s.num_gaps = 0
    req = requests(s)
    total = 0.0
    for r in range(s.num_requests):
        q = req[r]
        if q.place != REJECTED and q.finish_s > start_s:
            total += math.exp(-max(q.arrival_s - start_s, 0.0) / tau_s) - math.exp(-(q.finish_s - start_s) / tau_s)
    return tau_s * total


@compiled
def _all_ahead(twins: Any, tau_s: float, out: Any) -> None:
    for i in range(twins.size):
        out[i] = request_seconds_ahead(twins[i], tau_s)


class Takeover:
    """The potentials of some lanes, and the rewards that they shape; every environment needs one of its own.

    Args:
        tau_s: horizon of the discount in simulated seconds; a learner that looks further should not look beyond it.
    """

    def __init__(self, tau_s: float) -> None:
        self.tau_s = tau_s
        self._records = np.zeros(0, CORE)
        self._twins: list[Engine] = []
        self._potentials = np.zeros(0)

    def begin(self, runs: Sequence[Run]) -> None:
        """All lanes are where they are for reasons of their own: no step led there."""
        self._records = np.zeros(len(runs), CORE)
        self._twins = [None] * len(runs)  # type: ignore[list-item]
        self._renew(range(len(runs)), runs)
        self._potentials = self.potentials(runs)

    def _renew(self, lanes: Iterable[int], runs: Sequence[Run]) -> None:
        """Twins of the engines of some lanes, whose episodes are new."""
        for i in lanes:
            twin = runs[i].engine.copy()
            self._records[i] = twin.record[0]
            twin.record = self._records[i : i + 1]
            self._twins[i] = twin

    def potentials(self, runs: Sequence[Run]) -> Array:
        """(n,) minus the discounted request-seconds from each lane's state on, were its row to serve it."""
        scalars = self._records.view(np.int64).reshape(len(runs), -1)
        for i, (one, twin) in enumerate(zip(runs, self._twins, strict=True)):
            scalars[i, :NUM_SCALARS] = one.engine.record.view(np.int64)[:NUM_SCALARS]
            for name, array in one.engine.arrays.items():
                if name not in _NOT_COPIED:
                    twin.arrays[name][...] = array
        out = np.empty(len(runs))
        _all_ahead(self._records, self.tau_s, out)
        return -out

    def shaped(self, rewards: Array, dt_s: Array, ended: NDArray[np.bool_], runs: Sequence[Run]) -> Array:
        """(n,) rewards of a step relative to the row.

        Args:
            rewards: (n,) minus the request-seconds of the step; they are taken to come evenly over it, and discounted.
            dt_s: (n,) simulated seconds that it took.
            ended: (n,) whether the episode ended with it: the run is then the next episode's.
            runs: of the lanes, after the step.
        """
        self._renew(np.flatnonzero(ended).tolist(), runs)
        now = self.potentials(runs)
        share = np.maximum(dt_s / self.tau_s, 1e-12)
        within = rewards * -np.expm1(-share) / share
        gained = within + np.exp(-share) * np.where(ended, 0.0, now) - self._potentials
        self._potentials = now
        return np.asarray(gained)
