"""The problem as arrays for the search: what each request can be in, do next, and still needs at least.

A code numbers the situations of a request (`automaton.py`), code 0 being its start and the last one its end.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.minorant import is_lean, is_linear_in_prefills, minorants
from infermax_gym.baselines.optimum.search import layout
from infermax_gym.baselines.optimum.search.automaton import Action, Options, RequestModel
from infermax_gym.baselines.optimum.search.floor import state_bound
from infermax_gym.baselines.optimum.search.loads import best_loads
from infermax_gym.baselines.optimum.search.reverse import ReverseModel

KEY_LIMIT = 2**62


MOST_ACTIONS = 400_000
"""Actions of all requests in all situations, about, beyond which tables take too long to build."""


class TooLargeError(ValueError):
    """The states do not fit a 64-bit key."""


@dataclass(frozen=True)
class Problem:
    """A problem in the arrays of `layout.py`, with the search's buffers.

    Attributes:
        ints, floats: tables.
        work, work_s: scratch.
        theta, term_end: the cost model.
        child, child_s: successors of one state, see `expand`.
        models: the requests in canonical order.
        order: order[k] is the request at position k of the canonical order.
    """

    ints: NDArray[np.int64]
    floats: NDArray[np.float64]
    work: NDArray[np.int64]
    work_s: NDArray[np.float64]
    theta: NDArray[np.float64]
    term_end: NDArray[np.int64]
    child: NDArray[np.int64]
    child_s: NDArray[np.float64]
    models: list[RequestModel]
    order: list[int]

    @property
    def arrays(self) -> Any:
        """What `expand` takes first."""
        return self.ints, self.floats, self.work, self.work_s, self.theta, self.term_end, self.child, self.child_s

    @property
    def final_key(self) -> int:
        """The state in which everything is finished."""
        n = len(self.models)
        last = np.array([m.codes[-1, layout.BASE] for m in self.models])
        stride = self.ints[self.ints[layout.STRIDE] : self.ints[layout.STRIDE] + n]
        return int(last @ stride) << int(self.ints[layout.MASK_BITS])

    def bound(self, codes: NDArray[np.int64], clock: float = 0.0, cost: float = 0.0) -> float:
        """Lower bound on the objective from a state on, seconds."""
        n = len(self.models)
        offset, load, loads = (self.ints[k] for k in (layout.OFFSET, layout.LOAD, layout.NUM_LOADS))
        at, sums = self.ints[layout.AFTER], self.ints[layout.LOAD_SUMS]
        rows = load + (self.ints[offset : offset + n] + codes)[:, None] * loads + np.arange(loads)
        self.work[at : at + n] = codes
        self.work[sums : sums + loads] = self.ints[rows].sum(axis=0)
        return float(state_bound(self.ints, self.floats, self.work, self.work_s, at, sums, clock, cost, np.inf))


def build(
    instance: Instance,
    options: Options,
    samples: NDArray[np.int64] | None = None,
    num_loads: int = 16,
    width: int = 100_000,
    backward: bool = False,
) -> Problem:
    """The tables of a problem.

    Args:
        instance: the problem.
        options: objective, variant and relaxations.
        samples: (k, n) codes of states on which the packing bounds should be good; made up if None.
        num_loads: packing bounds kept.
        width: room for successors of one state.
        backward: go backward in time, see `reverse.py`.

    Raises:
        TooLargeError: the states do not fit a 64-bit key, or the tables would be long.
    """
    if sum(_most_actions(r, options) for r in instance.requests) > MOST_ACTIONS:
        raise TooLargeError("the situations of this instance's requests do not fit the search")
    order = sorted(range(len(instance)), key=lambda i: _kind(instance.requests[i]))
    model = ReverseModel if backward else RequestModel
    models = [model(instance.requests[i], instance, options) for i in order]
    kinds = [_kind(instance.requests[i]) for i in order]
    stride, unbase = _bases(models)
    forms = minorants(instance.cost, options.budget, instance.num_blocks * instance.block_size)
    code = np.concatenate([m.codes for m in models])
    floors = np.concatenate([np.array([m.floors(form) for form in forms]) for m in models], axis=1)
    chain_s = (floors + _chain_constants(forms, code[:, 0], code[:, 1])).max(axis=0)
    refill_s = np.concatenate([m.refills(forms) for m in models])
    loads = best_loads(models, samples, num_loads)
    action_start, action, restart_s = _actions(models)
    n = len(models)
    header = np.zeros(layout.HEADER, dtype=np.int64)
    header[: layout.CHUNK_RULE + 1] = [
        n, instance.num_blocks, options.budget, instance.max_num_seqs, options.objective == "latency",
        is_lean(instance.cost), not instance.is_offline or instance.has_ttft_limits, instance.cost.floor_context,
        len(loads.cap), len(forms), backward, n if options.late else 0, instance.block_size, _chunk_rule(instance, options),
    ]  # fmt: skip
    same = [0] + [int(a == b) for a, b in itertools.pairwise(kinds)]
    offset = np.cumsum([0] + [len(m.situations) + 1 for m in models])
    blocks = {
        layout.SAME: same, layout.OFFSET: offset, layout.STRIDE: stride, layout.UNBASE: unbase, layout.ACTION_START: action_start,
        layout.ACTION: action, layout.CODE: code, layout.LOAD: loads.load, layout.LOAD_CAP: loads.cap,
        layout.LOAD_WINDOW: loads.window,
    }  # fmt: skip
    ints = _pack(header, layout.HEADER, [header], blocks, np.int64)
    arrival = np.array([instance.requests[i].arrival_s for i in order])
    limit = [instance.requests[i].ttft_limit_s for i in order]
    float_blocks = {
        layout.ARRIVAL: arrival, layout.TTFT_LIMIT: limit, layout.TAIL: np.zeros(n + 1), layout.RESTART_S: restart_s,
        layout.CODE_S: np.vstack([chain_s, refill_s, floors]).T, layout.PER_BATCH: forms[:, [0, 6, 2]],
        layout.LAST_EVENT: [np.inf if instance.has_ttft_limits else arrival[-1]],
    }  # fmt: skip
    floats = _pack(header, 0, [], float_blocks, np.float64)
    sizes = {
        layout.CODES: n, layout.CHOSEN: n, layout.AFTER: n, layout.SUMS: (n + 1) * layout.SUMMED,
        layout.LOAD_SUMS: (n + 1) * len(loads.cap), layout.MOST: 2 * (n + 1), layout.ROOM: 4 * n,
    }  # fmt: skip
    work = _pack(header, 0, [], {k: np.zeros(size) for k, size in sizes.items()}, np.int64)
    ints[: layout.HEADER] = header
    problem = Problem(
        ints, floats, work, np.zeros(3 * n), instance.cost.theta, instance.cost.term_end,
        np.empty((width, 1 + n), np.int64), np.empty((width, 3)), models, order,
    )  # fmt: skip
    _set_tails(problem)
    return problem


def _chunk_rule(instance: Instance, options: Options) -> int:
    """Which prefill chunks can be left out without loss."""
    if not options.chunks or not is_linear_in_prefills(instance.cost):
        return layout.ALL_CHUNKS
    if options.late:
        return layout.BEFORE_GAPS
    return layout.FULL_BATCHES if instance.is_offline else layout.ALL_CHUNKS


def _pack(
    header: NDArray[np.int64], start: int, first: list[NDArray[Any]], blocks: dict[int, Any], dtype: Any
) -> NDArray[Any]:
    """Lay blocks one after another behind `first` and note in the header where each begins."""
    parts = [np.asarray(part, dtype=dtype).ravel() for part in first]
    at = start
    for position, block in blocks.items():
        parts.append(np.asarray(block, dtype=dtype).ravel())
        header[position] = at
        at += parts[-1].size
    return np.concatenate(parts)


def _most_actions(request: Request, options: Options) -> int:
    """About as many actions as a request has in all its situations."""
    if not options.chunks:
        return 4 * request.num_output_tokens
    return request.num_output_tokens * request.peak_tokens * min(request.peak_tokens, options.budget)


def _kind(request: Request) -> tuple[float, float, int, int]:
    return (request.arrival_s, request.ttft_limit_s, request.num_prompt_tokens, request.num_output_tokens)


def _bases(models: list[RequestModel]) -> tuple[list[int], list[int]]:
    """`STRIDE` and `UNBASE` of the layout."""
    stride = [1]
    unbase = []
    for m in models:
        first = [k for k, row in enumerate(m.codes) if row[layout.TWIN] == 0]
        unbase += first + [0] * (len(m.situations) + 1 - len(first))
        stride.append(stride[-1] * len(first))
    if stride[-1] > KEY_LIMIT >> len(models):
        raise TooLargeError("the states of this instance do not fit the search")
    return stride[:-1], unbase


def _chain_constants(
    forms: NDArray[np.float64], chain: NDArray[np.int64], due: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(num_minorants, codes) batch constants of a request alone."""
    one, decode, prefill = forms[:, 0:1], forms[:, 6:7], forms[:, 2:3]
    usual = one * chain + prefill * due + decode * np.maximum(chain - due, 0)
    return np.where(prefill < decode, (one + prefill) * chain, usual)


