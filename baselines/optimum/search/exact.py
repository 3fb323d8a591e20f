"""`ExactSearch`: one run of the best-first search, in slices, with an incumbent and a bound at any time."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.minorant import is_lean, is_linear_in_prefills
from infermax_gym.baselines.optimum.plan import Plan
from infermax_gym.baselines.optimum.search import astar
from infermax_gym.baselines.optimum.search.automaton import Options
from infermax_gym.baselines.optimum.search.beam import BEFORE_END, beam, new_layers
from infermax_gym.baselines.optimum.search.expand import fill_codes
from infermax_gym.baselines.optimum.search.path import Label, plan_of
from infermax_gym.baselines.optimum.search.tables import Problem, build

TOLERANCE = 1e-9  # relative; a schedule better by less does not count as better
_NUM_BUCKETS = 1 << 14
_BYTES_PER_LABEL = 48
_SLICE_S = 0.1
_MOST_BEAM = 300_000  # states that the beam looks at, about


class ExactSearch:
    """A search for the optimum of one problem.

    Objectives are those of the search: the end of the last iteration, or the sum of all finish times, in seconds.

    Attributes:
        status: one of `astar`'s; EXHAUSTED once the incumbent is proven.
        num_expanded: labels expanded so far.
    """

    def __init__(
        self,
        instance: Instance,
        options: Options,
        backward: bool = False,
        max_bytes: int = 1_500_000_000,
        beam_width: int = 300,
    ) -> None:
        """Prepare the tables and run a beam search.

        Args:
            instance: the problem.
            options: objective, variant and relaxations.
            backward: go backward in time.
            max_bytes: memory for labels.
            beam_width: states that the beam keeps per iteration.

        Raises:
            TooLargeError: the states do not fit the search.
        """
        self.instance = instance
        self.options = options
        self._problem = build(instance, options, backward=backward)
        self._start_s = instance.requests[0].arrival_s if backward else 0.0
        self._plan: Plan | None = None
        incumbent = np.inf
        path = self._beam(beam_width, incumbent)
        if path:
            incumbent = path[-1].cost
            self._problem = build(instance, options, _codes_along(self._problem, path), backward=backward)
        root = self._problem.bound(np.zeros(len(instance), np.int64), self._start_s, self._cost0())
        self._open(root, incumbent, max_bytes // _BYTES_PER_LABEL)

    def _cost0(self) -> float:
        """Objective before anything has happened."""
        return self._start_s if self.options.objective == "makespan" else 0.0

    def _beam(self, width: int, incumbent: float) -> list[Label]:
        """Improve on the incumbent by beam search; the path of the best schedule, empty if there is none."""
        longest = sum(m.output + m.prompt for m in self._problem.models)
        width = max(min(width, _MOST_BEAM // longest), 10)
        layers = new_layers(width * min(longest, 20_000) + 1, incumbent)
        layers.clock[0], layers.cost[0] = self._start_s, self._cost0()
        beam(*self._problem.records, layers, self._problem.final_key, width, TOLERANCE)
        if layers.counter[BEFORE_END] < 0:
            return []
        found = float(layers.best_s[0])
        path = [Label(self._problem.final_key, np.nan, found)]
        at = int(layers.counter[BEFORE_END])
        while at >= 0:
            path.append(Label(int(layers.key[at]), float(layers.clock[at]), float(layers.cost[at])))
            at = int(layers.parent[at])
        path.reverse()
        self._plan = plan_of(self._problem, self.instance, path, found * (1 + 1e-6))
        return path

    def _open(self, root: float, incumbent: float, capacity: int) -> None:
        """Start the best-first search."""
        top = incumbent if np.isfinite(incumbent) else 20.0 * max(root, 1e-9)
        self._store = astar.new_store(capacity, 1 << 16, _NUM_BUCKETS, root, top)
        self._store.value[astar.INCUMBENT] = incumbent
        self.status = astar.RUNNING
        if np.isfinite(incumbent) and root >= incumbent * (1.0 - TOLERANCE):
            self.status = astar.EXHAUSTED
        else:
            astar.put_root(self._problem.tables, self._store, self._start_s, self._cost0(), root)
        self._chunk = 256

    @property
    def num_expanded(self) -> int:
        """Labels expanded so far."""
        return int(self._store.counter[astar.NUM_EXPANDED])

    @property
    def num_labels(self) -> int:
        """Labels stored so far."""
        return int(self._store.counter[astar.NUM_LABELS])

    @property
    def incumbent(self) -> float:
        """Objective of the best schedule known, infinite if none is; the bound that others may have offered."""
        return float(self._store.value[astar.INCUMBENT])

    @property
    def bound(self) -> float:
        """No schedule of this problem costs less, up to the tolerance."""
        if self.status == astar.EXHAUSTED:
            return self.incumbent
        first, width = self._store.value[astar.FIRST_BOUND], self._store.value[astar.BUCKET_WIDTH]
        reached = float(first + self._store.counter[astar.CURRENT] * width)
        return min(max(reached, float(first)), self.incumbent)

    def offer(self, objective: float) -> None:
        """Tell the search of a schedule found elsewhere; it looks for better ones only."""
        if objective < self.incumbent:
            self._store.value[astar.INCUMBENT] = objective
            self._store.counter[astar.GOAL] = -1
            self._plan = None

    def advance(self, seconds: float) -> int:
        """Search on for about `seconds`; returns the status."""
        end = time.perf_counter() + seconds
        while self.status == astar.RUNNING and time.perf_counter() < end:
            begin = time.perf_counter()
            astar.search(*self._problem.records, self._store, self._problem.final_key, self._chunk, TOLERANCE)
            took = time.perf_counter() - begin
            self.status = int(self._store.counter[astar.STATUS])
            if self.status == astar.FULL_SLOTS:
                self._grow()
            elif took < _SLICE_S / 2:
                self._chunk *= 2
            elif took > 2 * _SLICE_S:
                self._chunk = max(self._chunk // 2, 1)
        return self.status

    def _grow(self) -> None:
        self._store = self._store._replace(slot=np.zeros(2 * self._store.slot.size, np.int32))
        astar.fill_slots(self._problem.tables, self._store)
        self.status = astar.RUNNING

    def plan(self) -> Plan | None:
        """The incumbent, if this search has found it."""
        at = int(self._store.counter[astar.GOAL])
        if at < 0:
            return self._plan
        path = [Label(self._problem.final_key, np.nan, self.incumbent)]
        while at >= 0:
            store = self._store
            path.append(Label(int(store.key[at]), float(store.clock[at]), float(store.cost[at])))
            at = int(store.parent[at])
        path.reverse()
        return plan_of(self._problem, self.instance, path, self.incumbent * (1 + 1e-6))


def _codes_along(problem: Problem, path: list[Label]) -> NDArray[np.int64]:
    """Codes of the states of a path, on which packing bounds should be good."""
    states = np.empty((len(path) - 1, len(problem.models)), np.int64)
    for codes, label in zip(states, path[:-1], strict=True):
        fill_codes(problem.tables, label.key, codes)
    return states


def exact_options(instance: Instance, objective: str, variant: str) -> Options:
    """The options under which the search is exact for the instance itself."""
    timed = not instance.is_offline or instance.has_ttft_limits
    budget = instance.max_num_batched_tokens
    free = budget >= most_tokens(instance)
    linear = is_linear_in_prefills(instance.cost)
    chunks = not (free and linear and instance.is_offline)
    late = free and is_lean(instance.cost)
    return Options(objective, variant, chunks, budget, late, timed)


def most_tokens(instance: Instance) -> int:
    """Most tokens that a batch can hold, whatever the token budget: all of them become resident."""
    return min(instance.num_blocks * instance.block_size, sum(r.peak_tokens for r in instance.requests))
