"""`AlikeSearch`: the optimum of identical requests, by shortest paths over all states, layer by layer.

Identical requests are interchangeable: what matters is how many have generated how much, with KV and without. Six
requests of 24 output tokens have some ten million such states in all, few enough for an array. Every iteration emits
a token, so states in order of their tokens are in order of time, and each is expanded once, when the best way to it
is known. Those whose bound reaches the incumbent are skipped.

Only for requests that arrive together, under a linear cost without a binding token budget. There passes can happen
as late as they can, which only lowers the memory in between (see `expand.expand`). Of this the search uses: nobody
idles beside both a decode and a prefill, and KV is dropped only where keeping it would not fit.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from math import comb

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan
from infermax_gym.baselines.optimum.search import alike_kernel, alike_lists, astar, layout
from infermax_gym.baselines.optimum.search.alike_lists import Alike
from infermax_gym.baselines.optimum.search.automaton import Options, Phase, RequestModel, Situation
from infermax_gym.baselines.optimum.search.expand import encode_sorted
from infermax_gym.baselines.optimum.search.path import Label, plan_of
from infermax_gym.baselines.optimum.search.tables import Problem, TooLargeError, build

TOLERANCE = 1e-9
_BYTES_PER_STATE = 12
_MOST_OUTPUTS = 120  # tokens of a request; lists are of bytes
_MOST_LISTS = 100_000
_MOST_OUTCOMES = 4_000_000
_SLICE_S = 0.1

Ints = NDArray[np.int64]


def suits(instance: Instance, options: Options) -> bool:
    """Whether the search is exact for this problem."""
    alike = len({(r.num_prompt_tokens, r.num_output_tokens) for r in instance.requests}) == 1
    return alike and options.late and not options.timed and not options.chunks


class AlikeSearch:
    """A search for the optimum of identical requests; used like `ExactSearch`.

    Attributes:
        status: `astar.RUNNING`, or `astar.EXHAUSTED` once the incumbent is proven.
    """

    def __init__(self, instance: Instance, options: Options, max_bytes: int = 1_000_000_000) -> None:
        """Prepare the tables.

        Args:
            instance: the problem; `suits` holds for it.
            options: objective and variant.
            max_bytes: memory for the values of all states.

        Raises:
            TooLargeError: there are too many states.
        """
        self.instance = instance
        self.status = astar.RUNNING
        free = Options(options.objective, options.variant, options.chunks, options.budget)
        self._problem: Problem = build(instance, free)
        self._model = self._problem.models[0]
        self._start_s = instance.requests[0].arrival_s
        self._store = _tables(instance, options, self._problem, max_bytes // _BYTES_PER_STATE)
        n = len(instance)
        self._root = int(self._store.held[-1, 2])
        self._store.cost_s[self._root] = self._start_s * (n if options.objective == "latency" else 1)
        self._latency = options.objective == "latency"
        self._scratch = np.zeros((alike_kernel.NUM_ROWS, n + 2), np.int64)
        self._root_bound = self._problem.bound(
            np.zeros(n, np.int64), self._start_s, float(self._store.cost_s[self._root])
        )
        self._offered = np.inf
        self._chunk = 1024

    @property
    def _arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        return self._problem.ints, self._problem.floats, self._problem.work, self._problem.work_s

    @property
    def num_states(self) -> int:
        """All states, reached or not."""
        return int(self._store.cost_s.size)

    @property
    def num_expanded(self) -> int:
        """States expanded so far."""
        return int(self._store.cursor[alike_lists.NUM_EXPANDED])

    @property
    def incumbent(self) -> float:
        """Objective of the best schedule known, infinite if none is."""
        return float(self._store.value[0])

    @property
    def bound(self) -> float:
        """No schedule costs less, up to the tolerance.

        An iteration emits at most a token of each request, so every schedule passes a state of any n layers in a row.
        """
        if self.status == astar.EXHAUSTED:
            return self.incumbent
        n = len(self.instance)
        done = self._store.layer_s[: self._store.cursor[alike_lists.LAYER]]
        least = np.lib.stride_tricks.sliding_window_view(done, n).min(axis=1) if len(done) >= n else np.zeros(1)
        return min(max(self._root_bound, float(least.max())), self.incumbent)

    def offer(self, objective: float) -> None:
        """Tell the search of a schedule found elsewhere; it looks for better ones only."""
        if objective < self.incumbent:
            self._store.value[0] = self._offered = objective

    def advance(self, seconds: float) -> int:
        """Search on for about `seconds`; returns the status."""
        end = time.perf_counter() + seconds
        while self.status == astar.RUNNING and time.perf_counter() < end:
            begin = time.perf_counter()
            if alike_kernel.advance(self._store, *self._arrays, self._scratch, self._chunk, TOLERANCE):
                self.status = astar.EXHAUSTED
            took = time.perf_counter() - begin
            if took < _SLICE_S / 2:
                self._chunk *= 2
            elif took > 2 * _SLICE_S:
                self._chunk = max(self._chunk // 2, 64)
        return self.status

    def plan(self) -> Plan | None:
        """The incumbent, if this search has found it."""
        if not self.incumbent < self._offered:
            return None
        states = [self.num_states - 1]
        while states[-1] != self._root:
            states.append(int(self._store.parent[states[-1]]))
        labels = [self._label(state) for state in reversed(states)]
        return plan_of(self._problem, self.instance, labels, self.incumbent * (1.0 + 1e-6))

    def _label(self, state: int) -> Label:
        """A state in the terms of `tables.Problem`."""
        store, problem = self._store, self._problem
        n = len(self.instance)
        at = int(np.searchsorted(store.held[:, 2], state, side="right")) - 1
        held = int(store.held[at, 0])
        other = store.others[store.others_at[n - held] + state - store.held[at, 2], : n - held]
        begin = problem.ints[layout.AFTER]
        problem.work[begin : begin + held] = store.code[1, store.held[at, 3 : 3 + held]]
        problem.work[begin + held : begin + n] = store.code[0, other]
        key = int(encode_sorted(problem.ints, problem.work, begin))
        cost = float(store.cost_s[state])
        return Label(key, self._start_s if self._latency else cost, cost)


def _tables(instance: Instance, options: Options, problem: Problem, most_states: int) -> Alike:
    """The tables of `Alike` with nothing reached yet."""
    n, outputs = len(instance), instance.requests[0].num_output_tokens
    model = problem.models[0]
    pass_blocks = model.sizes()
    held_blocks = np.array([0] + [model.blocks(model.prompt + g - 1) for g in range(1, outputs)], np.int64)
    if options.variant == "reserve":
        pass_blocks = np.full(outputs, model.blocks(1))
    _check_size(held_blocks, n, instance, most_states)
    held = _lists_that_fit(held_blocks, n, instance)
    binomial = np.array([[comb(a, b) for a in range(outputs + n + 1)] for b in range(n + 1)], np.int64)
    rank_at = np.cumsum([0] + [comb(max(outputs - 2, 0) + k, k) for k in range(n + 1)]).astype(np.int64)
    start = np.full(rank_at[-1], -1, np.int64)
    ranks = np.array([_rank(row[3 : 3 + row[0]] - 1) for row in held], np.int64)
    start[rank_at[held[:, 0]] + ranks] = held[:, 2]
    num_states = int(held[-1, 2]) + comb(outputs + n, n)
    others, others_at, by_sum, sum_at = _lists_of_others(n, outputs)
    form = np.sum([term[0] for term in instance.cost.terms], axis=0)
    pass_s = np.array(model.token_seconds(form))
    constants_s = form[[0, 6, 2]]
    droppable, seats = options.variant == "preemptive", instance.max_num_seqs >= n
    outcome, blocks, seconds, gap, outcome_at = _outcomes(
        held, n, droppable, seats, instance.num_blocks, pass_blocks, held_blocks, pass_s[1], constants_s
    )
    return Alike(
        np.array([n, outputs]), binomial, held, start, rank_at, others, others_at, by_sum, sum_at, outcome, blocks,
        seconds, gap, outcome_at, pass_blocks, held_blocks, pass_s, constants_s, _codes(model),
        np.full(num_states, np.inf), np.full(num_states, -1, np.int32), np.full(n * outputs, np.inf), np.zeros(alike_lists.NUM_CURSORS, np.int64),
        np.array([np.inf]),
    )  # fmt: skip


def _rank(numbers: Ints) -> int:
    """Rank of a sorted list among those of its length."""
    return sum(comb(int(x) + j, j + 1) for j, x in enumerate(numbers))


def _check_size(held_blocks: Ints, n: int, instance: Instance, most_states: int) -> None:
    """Count the states without listing them.

    Raises:
        TooLargeError: there are too many of them, or of lists of residents.
    """
    outputs = held_blocks.size
    # lists[k][b]: lists of k residents that take b blocks; the counts are Python's, without overflow.
    lists = [Counter({0: 1})] + [Counter[int]() for _ in range(min(n, instance.max_num_seqs))]
    if outputs <= _MOST_OUTPUTS:
        for need in held_blocks[1:].tolist():
            for shorter, longer in itertools.pairwise(lists):
                longer.update({b + need: count for b, count in shorter.items() if b + need <= instance.num_blocks})
    num_lists = [counter.total() for counter in lists]
    states = sum(count * comb(outputs + n - k, outputs) for k, count in enumerate(num_lists))
    if outputs > _MOST_OUTPUTS or states > most_states or sum(num_lists) > _MOST_LISTS:
        raise TooLargeError(f"more than {most_states} states or {_MOST_LISTS} lists of residents")


def _lists_that_fit(held_blocks: Ints, n: int, instance: Instance) -> Ints:
    """`Alike.held`: every list of residents within the memory, the empty one last."""
    outputs = held_blocks.size
    rows: list[list[int]] = []
    states = 0
    now: list[int] = []

    def visit(least: int, blocks: int) -> None:
        nonlocal states
        for g in range(least, outputs):
            if blocks + held_blocks[g] > instance.num_blocks or len(now) >= min(n, instance.max_num_seqs):
                break
            now.append(g)
            visit(g, blocks + int(held_blocks[g]))
            rows.append([len(now), sum(now), states, *now, *[0] * (n - len(now))])
            states += comb(outputs + n - len(now), outputs)
            now.pop()

    visit(1, 0)
    return np.array([*rows, [0, 0, states, *[0] * n]], np.int64)


def _lists_of_others(n: int, outputs: int) -> tuple[NDArray[np.int8], Ints, NDArray[np.int32], Ints]:
    """`Alike.others`, `others_at`, `by_sum` and `sum_at`."""
    counts = [comb(outputs + k, k) for k in range(n + 1)]
    at = np.cumsum([0, *counts[:-1]]).astype(np.int64)
    others = np.zeros((sum(counts), n), np.int8)
    by_sum = np.empty(sum(counts), np.int32)
    sum_at = np.zeros((n + 1, n * outputs + 2), np.int64)
    for k, (begin, count) in enumerate(zip(at, counts, strict=True)):
        alike_lists.lists_by_rank(k, outputs, others[begin : begin + count])
        sums = others[begin : begin + count].sum(axis=1, dtype=np.int64)
        order = np.argsort(sums, kind="stable")
        by_sum[begin : begin + count] = order
        sum_at[k] = np.searchsorted(sums[order], np.arange(n * outputs + 2))
    return others, at, by_sum, sum_at


def _outcomes(
    held: Ints, n: int, droppable: bool, seats: bool, num_blocks: int, pass_blocks: Ints, held_blocks: Ints,
    decode_s: NDArray[np.float64], constants_s: NDArray[np.float64],
) -> tuple[NDArray[np.int8], Ints, NDArray[np.float64], Ints, Ints]:  # fmt: skip
    """`Alike.outcome`, `outcome_blocks`, `outcome_s`, `outcome_gap` and `outcome_at`."""
    size = 0
    while True:
        rows = np.zeros((size, alike_lists.HEAD + 2 * n), np.int8)
        blocks, seconds, gap = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.int64)
        ends = [0]
        for held_row in held:
            residents = held_row[3 : 3 + held_row[0]]
            ends.append(
                alike_lists.list_outcomes(
                    residents, droppable, seats, num_blocks, pass_blocks, held_blocks, decode_s, constants_s, n, rows,
                    blocks, seconds, gap, ends[-1],
                )
            )  # fmt: skip
        if ends[-1] > _MOST_OUTCOMES:
            raise TooLargeError(f"{ends[-1]} outcomes of an iteration")
        if size == ends[-1]:
            return rows, blocks, seconds, gap, np.array(ends, np.int64)
        size = ends[-1]


def _codes(model: RequestModel) -> Ints:
    """`Alike.code`; situations that do not occur have the code of the end."""
    outputs = model.output
    end = len(model.situations)
    without = [model.number.get(Situation(g, 0, Phase.WAITING), end) for g in range(outputs)]
    resident = [model.number.get(Situation(g, model.prompt + g - 1, Phase.DECODING), end) for g in range(outputs)]
    return np.array([[*without, end], [*resident, end]], np.int64)