def _actions(models: list[RequestModel]) -> tuple[list[int], list[list[int]], list[float]]:
    """`ACTION_START`, `ACTION` and `RESTART_S` of the layout."""
    start = [0]
    rows: list[list[int]] = []
    restart_s: list[float] = []
    for model in models:
        for s in [*model.situations, None]:
            actions = [Action(None)] if s is None else model.actions(s)
            actions = [a for a in actions if a.blocks <= model.instance.num_blocks]
            rows += [a.row(model.number[a.to]) for a in actions]
            restart_s += [a.restart_s for a in actions]
            start.append(len(rows))
    return start, rows, restart_s


def _set_tails(problem: Problem) -> None:
    """Fill TAIL: bounds on the makespan by what arrives with request k or later."""
    n = len(problem.models)
    ints, floats = problem.ints, problem.floats
    offset = ints[ints[layout.OFFSET] : ints[layout.OFFSET] + n + 1]
    arrival = floats[ints[layout.ARRIVAL] :]
    if ints[layout.LATENCY] == 1:
        return
    largest = 0.0
    for k in range(n - 1, -1, -1):
        codes = np.where(np.arange(n) >= k, 0, np.diff(offset) - 1)
        largest = max(largest, problem.bound(codes, float(arrival[k])))
        floats[ints[layout.TAIL] + k] = largest
