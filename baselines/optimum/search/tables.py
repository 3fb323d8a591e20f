"""The problem as arrays for the search: what each request can be in, do next, and still needs at least.

A code numbers the situations of a request (`automaton.py`), code 0 being its start and the last one its end.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.minorant import is_lean, is_linear_in_prefills, minorants
from infermax_gym.baselines.optimum.search import layout
from infermax_gym.baselines.optimum.search.automaton import Action, Options, RequestModel
from infermax_gym.baselines.optimum.search.floor import bound_of_scratch
from infermax_gym.baselines.optimum.search.layout import Floats, Ints, Scratch, Successors, Tables
from infermax_gym.baselines.optimum.search.loads import Loads, best_loads
from infermax_gym.baselines.optimum.search.reverse import ReverseModel
from infermax_gym.cost.features import HAS_DECODE, HAS_PREFILL, ONE

KEY_LIMIT = 2**62

MOST_ACTIONS = 400_000
"""Actions of all requests in all situations, about, beyond which tables take too long to build."""


class TooLargeError(ValueError):
    """The states do not fit a 64-bit key."""


@dataclass(frozen=True)
class Problem:
    """A problem for the compiled search, with its buffers.

    Attributes:
        tables: the problem.
        scratch, successors: buffers.
        models: the requests in canonical order.
        order: order[k] is the request at position k of the canonical order.
    """

    tables: Tables
    scratch: Scratch
    successors: Successors
    models: list[RequestModel]
    order: list[int]

    @property
    def records(self) -> tuple[Tables, Scratch, Successors]:
        """What `expand` takes first."""
        return self.tables, self.scratch, self.successors

    @property
    def final_key(self) -> int:
        """The state in which everything is finished."""
        last = np.array([m.codes[-1, layout.BASE] for m in self.models])
        return int(last @ self.tables.stride) << self.tables.mask_bits

    def bound(self, codes: NDArray[np.int64], clock: float = 0.0, cost: float = 0.0) -> float:
        """Lower bound on the objective from a state on, seconds."""
        self.scratch.after[:] = codes
        return float(bound_of_scratch(self.tables, self.scratch, clock, cost))


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
    loads = best_loads(models, samples, num_loads)
    tables = _tables(instance, options, models, loads, [instance.requests[i] for i in order], backward)
    n = len(models)
    problem = Problem(tables, layout.new_scratch(n, len(loads.cap)), layout.new_successors(width, n), models, order)
    _set_tails(problem)
    return problem


def _tables(
    instance: Instance,
    options: Options,
    models: list[RequestModel],
    loads: Loads,
    requests: list[Request],
    backward: bool,
) -> Tables:
    """The tables, their tails not yet filled; models and requests are in canonical order."""
    n = len(models)
    forms = minorants(instance.cost, options.budget, instance.num_blocks * instance.block_size)
    stride, unbase = _bases(models)
    code = np.concatenate([m.codes for m in models])
    action_start, action, restart_s = _actions(models)
    arrival_s = np.array([r.arrival_s for r in requests], dtype=np.float64)
    return Tables(
        num_requests=n,
        num_blocks=int(instance.num_blocks),
        block_size=int(instance.block_size),
        max_num_batched_tokens=int(options.budget),
        max_num_seqs=int(instance.max_num_seqs),
        floor_context=bool(instance.cost.floor_context),
        latency=options.objective == "latency",
        lean=is_lean(instance.cost),
        timed=not instance.is_offline or instance.has_ttft_limits,
        backward=backward,
        chunk_rule=_chunk_rule(instance, options),
        mask_bits=n if options.late else 0,
        last_event_s=float(np.inf if instance.has_ttft_limits else arrival_s[-1]),
        theta=instance.cost.theta,
        term_end=instance.cost.term_end,
        same=np.array([False, *(_kind(a) == _kind(b) for a, b in itertools.pairwise(requests))]),
        offset=np.cumsum([0] + [len(m.situations) + 1 for m in models]).astype(np.int64),
        stride=stride,
        unbase=unbase,
        action_start=action_start,
        action=action,
        code=code,
        load=np.ascontiguousarray(loads.load, dtype=np.int64),
        load_cap=loads.cap.astype(np.int64),
        load_outside=loads.outside.astype(np.int64),
        arrival_s=arrival_s,
        ttft_limit_s=np.array([r.ttft_limit_s for r in requests], dtype=np.float64),
        tail_s=np.zeros(n + 1),
        restart_s=restart_s,
        code_s=_code_seconds(models, forms, code),
        per_batch_s=np.ascontiguousarray(forms[:, [ONE, HAS_DECODE, HAS_PREFILL]]),
    )


def _chunk_rule(instance: Instance, options: Options) -> int:
    """Which prefill chunks can be left out without loss."""
    if not options.chunks or not is_linear_in_prefills(instance.cost):
        return layout.ALL_CHUNKS
    if options.late:
        return layout.BEFORE_GAPS
    return layout.FULL_BATCHES if instance.is_offline else layout.ALL_CHUNKS


def _most_actions(request: Request, options: Options) -> int:
    """About as many actions as a request has in all its situations."""
    if not options.chunks:
        return 4 * request.num_output_tokens
    return request.num_output_tokens * request.peak_tokens * min(request.peak_tokens, options.budget)


def _kind(request: Request) -> tuple[float, float, int, int]:
    return (request.arrival_s, request.ttft_limit_s, request.num_prompt_tokens, request.num_output_tokens)


def _bases(models: list[RequestModel]) -> tuple[Ints, Ints]:
    """`Tables.stride` and `unbase`."""
    stride = [1]
    unbase = []
    for m in models:
        first = [k for k, columns in enumerate(m.codes) if columns[layout.TWIN] == 0]
        unbase += first + [0] * (len(m.situations) + 1 - len(first))
        stride.append(stride[-1] * len(first))
    if stride[-1] > KEY_LIMIT >> len(models):
        raise TooLargeError("the states of this instance do not fit the search")
    return np.array(stride[:-1], dtype=np.int64), np.array(unbase, dtype=np.int64)


def _code_seconds(models: list[RequestModel], forms: Floats, code: Ints) -> Floats:
    """`Tables.code_s`."""
    floors = np.concatenate([np.array([m.floors(form) for form in forms]) for m in models], axis=1)
    constants = _chain_constants(forms, code[:, layout.CHAIN], code[:, layout.DUE])
    refill_s = np.concatenate([m.refills(forms) for m in models])
    return np.ascontiguousarray(np.vstack([(floors + constants).max(axis=0), refill_s, floors]).T)


def _chain_constants(forms: Floats, chain: Ints, due: Ints) -> Floats:
    """(num_minorants, codes) batch constants of a request alone."""
    one, decode, prefill = (forms[:, [feature]] for feature in (ONE, HAS_DECODE, HAS_PREFILL))
    usual = one * chain + prefill * due + decode * np.maximum(chain - due, 0)
    return np.asarray(np.where(prefill < decode, (one + prefill) * chain, usual))


def _actions(models: list[RequestModel]) -> tuple[Ints, Ints, Floats]:
    """`Tables.action_start`, `action` and `restart_s`."""
    start = [0]
    action: list[layout.ActionRow] = []
    restart_s: list[float] = []
    for model in models:
        for s in [*model.situations, None]:
            actions = [Action(None)] if s is None else model.actions(s)
            actions = [a for a in actions if a.blocks <= model.instance.num_blocks]
            action += [a.columns(model.number[a.to]) for a in actions]
            restart_s += [a.restart_s for a in actions]
            start.append(len(action))
    return np.array(start, dtype=np.int64), np.array(action, dtype=np.int64), np.array(restart_s, dtype=np.float64)


def _set_tails(problem: Problem) -> None:
    """Fill `Tables.tail_s`: bounds on the makespan by what arrives with request k or later."""
    tables = problem.tables
    if tables.latency:
        return
    n = tables.num_requests
    largest = 0.0
    for k in range(n - 1, -1, -1):
        codes = np.where(np.arange(n) >= k, 0, np.diff(tables.offset) - 1)
        largest = max(largest, problem.bound(codes, float(tables.arrival_s[k])))
        tables.tail_s[k] = largest
