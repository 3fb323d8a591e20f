"""The problem as arrays for the search: what each request can be in, do next, and still needs at least.

A request is in one of a few situations: (g generated tokens, m resident tokens, whether it is decoding). A code
numbers them, code 0 being the request as it arrives and the last one its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.optimum.instance import Instance, Request
from baselines.optimum.minorant import is_lean, minorants
from baselines.optimum.search import layout
from baselines.optimum.search.floor import state_bound
from baselines.optimum.search.loads import best_loads

VARIANTS = ("preemptive", "no-preemption", "reserve")
KEY_LIMIT = 2**62


class TooLargeError(ValueError):
    """The states do not fit a 64-bit key."""


@dataclass(frozen=True)
class Options:
    """Which problem the search solves.

    Attributes:
        objective: "makespan" or "latency".
        variant: one of `VARIANTS`.
        chunks: whether prefills may be cut. Off without the token budget is a relaxation, see `solve.py`.
        budget: token budget of an iteration.
        late: look only at schedules whose passes happen as late as they can, see `expand`. Without loss if the
            cost is linear and no token budget binds.
    """

    objective: str
    variant: str
    chunks: bool
    budget: int
    late: bool = False


@dataclass(frozen=True)
class Situation:
    """Where one unfinished request stands.

    Attributes:
        generated: output tokens emitted.
        resident: KV tokens.
        decoding: whether its next pass is a decode.
        started: whether it has decoded since its prefill (told apart with `Options.late` only).
    """

    generated: int
    resident: int
    decoding: bool
    started: bool = False


@dataclass
class Action:
    """What a request does in one iteration; the fields are the columns of `layout.py`."""

    to: Situation | None
    tokens: int = 0
    work: int = 0
    prefills: int = 0
    prefill_context: int = 0
    decode_context: int = 0
    decodes: int = 0
    blocks: int = 0
    restarts: int = 0
    continues: int = 0
    pauses: int = 0
    parks: int = 0
    held: int = 0
    first: int = 0
    restart_s: float = 0.0

    def row(self, to_code: int) -> list[int]:
        """The columns of `Tables.action`."""
        return [
            self.tokens, self.work, self.prefills, self.prefill_context, self.decode_context, self.decodes,
            self.blocks, int(self.blocks > 0), self.restarts, self.continues, self.pauses, self.parks, self.held,
            self.first, to_code,
        ]  # fmt: skip


class RequestModel:
    """The situations of one request and the actions in each."""

    def __init__(self, request: Request, instance: Instance, options: Options) -> None:
        self.request = request
        self.instance = instance
        self.options = options
        self.situations = list(self._situations())
        self.number: dict[Situation | None, int] = {s: k for k, s in enumerate(self.situations)}
        self.number[None] = len(self.situations)

    def _situations(self) -> list[Situation]:
        prompt, output = self.request.num_prompt_tokens, self.request.num_output_tokens
        result = []
        for g in range(output):
            if g == 0 or self.options.variant == "preemptive":
                last = prompt + g if self.options.chunks else 1
                result += [Situation(g, m, False) for m in range(last)]
            first_prefill = g == 1 or self.options.variant == "preemptive" or not self.options.late
            if g > 0 and first_prefill:
                result.append(Situation(g, prompt + g - 1, True))
            if g > 1 and self.options.late:
                result.append(Situation(g, prompt + g - 1, True, True))
        return result

    def _blocks(self, tokens: int) -> int:
        if tokens > 0 and self.options.variant == "reserve":
            return self.instance.blocks(self.request.peak_tokens)
        return self.instance.blocks(tokens)

    def actions(self, s: Situation) -> list[Action]:
        """Every action in a situation; the first is to stay as it is."""
        held = self._blocks(s.resident)
        late = self.options.late and s.decoding
        result = [Action(s, blocks=held, pauses=int(late and s.started), parks=int(late and not s.started))]
        if s.decoding:
            result.append(self._decode(s))
        else:
            result += self._prefills(s)
        if s.resident > 0 and self.options.variant == "preemptive":
            dropped = Situation(s.generated, 0, False)
            result.append(Action(dropped, held=held))
            for action in self._prefills(dropped):
                if s.decoding:
                    action.restarts = 1
                    action.restart_s = self._restart_s(action, s)
                result.append(action)
        return result

    def _emitted(self, generated: int, by_decode: bool) -> Situation | None:
        if generated == self.request.num_output_tokens:
            return None
        started = by_decode and self.options.late
        return Situation(generated, self.request.num_prompt_tokens + generated - 1, True, started)

    def _decode(self, s: Situation) -> Action:
        return Action(
            self._emitted(s.generated + 1, True),
            tokens=1,
            decodes=1,
            decode_context=s.resident,
            blocks=self._blocks(s.resident + 1),
        )

    def _restart_s(self, action: Action, s: Situation) -> float:
        """What a prefill costs more than decoding in situation s, without batch constants, if the cost is linear."""
        form = np.sum([term[0] for term in self.instance.cost.terms], axis=0)
        prefill = form[1] * action.tokens + form[3] * action.work + form[4]
        return float(prefill - form[1] - form[7] * s.resident - form[8])

    def _prefills(self, s: Situation) -> list[Action]:
        known = self.request.num_prompt_tokens + s.generated
        rest = known - s.resident
        sizes = range(1, min(rest, self.options.budget) + 1) if self.options.chunks else range(rest, rest + 1)
        result = []
        for c in sizes:
            action = Action(
                self._emitted(s.generated + 1, False) if c == rest else Situation(s.generated, s.resident + c, False),
                tokens=c,
                work=c * c + 2 * c * s.resident,
                prefills=1,
                prefill_context=s.resident,
                blocks=self._blocks(s.resident + c),
                continues=int(s.resident > 0),
                first=int(s.generated == 0 and c == rest),
            )
            result.append(action)
        return result

    def chain(self, s: Situation) -> int:
        """Least number of iterations until the request is finished."""
        rest = self.request.num_output_tokens - s.generated
        if s.decoding:
            return rest
        known = self.request.num_prompt_tokens + s.generated
        return rest - 1 + -(-(known - s.resident) // self.options.budget)

    def floors(self, form: NDArray[np.float64]) -> NDArray[np.float64]:
        """(codes,) least seconds of the remaining tokens under a linear minorant, without batch constants."""
        prompt, output = self.request.num_prompt_tokens, self.request.num_output_tokens
        _, per_token, _, per_work, per_prefill, per_context, _, per_decode_context, per_decode = form
        known = prompt + np.arange(output, dtype=np.float64)
        prefill = per_token * known + per_work * known**2 + per_prefill
        decode = per_token + per_decode + per_decode_context * (known - 1)
        cheapest = np.minimum(prefill, decode) if self.options.variant == "preemptive" else decode
        cheapest[0] = prefill[0]
        after = np.append(np.cumsum(cheapest[::-1])[::-1], 0.0)
        result = np.zeros(len(self.situations) + 1)
        for k, s in enumerate(self.situations):
            g, m, total = s.generated, float(s.resident), known[s.generated]
            now = cheapest[g]
            if not s.decoding:
                now = per_token * (total - m) + per_work * (total**2 - m**2) + per_prefill + per_context * m
                now = min(now, prefill[g])
            result[k] = now + after[g + 1]
        return result

    def codes(self) -> NDArray[np.int64]:
        """(codes, 5) columns of `floor.py`."""
        rows = []
        peak = self.instance.blocks(self.request.peak_tokens)
        for s in self.situations:
            low = self._blocks(s.resident if s.decoding else self.request.num_prompt_tokens + s.generated)
            rows.append([self.chain(s), int(not s.decoding), 1, low, peak - low])
        return np.array([*rows, [0, 0, 0, 0, 0]], dtype=np.int64)

    def refills(self, forms: NDArray[np.float64]) -> NDArray[np.float64]:
        """(codes,) least extra seconds of one preemption from a situation on; infinite where it is forbidden."""
        if self.options.variant != "preemptive":
            return np.full(len(self.situations) + 1, np.inf)
        known = self.request.num_prompt_tokens + np.arange(self.request.num_output_tokens, dtype=np.float64)
        extra = np.full(len(known), np.inf)
        for _, per_token, _, per_work, per_prefill, _, _, per_context, per_decode in forms:
            prefill = per_token * known + per_work * known**2 + per_prefill
            decode = per_token + per_decode + per_context * (known - 1)
            extra = np.minimum(extra, np.maximum(prefill - decode, 0.0))
        least = np.minimum.accumulate(extra[::-1])[::-1]
        return np.array([least[s.generated] for s in self.situations] + [0.0])

    def passes(self) -> NDArray[np.int64]:
        """(codes,) least tokens still to be passed."""
        result = []
        for s in self.situations:
            now = 1 if s.decoding else self.request.num_prompt_tokens + s.generated - s.resident
            result.append(now + self.request.num_output_tokens - s.generated - 1)
        return np.array([*result, 0], dtype=np.int64)

    def generated(self) -> NDArray[np.int64]:
        """(codes,) output tokens emitted so far."""
        return np.array([s.generated for s in self.situations] + [self.request.num_output_tokens], dtype=np.int64)

    def sizes(self) -> NDArray[np.int64]:
        """(num_output_tokens,) blocks of the pass that emits each token."""
        prompt = self.request.num_prompt_tokens
        return np.array([self._blocks(prompt + g) for g in range(self.request.num_output_tokens)], dtype=np.int64)


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
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What `expand` takes first."""
        return self.ints, self.floats, self.work, self.work_s, self.theta, self.term_end, self.child, self.child_s

    @property
    def final_key(self) -> int:
        """The state in which everything is finished."""
        n = len(self.models)
        offset = self.ints[layout.OFFSET]
        last = np.diff(self.ints[offset : offset + n + 1]) - 1
        return int(last @ self.ints[self.ints[layout.STRIDE] : self.ints[layout.STRIDE] + n])

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
) -> Problem:
    """The tables of a problem.

    Args:
        instance: the problem.
        options: objective, variant and relaxations.
        samples: (k, n) codes of states on which the packing bounds should be good; made up if None.
        num_loads: packing bounds kept.
        width: room for successors of one state.

    Raises:
        TooLargeError: the states do not fit a 64-bit key.
    """
    order = sorted(range(len(instance)), key=lambda i: _kind(instance.requests[i]))
    models = [RequestModel(instance.requests[i], instance, options) for i in order]
    kinds = [_kind(instance.requests[i]) for i in order]
    stride = _strides(models)
    forms = minorants(instance.cost, options.budget, instance.num_blocks * instance.block_size)
    code = np.concatenate([m.codes() for m in models])
    floors = np.concatenate([np.array([m.floors(form) for form in forms]) for m in models], axis=1)
    chain_s = (floors + _chain_constants(forms, code[:, 0], code[:, 1])).max(axis=0)
    refill_s = np.concatenate([m.refills(forms) for m in models])
    loads = best_loads(models, samples, num_loads)
    action_start, action, restart_s = _actions(models)
    n = len(models)
    header = np.zeros(layout.HEADER, dtype=np.int64)
    header[: layout.NUM_MINORANTS + 1] = [
        n, instance.num_blocks, options.budget, instance.max_num_seqs, options.objective == "latency",
        is_lean(instance.cost), not instance.is_offline or instance.has_ttft_limits, instance.cost.floor_context,
        len(loads.cap), len(forms),
    ]  # fmt: skip
    same = [0] + [int(a == b) for a, b in zip(kinds, kinds[1:], strict=False)]
    offset = np.cumsum([0] + [len(m.situations) + 1 for m in models])
    blocks = {
        layout.SAME: same, layout.OFFSET: offset, layout.STRIDE: stride, layout.ACTION_START: action_start,
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


def _kind(request: Request) -> tuple[float, float, int, int]:
    return (request.arrival_s, request.ttft_limit_s, request.num_prompt_tokens, request.num_output_tokens)


def _strides(models: list[RequestModel]) -> NDArray[np.int64]:
    """Weight of each request's code in the key of a state."""
    stride = [1]
    for m in models:
        stride.append(stride[-1] * (len(m.situations) + 1))
    if stride[-1] > KEY_LIMIT:
        raise TooLargeError("the states of this instance do not fit the search")
    return np.array(stride[:-1], dtype=np.int64)


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
