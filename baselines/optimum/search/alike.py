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
from infermax_gym.baselines.optimum.search import alike_kernel, alike_lists, astar
from infermax_gym.baselines.optimum.search.alike_lists import Alike, Lists, Outcomes, Progress, Sizes
from infermax_gym.baselines.optimum.search.automaton import Options, Phase, RequestModel, Situation
from infermax_gym.baselines.optimum.search.expand import key_of
from infermax_gym.baselines.optimum.search.layout import Ints, Scratch, Tables
from infermax_gym.baselines.optimum.search.path import Label, plan_of
from infermax_gym.baselines.optimum.search.tables import Problem, TooLargeError, build
from infermax_gym.cost.features import HAS_DECODE, HAS_PREFILL, ONE

TOLERANCE = 1e-9
_BYTES_PER_STATE = 12
_MOST_OUTPUTS = 120  # tokens of a request; lists are of bytes
_MOST_LISTS = 100_000
_MOST_OUTCOMES = 4_000_000
_SLICE_S = 0.1


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
        self._start_s = instance.requests[0].arrival_s
        self._store = _tables(instance, options, self._problem, max_bytes // _BYTES_PER_STATE)
        self._progress = self._store.progress
        n = len(instance)
        self._latency = options.objective == "latency"
        self._root = int(self._store.lists.held_state[-1])
        start = self._start_s * (n if self._latency else 1)
        self._progress.cost_s[self._root] = start
        self._scratch = np.zeros((alike_kernel.NUM_LINES, n + 2), np.int64)
        self._root_bound = self._problem.bound(np.zeros(n, np.int64), self._start_s, start)
        self._offered = np.inf
        self._chunk = 1024

    @property
    def _records(self) -> tuple[Alike, Tables, Scratch, Ints]:
        """What `alike_kernel.advance` takes first."""
        return self._store, self._problem.tables, self._problem.scratch, self._scratch

    @property
    def num_states(self) -> int:
        """All states, reached or not."""
        return int(self._progress.cost_s.size)

    @property
    def num_expanded(self) -> int:
        """States expanded so far."""
        return int(self._progress.cursor[alike_lists.NUM_EXPANDED])

    @property
    def incumbent(self) -> float:
        """Objective of the best schedule known, infinite if none is."""
        return float(self._progress.incumbent_s[0])

    @property
    def bound(self) -> float:
        """No schedule costs less, up to the tolerance.

        An iteration emits at most a token of each request, so every schedule passes a state of any n layers in a row.
        """
        if self.status == astar.EXHAUSTED:
            return self.incumbent
        n = len(self.instance)
        done = self._progress.layer_s[: self._progress.cursor[alike_lists.LAYER]]
        least = np.lib.stride_tricks.sliding_window_view(done, n).min(axis=1) if len(done) >= n else np.zeros(1)
        return min(max(self._root_bound, float(least.max())), self.incumbent)

    def offer(self, objective: float) -> None:
        """Tell the search of a schedule found elsewhere; it looks for better ones only."""
        if objective < self.incumbent:
            self._progress.incumbent_s[0] = self._offered = objective

    def advance(self, seconds: float) -> int:
        """Search on for about `seconds`; returns the status."""
        end = time.perf_counter() + seconds
        while self.status == astar.RUNNING and time.perf_counter() < end:
            begin = time.perf_counter()
            if alike_kernel.advance(*self._records, self._chunk, TOLERANCE):
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
            states.append(int(self._progress.parent[states[-1]]))
        labels = [self._label(state) for state in reversed(states)]
        return plan_of(self._problem, self.instance, labels, self.incumbent * (1.0 + 1e-6))

    def _label(self, state: int) -> Label:
        """A state in the terms of `tables.Problem`."""
        lists, n = self._store.lists, len(self.instance)
        at = int(np.searchsorted(lists.held_state, state, side="right")) - 1
        held = int(lists.held_length[at])
        other = lists.others[lists.others_at[n - held] + state - lists.held_state[at], : n - held]
        codes = self._problem.scratch.after
        codes[:held] = self._store.resident_code[lists.held[at, :held]]
        codes[held:] = self._store.waiting_code[other]
        cost = float(self._progress.cost_s[state])
        return Label(int(key_of(self._problem.tables, codes)), self._start_s if self._latency else cost, cost)


def _tables(instance: Instance, options: Options, problem: Problem, most_states: int) -> Alike:
    """The tables of `Alike` with nothing reached yet."""
    model = problem.models[0]
    sizes = _sizes(instance, options, model)
    _check_size(sizes, most_states)
    lists = _lists(sizes)
    outcomes, outcome_at = _outcomes(sizes, lists)
    n, outputs = sizes.num_requests, sizes.num_outputs
    num_states = int(lists.held_state[-1]) + comb(outputs + n, n)
    progress = Progress(
        cost_s=np.full(num_states, np.inf),
        parent=np.full(num_states, -1, np.int32),
        layer_s=np.full(n * outputs, np.inf),
        cursor=np.zeros(alike_lists.NUM_CURSORS, np.int64),
        incumbent_s=np.array([np.inf]),
    )
    return Alike(sizes, lists, outcomes, progress, outcome_at, *_codes(model))


def _sizes(instance: Instance, options: Options, model: RequestModel) -> Sizes:
    """What the compiled search knows of the requests and the engine."""
    outputs = model.output
    held_blocks = np.array([0] + [model.blocks(model.prompt + g - 1) for g in range(1, outputs)], np.int64)
    reserves = options.variant == "reserve"
    form = np.sum([term[0] for term in instance.cost.terms], axis=0)
    prefill_s, decode_s = model.token_seconds(form)
    return Sizes(
        num_requests=len(instance),
        num_outputs=outputs,
        num_blocks=int(instance.num_blocks),
        max_num_seqs=int(instance.max_num_seqs),
        droppable=options.variant == "preemptive",
        latency=options.objective == "latency",
        pass_blocks=np.full(outputs, model.blocks(1), np.int64) if reserves else model.sizes(),
        held_blocks=held_blocks,
        prefill_s=prefill_s,
        decode_s=decode_s,
        constants_s=form[[ONE, HAS_DECODE, HAS_PREFILL]],
    )


def _lists(sizes: Sizes) -> Lists:
    """`Alike.lists`."""
    n, outputs = sizes.num_requests, sizes.num_outputs
    held = _lists_that_fit(sizes)
    length = np.array([len(numbers) for numbers in held], np.int64)
    counts = [comb(outputs + n - int(k), outputs) for k in length]
    first_state = np.cumsum([0, *counts[:-1]]).astype(np.int64)
    rank_at = np.cumsum([0] + [comb(max(outputs - 2, 0) + k, k) for k in range(n + 1)]).astype(np.int64)
    start = np.full(rank_at[-1], -1, np.int64)
    start[rank_at[length] + np.array([_rank(numbers) for numbers in held], np.int64)] = first_state
    others, others_at, by_sum, sum_at = _lists_of_others(n, outputs)
    return Lists(
        binomial=np.array([[comb(a, b) for a in range(outputs + n + 1)] for b in range(n + 1)], np.int64),
        held=np.array([[*numbers, *[0] * (n - len(numbers))] for numbers in held], np.int64),
        held_length=length,
        held_sum=np.array([sum(numbers) for numbers in held], np.int64),
        held_state=first_state,
        start=start,
        rank_at=rank_at,
        others=others,
        others_at=others_at,
        by_sum=by_sum,
        sum_at=sum_at,
    )


def _rank(numbers: list[int]) -> int:
    """Rank of a sorted list of residents among those of its length; their numbers begin with 1."""
    return sum(comb(x - 1 + j, j + 1) for j, x in enumerate(numbers))


def _check_size(sizes: Sizes, most_states: int) -> None:
    """Count the states without listing them.

    Raises:
        TooLargeError: there are too many of them, or of lists of residents.
    """
    n, outputs = sizes.num_requests, sizes.num_outputs
    # lists[k][b]: lists of k residents that take b blocks; the counts are Python's, without overflow.
    lists = [Counter({0: 1})] + [Counter[int]() for _ in range(min(n, sizes.max_num_seqs))]
    if outputs <= _MOST_OUTPUTS:
        for need in sizes.held_blocks[1:].tolist():
            for shorter, longer in itertools.pairwise(lists):
                longer.update({b + need: count for b, count in shorter.items() if b + need <= sizes.num_blocks})
    num_lists = [counter.total() for counter in lists]
    states = sum(count * comb(outputs + n - k, outputs) for k, count in enumerate(num_lists))
    if outputs > _MOST_OUTPUTS or states > most_states or sum(num_lists) > _MOST_LISTS:
        raise TooLargeError(f"more than {most_states} states or {_MOST_LISTS} lists of residents")


def _lists_that_fit(sizes: Sizes) -> list[list[int]]:
    """Every list of residents within the memory, the empty one last."""
    found: list[list[int]] = []
    now: list[int] = []
    longest = min(sizes.num_requests, sizes.max_num_seqs)
    held_blocks = sizes.held_blocks.tolist()

    def visit(least: int, blocks: int) -> None:
        for g in range(least, sizes.num_outputs):
            if blocks + held_blocks[g] > sizes.num_blocks or len(now) >= longest:
                break
            now.append(g)
            visit(g, blocks + held_blocks[g])
            found.append(list(now))
            now.pop()

    visit(1, 0)
    return [*found, []]


def _lists_of_others(n: int, outputs: int) -> tuple[NDArray[np.int8], Ints, NDArray[np.int32], Ints]:
    """`Lists.others`, `others_at`, `by_sum` and `sum_at`."""
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


def _outcomes(sizes: Sizes, lists: Lists) -> tuple[Outcomes, Ints]:
    """`Alike.outcomes` and `outcome_at`: counted first, then written."""
    size = 0
    while True:
        out = Outcomes(
            what=np.zeros((size, alike_lists.HEAD + 2 * sizes.num_requests), np.int8),
            blocks=np.zeros(size, np.int64),
            seconds=np.zeros(size),
            gap=np.zeros(size, np.int64),
        )
        ends = [0]
        for numbers, length in zip(lists.held, lists.held_length, strict=True):
            ends.append(alike_lists.list_outcomes(sizes, numbers[:length], out, ends[-1]))
        if ends[-1] > _MOST_OUTCOMES:
            raise TooLargeError(f"{ends[-1]} outcomes of an iteration")
        if size == ends[-1]:
            return out, np.array(ends, np.int64)
        size = ends[-1]


def _codes(model: RequestModel) -> tuple[Ints, Ints]:
    """`Alike.waiting_code` and `resident_code`; situations that do not occur have the code of the end."""
    outputs = model.output
    end = len(model.situations)
    waiting = [model.number.get(Situation(g, 0, Phase.WAITING), end) for g in range(outputs)]
    resident = [model.number.get(Situation(g, model.prompt + g - 1, Phase.DECODING), end) for g in range(outputs)]
    return np.array([*waiting, end], np.int64), np.array([*resident, end], np.int64)
