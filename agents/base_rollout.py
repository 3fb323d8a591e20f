"""Base-policy rollouts: the potential by which a reward says at once what an action was worth.

Returns differ far more with the traffic than with the decisions, and what a decision does shows many decisions later.
So at every decision the environment's own policy (`EnvConfig.base`) serves a copy of the engine to the end of the
episode, on the same requests. Minus the discounted request-seconds of that run is a potential Phi: rewards become r + D
Phi(s') - Phi(s), D the discount of the step, which is what the action gains over leaving it to the policy. Shaping by a
potential changes no policy's rank (Ng, Harada & Russell, "Policy Invariance under Reward Transformations", 1999). This
one is the value of a base policy, as rollout methods measure it (Bertsekas, "Rollout, Policy Iteration, and Distributed
Reinforcement Learning", 2020). A learner that looks no further than such a reward improves on the policy; one that
looks further has a critic, which has to know only what the learner does otherwise later (`PpoSettings.ahead_s`). Only
the trainer sees the future of the requests.

Most actions are what the policy would do itself. Then its rollout from the next state is the rest of its rollout from
the last one, and need not be simulated again: the copy from the last state is brought forward by as many iterations,
and if it then stands where the copy from the next state stands, the rollout is known. Bits are the same either way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import carray
from numpy.typing import NDArray

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.group import blocks_held, emitted, resident
from infermax_gym.engine.kernel.memory import pointer, preempted_of, requests, running
from infermax_gym.engine.kernel.run import LOG_FULL, run
from infermax_gym.engine.layout import ARRAYS, CORE, LOG_ARRAYS, NUM_SCALARS, REJECTED, RUNNING, WAITING
from infermax_gym.engine.state import Engine
from infermax_gym.envs.scheduling.episode import Run

_NOT_COPIED = (*LOG_ARRAYS, "theta", "term_end", "preempted", "batch", "keys", "ids")  # fixed, or of one iteration
_ADDRESSES = CORE.fields[f"{ARRAYS[0]}_address"][1] // 8  # type: ignore[index]
_COMPARED = np.array(
    [
        CORE.fields[name][1] // 8  # type: ignore[index]
        for name in (
            "clock_s",
            "num_iterations",
            "next_arrival",
            "num_waiting",
            "num_running",
            "num_finished",
            "num_preemptions",
            "free_blocks",
            "withheld_blocks",
            "host_free_tokens",
            "pending_swap_tokens",
            "swap_share",
            "front_key",
            "last_prefill_s",
            "stalled_iterations",
            "busy_s",
        )
    ]
)
"""Words of a CORE that tell two engines apart which began at the same point; requests are compared one by one."""

_NUM_THREADS = 2

Array = NDArray[np.float64]


@compiled
def _serve_iterations(s: Any, num_iterations: int) -> None:
    """The policy serves so many iterations, or to the end."""
    last = s.num_iterations + num_iterations
    code = LOG_FULL
    while code == LOG_FULL:
        s.num_gaps = 0
        preempted_of(s)[0] = 0
        code = run(s, last - s.num_iterations, math.inf, True)


@compiled
def _serve_to_end(s: Any, finish_s: Any) -> None:
    """The policy serves all that is left; `finish_s` gets when each request finishes, -inf for rejected ones."""
    _serve_iterations(s, 2**62)
    req = requests(s)
    for r in range(s.num_requests):
        finish_s[r] = -math.inf if req[r].place == REJECTED else req[r].finish_s


@compiled
def _request_seconds(s: Any, finish_s: Any, now_s: float, tau_s: float) -> Any:
    """The integral of the number of requests from `now_s` on, discounted by exp(-t / tau_s), if they finish then."""
    req = requests(s)
    total = 0.0
    for r in range(s.num_requests):
        if finish_s[r] > now_s:
            ahead_s = req[r].arrival_s - now_s
            begins = math.exp(-ahead_s / tau_s) if ahead_s > 0.0 else 1.0
            total += begins - math.exp(-(finish_s[r] - now_s) / tau_s)
    return tau_s * total


@inlined
def _same_request(a: Any, b: Any, r: int) -> Any:
    p, q = requests(a)[r], requests(b)[r]
    if p.place != q.place:
        return False
    if p.place == WAITING:
        return p.key == q.key and p.computed == q.computed and p.generated == q.generated and p.on_host == q.on_host
    if p.place != RUNNING:
        return True
    counts = resident(a, p) == resident(b, q) and emitted(a, p) == emitted(b, q)
    return counts and blocks_held(a, p) == blocks_held(b, q) and p.in_prefill == q.in_prefill


@compiled
def _same_point(a: Any, b: Any, words_a: Any, words_b: Any) -> Any:
    """Whether two engines of the same policy and requests, given as records and as words, stand at the same point.

    Never with a prefix cache, whose contents are not compared.
    """
    if a.prefix_caching:
        return False
    for k in range(_COMPARED.size):
        if words_a[_COMPARED[k]] != words_b[_COMPARED[k]]:
            return False
    if a.min_decodes_between_prefills > 0 and a.decodes_since_admission != b.decodes_since_admission:
        return False
    for i in range(a.num_running):
        if running(a)[i] != running(b)[i]:
            return False
    for r in range(a.next_arrival):
        if not _same_request(a, b, r):
            return False
    return True


@compiled
def _copy_engine(source: Any, target: Any, num_words: Any) -> None:
    """Where an engine stands, from one to another of the same size, as int64 words."""
    target[:NUM_SCALARS] = source[:NUM_SCALARS]
    for k in range(num_words.size):
        n = num_words[k]
        here = carray(pointer(source[_ADDRESSES + k]), (n,), np.int64)
        there = carray(pointer(target[_ADDRESSES + k]), (n,), np.int64)
        there[:] = here


@compiled
def _rollouts(
    live: Any, copies: Any, words: Any, current: Any, num_words: Any, finish_s: Any, tau_s: float, out: Any
) -> Any:
    """Potentials of some lanes into `out`; returns how many rollouts were simulated.

    Args:
        live: (n, words of a CORE) int64, the lanes.
        copies: (n, 2) CORE: one on the trajectory of the known rollout, and one to spare.
        words: (n, 2, words of a CORE) int64: the same.
        current: (n,) int64, which of the two is on that trajectory; -1: no rollout is known.
        num_words: (n, arrays) int64, of each array what is to be copied.
        finish_s: (n, requests) float64, when each finishes, in the known rollout.
        tau_s: horizon of the discount.
        out: (n,) float64.
    """
    count = 0
    for i in range(out.size):
        old = current[i]
        new = 0 if old < 0 else 1 - old
        _copy_engine(live[i], words[i, new], num_words[i])
        now_s = copies[i, new].clock_s
        _serve_iterations(copies[i, new], 1)
        known = False
        if old >= 0:
            missing = copies[i, new].num_iterations - copies[i, old].num_iterations
            if missing > 0:
                _serve_iterations(copies[i, old], missing)
            known = _same_point(copies[i, old], copies[i, new], words[i, old], words[i, new])
        if not known:
            count += 1
            _copy_engine(words[i, new], words[i, 1 - new], num_words[i])
            _serve_to_end(copies[i, 1 - new], finish_s[i])
        current[i] = new
        out[i] = -_request_seconds(copies[i, new], finish_s[i], now_s, tau_s)
    return count


class BaseRollout:
    """The potentials of some lanes, and the rewards that they shape; every environment needs one of its own.

    Args:
        tau_s: horizon of the discount in simulated seconds; a learner that looks further should not look beyond it.

    Attributes:
        num_runs: rollouts simulated so far; the others were known.
    """

    def __init__(self, tau_s: float) -> None:
        self.tau_s = tau_s
        self.num_runs = 0
        self._pool = ThreadPoolExecutor(_NUM_THREADS)
        self._copies: list[tuple[Engine, Engine]] = []
        self._potentials = np.zeros(0)
        self.begin([])

    def begin(self, runs: Sequence[Run]) -> None:
        """Take the lanes as they stand: no rollout of theirs is known."""
        for one in runs:
            if one.episode.workload.is_closed_loop:
                raise ValueError("base-policy rollouts need arrivals known beforehand, not closed-loop traffic")
        n = len(runs)
        self._records = np.zeros((n, 2), CORE)
        self._words = self._records.view(np.int64).reshape(n, 2, CORE.itemsize // 8)
        self._live = np.zeros((n, CORE.itemsize // 8), np.int64)
        self._current = np.full(n, -1, np.int64)
        self._num_words = np.zeros((n, len(ARRAYS)), np.int64)
        self._finish_s = np.zeros((n, max((len(one.engine.requests) for one in runs), default=0)))
        self._copies = [None] * n  # type: ignore[list-item]
        self._renew(range(n), runs)
        self._potentials = self.potentials(runs)

    def forget(self) -> None:
        """Take no rollout as known: the next potentials are all simulated. They are the same."""
        self._current[:] = -1

    def _renew(self, lanes: Iterable[int], runs: Sequence[Run]) -> None:
        """Copies of the engines of some lanes, whose episodes are new."""
        for i in lanes:
            engine = runs[i].engine
            self._copies[i] = (engine.copy(), engine.copy())
            for k, copy_ in enumerate(self._copies[i]):
                self._records[i, k] = copy_.record[0]
                copy_.record = self._records[i, k : k + 1]
            self._num_words[i] = [0 if name in _NOT_COPIED else engine.arrays[name].nbytes // 8 for name in ARRAYS]
            self._current[i] = -1
            if len(engine.requests) > self._finish_s.shape[1]:
                wider = len(engine.requests) - self._finish_s.shape[1]
                self._finish_s = np.pad(self._finish_s, ((0, 0), (0, wider)))

    def potentials(self, runs: Sequence[Run]) -> Array:
        """(n,) minus the discounted request-seconds from each lane's state on, were its base policy to serve it."""
        n = len(runs)
        for live, one in zip(self._live, runs, strict=True):
            live[:] = one.engine.record.view(np.int64)
        out = np.empty(n)

        def measure(part: slice) -> int:
            current, num_words, finish_s = self._current[part], self._num_words[part], self._finish_s[part]
            copies, words = self._records[part], self._words[part]
            return int(_rollouts(self._live[part], copies, words, current, num_words, finish_s, self.tau_s, out[part]))

        each = max(1, -(-n // _NUM_THREADS))
        self.num_runs += sum(self._pool.map(measure, [slice(k, k + each) for k in range(0, n, each)]))
        return out

    def shaped(self, rewards: Array, dt_s: Array, ended: NDArray[np.bool_], runs: Sequence[Run]) -> Array:
        """(n,) rewards of a step relative to the policy.

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
