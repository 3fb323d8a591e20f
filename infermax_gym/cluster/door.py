"""A router of the table outside the simulator: signals of real endpoints in, the number of one of them out.

Numpy and nothing compiled, so that it can stand in a gateway. It chooses as the simulated fleet does, to the bit, given
the same signals (`tests/cluster/test_door.py`). `infermax_gym.cluster.gateway` makes signals of what servers publish.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.cluster.router import CONSTANTS, SIGNALS, Arrival, PythonRouter, Router, Score
from infermax_gym.streams import stream

_WAITING, _RUNNING, _WAITING_TOKENS, _PREFILL_TOKENS, _FREE_KV, _RELEASE_RATE = range(len(SIGNALS))
_KV_TOKENS, _PREFILL_RATE = range(len(CONSTANTS))

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """A request at the door.

    Attributes:
        num_prompt_tokens: of the request.
        arrival_s: now, on any clock that does not go back; for routers that remember for some seconds.
        matched_tokens: (endpoints,) tokens of its prompt that are presumably cached at each; None: nowhere.
        candidates: (endpoints,) bool, which of them may get it; None: all.
        session: of the request, for routers with `sticky_s`; None: it has none.
        tenant: of the request, for `d2lpm`.
        priority: smaller is more urgent; for routers written in Python.
    """

    num_prompt_tokens: int
    arrival_s: float = 0.0
    matched_tokens: ArrayLike | None = None
    candidates: ArrayLike | None = None
    session: Hashable = None
    tenant: Hashable = None
    priority: int = 0


class Door:
    """A router and what it remembers: whom it chose last, sessions, and what it has sent where.

    Args:
        router: of `infermax_gym.baselines.routers.ROUTERS`, or one written in Python (a learned one, say), which is
            asked as in the simulator.
        constants: (len(CONSTANTS), endpoints) KV capacity in tokens, and prefill tokens per second, of each endpoint.
        seed: of random choices (stream "router").

    Raises:
        ValueError: the constants have another shape, or the router simulates replicas (`block`).

    Example:
        >>> from infermax_gym.cluster import signal_weights
        >>> door = Door(Router("least-outstanding", weights=signal_weights(num_waiting=1.0, num_running=1.0)),
        ...             [[64_000.0, 64_000.0], [8_000.0, 8_000.0]])
        >>> door.choose([[3, 0], [8, 9], [900, 0], [900, 0], [1e4, 2e4], [0, 0]], Asked(num_prompt_tokens=500))
        1
    """

    def __init__(self, router: Router | PythonRouter, constants: ArrayLike, seed: int = 0) -> None:
        self.router = router
        self.constants: Floats = np.asarray(constants, np.float64)
        if self.constants.ndim != 2 or self.constants.shape[0] != len(CONSTANTS) or not self.constants.size:
            raise ValueError(f"constants must be ({len(CONSTANTS)}, endpoints), got {self.constants.shape}")
        if isinstance(router, Router) and router.score == Score.AHEAD:
            raise ValueError(f"router {router.name}: runs copies of the replicas ahead, which there are none of here")
        self._rng = stream(seed, "router")
        self._num_asked = 0
        self._last = -1
        self._bound: dict[Hashable, tuple[float, int]] = {}
        self._sent = np.zeros(self.num_endpoints, np.int64)
        self._recent: deque[tuple[float, int, int]] = deque()
        self._recent_tokens = np.zeros(self.num_endpoints, np.int64)
        self._charged: dict[Hashable, NDArray[np.int64]] = {}

    @property
    def num_endpoints(self) -> int:
        """How many there are."""
        return int(self.constants.shape[1])

    def choose(self, signals: ArrayLike, asked: Asked) -> int:
        """Who gets the request, which counts as sent there; -1 if nobody may.

        Args:
            signals: (len(SIGNALS), endpoints) what each tells now; NaN counts as 0.
            asked: the request.

        Raises:
            ValueError: an array has another shape than there are endpoints.
        """
        seen = np.nan_to_num(np.asarray(signals, np.float64), nan=0.0)
        if seen.shape != (len(SIGNALS), self.num_endpoints):
            raise ValueError(f"signals must be ({len(SIGNALS)}, {self.num_endpoints}), got {seen.shape}")
        candidates: Bools = np.ones(self.num_endpoints, np.bool_)
        if asked.candidates is not None:
            candidates = np.asarray(asked.candidates, np.bool_)
        matched: Ints = np.zeros(self.num_endpoints, np.int64)
        if asked.matched_tokens is not None:
            matched = np.asarray(asked.matched_tokens, np.int64)
        for name, column in (("candidates", candidates), ("matched_tokens", matched)):
            if column.shape != (self.num_endpoints,):
                raise ValueError(f"{name} must be ({self.num_endpoints},), got {column.shape}")
        chosen = self._choose(seen, asked, candidates, matched) if candidates.any() else -1
        self._num_asked += 1
        if chosen >= 0:
            self._remember(chosen, asked, asked.num_prompt_tokens - int(matched[chosen]))
        return chosen

    def _choose(self, seen: Floats, asked: Asked, candidates: Bools, matched: Ints) -> int:
        router, prompt = self.router, asked.num_prompt_tokens
        if not isinstance(router, Router):
            arrival = Arrival(
                self._num_asked, asked.arrival_s, prompt, asked.priority, seen, self.constants, candidates, matched
            )
            return int(router.choose(arrival))
        draws = self._rng.random(router.num_choices)
        bound_s, bound = self._bound.get(asked.session, (-math.inf, -1)) if asked.session is not None else (0.0, -1)
        if router.sticky_s > 0.0 and bound >= 0 and asked.arrival_s - bound_s <= router.sticky_s and candidates[bound]:
            return bound
        if router.num_choices:
            return self._best_of_sample(seen, matched, prompt, candidates, draws)
        line = (self._last + 1 + np.arange(self.num_endpoints)) % self.num_endpoints
        line = line[candidates[line]]
        rules: dict[Score, Callable[[], int]] = {
            Score.PREFIX: lambda: self._prefix(seen, matched, prompt, line),
            Score.NORMALISED: lambda: self._normalised(seen, matched, prompt, line),
            Score.E2: lambda: self._e2(matched, prompt, line, asked.arrival_s),
            Score.DEFICIT: lambda: self._deficit(matched, line, asked.tenant),
        }
        if router.score in rules:
            return rules[router.score]()
        return _first_least(self._scores(seen, matched, prompt), line)

    def _scores(self, seen: Floats, matched: Ints, prompt: int) -> Floats:
        """(endpoints,) the score of each by itself; sums in the order of the compiled kernel."""
        router = self.router
        assert isinstance(router, Router)
        if router.score == Score.WEIGHTED:
            total = np.zeros(self.num_endpoints)
            for weight, signal in zip(router.weights, seen, strict=True):
                total += weight * signal
            return total
        there = seen[_WAITING] + seen[_RUNNING]
        if router.score == Score.KV_SHARE:
            capacity = self.constants[_KV_TOKENS]
            share: Floats = (capacity - seen[_FREE_KV] + seen[_WAITING_TOKENS]) / capacity
            return share
        if router.score == Score.FREENESS:
            demand = seen[_WAITING_TOKENS] - seen[_FREE_KV]
            freeness: Floats = np.where(there > 0.0, demand / np.where(there > 0.0, there, 1.0), -math.inf)
            return freeness
        if router.score == Score.PREFILL_BY_BATCH:
            work: Floats = (seen[_PREFILL_TOKENS] + prompt - matched) * there
            return work
        return self._start_delay(seen, prompt)

    def _start_delay(self, seen: Floats, prompt: int) -> Floats:
        """(endpoints,) seconds until prefills there are through and enough KV is free, whichever is later."""
        rate = self.constants[_PREFILL_RATE]
        delay_s = seen[_PREFILL_TOKENS] / rate
        lacking = prompt - seen[_FREE_KV]
        release = np.where(seen[_RELEASE_RATE] > 0.0, seen[_RELEASE_RATE], rate)
        both: Floats = np.where(lacking > 0.0, np.maximum(delay_s, lacking / release), delay_s)
        return both

    def _best_of_sample(self, seen: Floats, matched: Ints, prompt: int, candidates: Bools, draws: Floats) -> int:
        left = np.flatnonzero(candidates).tolist()
        drawn = [left.pop(int(draw * len(left))) for draw in draws[: len(left)]]
        return _first_least(self._scores(seen, matched, prompt), np.array(drawn))

    def _prefix(self, seen: Floats, matched: Ints, prompt: int, line: Ints) -> int:
        router = self.router
        assert isinstance(router, Router)
        there = (seen[_WAITING] + seen[_RUNNING])[line]
        least, most = float(there.min()), float(there.max())
        if most - least > router.most_difference and most > router.most_ratio * least:
            return int(line[np.argmin(there)])
        longest = int(line[np.argmax(matched[line])])
        if matched[longest] > router.least_match * prompt:
            return longest
        return _first_least(np.minimum(self._sent, self.constants[_KV_TOKENS]), line)

    def _normalised(self, seen: Floats, matched: Ints, prompt: int, line: Ints) -> int:
        router = self.router
        assert isinstance(router, Router)
        waiting = seen[_WAITING]
        least, most = float(waiting[line].min()), float(waiting[line].max())
        queue = (most - waiting) / (most - least) if most > least else np.ones(self.num_endpoints)
        free = seen[_FREE_KV] / self.constants[_KV_TOKENS]
        prefix_weight, queue_weight, kv_weight = router.share_weights
        total = prefix_weight * (matched / prompt) + queue_weight * queue + kv_weight * free
        return int(line[np.argmax(total[line])])

    def _e2(self, matched: Ints, prompt: int, line: Ints, now_s: float) -> int:
        router = self.router
        assert isinstance(router, Router)
        while self._recent and self._recent[0][0] <= now_s - router.recent_s:
            _, endpoint, tokens = self._recent.popleft()
            self._recent_tokens[endpoint] -= tokens
        longest = int(matched[line].max())
        cost = self._recent_tokens.astype(np.float64)
        if longest > prompt - longest:
            line = line[matched[line] >= longest]
        else:
            capacity, new = self.constants[_KV_TOKENS], prompt - matched
            cost += new + np.maximum(0.0, np.minimum(self._sent, capacity) + new - capacity)
        return _first_least(cost / self.constants[_PREFILL_RATE], line)

    def _deficit(self, matched: Ints, line: Ints, tenant: Hashable) -> int:
        router = self.router
        assert isinstance(router, Router)
        charged = self._charged.get(tenant, np.zeros(self.num_endpoints, np.int64))
        granted = router.quantum_tokens * (1 + int(charged[line].min()) // router.quantum_tokens)
        line = line[charged[line] < granted]
        return int(line[np.argmax(matched[line])])

    def _remember(self, chosen: int, asked: Asked, num_new_tokens: int) -> None:
        router = self.router
        self._last = chosen
        self._sent[chosen] += num_new_tokens
        if not isinstance(router, Router):
            return
        if router.sticky_s > 0.0 and asked.session is not None:
            self._bound[asked.session] = (asked.arrival_s, chosen)
        if router.score == Score.E2:
            self._recent.append((asked.arrival_s, chosen, num_new_tokens))
            self._recent_tokens[chosen] += num_new_tokens
        if router.score == Score.DEFICIT:
            self._charged.setdefault(asked.tenant, np.zeros(self.num_endpoints, np.int64))[chosen] += num_new_tokens


def _first_least(scores: Floats, line: Ints) -> int:
    """Who of a line has the smallest score, the first of several."""
    return int(line[np.argmin(scores[line])])
