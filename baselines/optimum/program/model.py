"""The scheduling problem as a constraint program for OR-Tools CP-SAT: one column per iteration, one row per request.

Everything the engine allows is a choice of the program: whom to preempt before an iteration, whose passes are in the
batch and how long their chunks are, who idles with its KV, how long to wait for an arrival. The iteration's duration
is the cost model itself, as at least each linear form of each of its terms, with coefficients rounded down to whole
units of time: every schedule costs the program at most what it costs the engine, so the program's bound holds for the
problem, and the two differ by no more than `Program.rounding_s`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.cost import CostModel

MOST_SLOTS = 6_000
"""Requests times iterations beyond which a program is not built: it would neither solve nor stay small."""

_UNITS = 1e12
"""Whole units of time up to the end of the longest schedule worth finding, about."""


class ProgramTooLargeError(ValueError):
    """The instance needs more variables than are worth building."""


class ProgramCostError(ValueError):
    """The program does not hold the instance's cost model; the message says why."""


@dataclass(frozen=True)
class Slot:
    """What one request does in one iteration.

    Attributes:
        generated, resident, decoding, finished: before the iteration.
        keeps: its KV is not dropped before the iteration.
        base: resident tokens after that.
        tokens: tokens of its pass, 0 if it is not in the batch.
        decodes, prefills: which kind of pass.
        emits: the pass emits an output token.
        completes: that token is its last.
        after: resident tokens once the iteration has run, a finished request's still counted.
    """

    generated: Any
    resident: Any
    decoding: Any
    finished: Any
    keeps: Any
    base: Any
    tokens: Any
    decodes: Any
    prefills: Any
    emits: Any
    completes: Any
    after: Any


@dataclass(frozen=True)
class Program:
    """The constraint program of an instance.

    Attributes:
        model: `ortools.sat.python.cp_model.CpModel`; its objective counts units of time.
        unit_s: seconds of a unit.
        offset_s: seconds to add to the objective (arrivals, for the mean latency).
        divisor: what the objective is divided by (requests, for the mean latency).
        rounding_s: how far the program's figure for a schedule may lie below the engine's, seconds.
        slots: [request][iteration].
        used: [iteration] whether it happens.
        start, end: [iteration] in units of time.
    """

    model: Any
    unit_s: float
    offset_s: float
    divisor: int
    rounding_s: float
    slots: list[list[Slot]] = field(repr=False)
    used: list[Any] = field(repr=False)
    start: list[Any] = field(repr=False)
    end: list[Any] = field(repr=False)

    def seconds(self, objective: float) -> float:
        """The objective of the problem for one of the program."""
        return (objective * self.unit_s + self.offset_s) / self.divisor


def build(
    instance: Instance, objective: str, variant: str, num_iterations: int, upper_s: float, lower_s: float = 0.0
) -> Program:
    """The program of an instance.

    Args:
        instance: the problem.
        objective: "makespan" or "latency".
        variant: "preemptive", "no-preemption" or "reserve".
        num_iterations: no schedule worth finding has more; the program is exact only if that is proven.
        upper_s: no schedule worth finding ends later than this clock.
        lower_s: a certified lower bound on the objective, which is stated as a constraint.

    Raises:
        ProgramTooLargeError: more than `MOST_SLOTS` pairs of a request and an iteration.
        ProgramCostError: the cost model has minima or negative coefficients.
    """
    check_cost(instance.cost)
    if len(instance) * num_iterations > MOST_SLOTS:
        raise ProgramTooLargeError(f"{len(instance)} requests in {num_iterations} iterations")
    return _Builder(instance, objective, variant, num_iterations, upper_s).program(lower_s)


def check_cost(cost: CostModel) -> None:
    """Refuse what the program does not hold.

    Maxima are at least each of their forms, which says nothing of minima. With negative coefficients CP-SAT 9.15 was
    seen to claim an optimum above the true one: its probing errs on units this small.
    """
    if not cost.is_convex:
        raise ProgramCostError(
            f"constraint program: cost model {cost.name!r} has min terms (not convex); "
            "the constraint program needs a convex one"
        )
    if (cost.theta < 0.0).any():
        raise ProgramCostError(
            f"constraint program: cost model {cost.name!r} has negative coefficients; the constraint program needs "
            "coefficients of at least 0"
        )


class _Builder:
    """Adds variables and constraints column by column."""

    def __init__(self, instance: Instance, objective: str, variant: str, num_iterations: int, upper_s: float) -> None:
        from ortools.sat.python import cp_model

        self.model: Any = cp_model.CpModel()
        self.instance = instance
        self.latency = objective == "latency"
        self.variant = variant
        self.n = len(instance)
        self.num_iterations = num_iterations
        self.unit_s = max(upper_s, 1e-9) / _UNITS
        self.last = math.ceil(upper_s / self.unit_s) + 1
        self.slots: list[list[Slot]] = [[] for _ in range(self.n)]
        self.first: list[list[Any]] = [[] for _ in range(self.n)]
        self.used = [self.model.new_bool_var(f"used{k}") for k in range(num_iterations)]
        self.start = [self.model.new_int_var(0, self.last, f"start{k}") for k in range(num_iterations)]
        self.end = [self.model.new_int_var(0, self.last, f"end{k}") for k in range(num_iterations)]

    def program(self, lower_s: float) -> Program:
        """Everything."""
        for k in range(self.num_iterations):
            for r in range(self.n):
                self.slots[r].append(self._slot(r, k))
            self._share(k)
            self._time(k)
        finish = [self._finish(r) for r in range(self.n)]
        self._order_twins(finish)
        arrivals = sum(r.arrival_s for r in self.instance.requests)
        total = sum(finish) if self.latency else self.model.new_int_var(0, self.last, "makespan")
        if not self.latency:
            self.model.add_max_equality(total, finish)
        divisor = self.n if self.latency else 1
        offset_s = -arrivals if self.latency else 0.0
        rounding_s = self._rounding_units() * self.unit_s
        program = Program(
            self.model, self.unit_s, offset_s, divisor, rounding_s, self.slots, self.used, self.start, self.end
        )
        floor = math.floor(((lower_s - rounding_s) * divisor - offset_s) / self.unit_s)
        self.model.add(total >= max(floor, 0))
        self.model.minimize(total)
        return program

    def _bool(self, name: str, r: int, k: int) -> Any:
        return self.model.new_bool_var(f"{name}{r},{k}")

    def _int(self, high: int, name: str, r: int, k: int) -> Any:
        return self.model.new_int_var(0, high, f"{name}{r},{k}")

    def _slot(self, r: int, k: int) -> Slot:
        """Request r in iteration k: its situation follows from iteration k - 1, its pass is free."""
        model, request = self.model, self.instance.requests[r]
        prompt, peak = request.num_prompt_tokens, request.peak_tokens
        generated, resident, decoding, finished = self._before(r, k)
        keeps = self._bool("keeps", r, k) if self.variant == "preemptive" else True
        base = self._int(peak, "base", r, k)
        if keeps is True:
            model.add(base == resident)
        else:
            model.add(base == resident).only_enforce_if(keeps)
            model.add(base == 0).only_enforce_if(~keeps)
            model.add(resident >= 1).only_enforce_if(~keeps)
            model.add_implication(~keeps, self.used[k])
        tokens = self._int(min(self.instance.max_num_batched_tokens, peak), "tokens", r, k)
        after = self._int(peak, "after", r, k)
        decodes, prefills, emits, completes = (self._bool(x, r, k) for x in ("dec", "pre", "emit", "done"))
        ready = self._bool("ready", r, k)  # still decoding once the preemption is done
        if keeps is True:
            model.add(ready == decoding)
        else:
            model.add_multiplication_equality(ready, [decoding, keeps])
        model.add_implication(decodes, ready)
        model.add_implication(prefills, ~ready)
        model.add_implication(decodes, emits)
        model.add_bool_or([decodes, prefills]).only_enforce_if(emits)
        model.add_implication(completes, emits)
        for kind in (decodes, prefills):
            model.add_implication(kind, self.used[k])
            model.add_implication(kind, ~finished)
        model.add(after == base + tokens)
        model.add(tokens == 0).only_enforce_if([~decodes, ~prefills])
        model.add(tokens == 1).only_enforce_if(decodes)
        model.add(tokens >= 1).only_enforce_if(prefills)
        model.add(after == prompt + generated).only_enforce_if(emits)
        model.add(after <= prompt + generated - 1).only_enforce_if([~emits, ~finished])
        model.add(generated == request.num_output_tokens - 1).only_enforce_if(completes)
        model.add(generated <= request.num_output_tokens - 2).only_enforce_if([emits, ~completes])
        if request.arrival_s > 0.0:
            arrival = math.floor(request.arrival_s / self.unit_s)
            for kind in (decodes, prefills):
                model.add(self.start[k] >= arrival).only_enforce_if(kind)
        if math.isfinite(request.ttft_limit_s):
            limit = math.ceil((request.arrival_s + request.ttft_limit_s) / self.unit_s)
            self.first[r].append(first := self._bool("first", r, k))
            model.add_implication(first, emits)
            model.add(generated == 0).only_enforce_if(first)
            model.add(self.end[k] <= limit).only_enforce_if(first)
        return Slot(
            generated, resident, decoding, finished, keeps, base, tokens, decodes, prefills, emits, completes, after
        )

    def _before(self, r: int, k: int) -> tuple[Any, Any, Any, Any]:
        """Generated and resident tokens, decoding and finished before iteration k."""
        if k == 0:
            zero = self.model.new_constant(0)
            return zero, zero, zero, zero
        model, request, past = self.model, self.instance.requests[r], self.slots[r][k - 1]
        generated = self._int(request.num_output_tokens, "generated", r, k)
        resident = self._int(request.peak_tokens, "resident", r, k)
        decoding, finished = self._bool("decoding", r, k), self._bool("finished", r, k)
        model.add(generated == past.generated + past.emits)
        model.add(finished == past.finished + past.completes)
        model.add(resident == past.after).only_enforce_if(~finished)
        model.add(resident == 0).only_enforce_if(finished)
        model.add_implication(finished, ~decoding)
        # Decoding next: it has just emitted, or it was decoding and has idled with its KV.
        idle = self._bool("idle", r, k)
        keeps = past.keeps
        parts = [past.decoding, ~past.decodes] + ([] if keeps is True else [keeps])
        model.add_bool_and(parts).only_enforce_if(idle)
        model.add_bool_or([~p for p in parts]).only_enforce_if(~idle)
        model.add(decoding == idle + past.emits - past.completes)
        return generated, resident, decoding, finished

    def _share(self, k: int) -> None:
        """What the requests of iteration k share: budget, sequences, blocks, and its number in the order of time."""
        model, instance = self.model, self.instance
        column = [line[k] for line in self.slots]
        model.add(sum(c.tokens for c in column) <= instance.max_num_batched_tokens)
        model.add_bool_or([x for c in column for x in (c.decodes, c.prefills)]).only_enforce_if(self.used[k])
        if k > 0:
            model.add_implication(self.used[k], self.used[k - 1])
        blocks = []
        sequences = []
        for r, slot in enumerate(column):
            peak = instance.requests[r].peak_tokens
            if self.variant == "reserve" or self.n > instance.max_num_seqs:
                holds = self._bool("holds", r, k)
                model.add(slot.after <= peak * holds)
                sequences.append(holds)
            if self.variant == "reserve":
                blocks.append(instance.blocks(peak) * sequences[-1])
            elif instance.block_size == 1:
                blocks.append(slot.after)
            else:
                held = self._int(instance.blocks(peak), "blocks", r, k)
                model.add(instance.block_size * held >= slot.after)
                blocks.append(held)
        model.add(sum(blocks) <= instance.num_blocks)
        if sequences:
            model.add(sum(sequences) <= instance.max_num_seqs)

    def _time(self, k: int) -> None:
        """Iteration k begins after iteration k - 1 and lasts what the cost model says."""
        model, column = self.model, [line[k] for line in self.slots]
        if k > 0:
            model.add(self.start[k] >= self.end[k - 1])
        features = self._features(k, column)
        terms = []
        for t, forms in enumerate(self.instance.cost.terms):
            seconds = model.new_int_var(-self.last, self.last, f"term{t},{k}")
            for theta in forms:
                units = [math.floor(x / self.unit_s) for x in theta]
                model.add(seconds >= sum(u * f for u, f in zip(units, features, strict=True) if u != 0))
            terms.append(seconds)
        model.add(self.end[k] >= self.start[k] + sum(terms))

    def _features(self, k: int, column: list[Slot]) -> list[Any]:
        """The nine features of the batch of iteration k."""
        model = self.model
        work = [self._prefill_work(r, k, c) for r, c in enumerate(column)]
        any_prefill, any_decode = model.new_bool_var(f"anyprefill{k}"), model.new_bool_var(f"anydecode{k}")
        model.add_max_equality(any_prefill, [c.prefills for c in column])
        model.add_max_equality(any_decode, [c.decodes for c in column])
        decode_context = sum(self._if(c.base, c.decodes, r, k) for r, c in enumerate(column))
        num_decodes = sum(c.decodes for c in column)
        if self.instance.cost.floor_context:
            decode_context = self._floored(decode_context, num_decodes, any_decode, k)
        return [
            self.used[k],
            sum(c.tokens for c in column),
            any_prefill,
            sum(work),
            sum(c.prefills for c in column),
            sum(self._if(c.base, c.prefills, r, k) for r, c in enumerate(column)),
            any_decode,
            decode_context,
            num_decodes,
        ]

    def _if(self, value: Any, condition: Any, r: int, k: int) -> Any:
        """The value where the condition holds, else 0."""
        result = self._int(self.instance.requests[r].peak_tokens, "if", r, k)
        self.model.add(result == value).only_enforce_if(condition)
        self.model.add(result == 0).only_enforce_if(~condition)
        return result

    def _prefill_work(self, r: int, k: int, slot: Slot) -> Any:
        """c^2 + 2 c m = (m + c)^2 - m^2 of a prefill, 0 otherwise."""
        model, peak = self.model, self.instance.requests[r].peak_tokens
        squares = []
        for name, value in (("after2", slot.after), ("base2", slot.base)):
            square = self._int(peak * peak, name, r, k)
            model.add_multiplication_equality(square, [value, value])
            squares.append(square)
        work = self._int(peak * peak, "work", r, k)
        model.add(work == squares[0] - squares[1]).only_enforce_if(slot.prefills)
        model.add(work == 0).only_enforce_if(~slot.prefills)
        return work

    def _floored(self, context: Any, count: Any, any_decode: Any, k: int) -> Any:
        """INFERMAX's own context: every decode one token higher and the mean rounded down, times the decodes."""
        high = sum(r.peak_tokens for r in self.instance.requests)
        mean = self.model.new_int_var(0, high, f"mean{k}")
        total = self.model.new_int_var(0, high, f"floored{k}")
        number = self.model.new_int_var(0, self.n, f"count{k}")
        self.model.add(number == count)
        self.model.add_multiplication_equality(total, [mean, number])
        self.model.add(total <= context)
        self.model.add(total >= context - count + any_decode)
        return total + count

    def _finish(self, r: int) -> Any:
        """When request r finishes, in units; it does."""
        model = self.model
        finish = model.new_int_var(0, self.last, f"finish{r}")
        model.add_exactly_one([slot.completes for slot in self.slots[r]])
        if self.first[r]:
            model.add_exactly_one(self.first[r])
        for k, slot in enumerate(self.slots[r]):
            model.add(finish >= self.end[k]).only_enforce_if(slot.completes)
        return finish

    def _order_twins(self, finish: list[Any]) -> None:
        """Of identical requests, the earlier one finishes first."""
        for r in range(1, self.n):
            if self.instance.requests[r] == self.instance.requests[r - 1]:
                self.model.add(finish[r] >= finish[r - 1])

    def _rounding_units(self) -> float:
        """Units that rounding down takes from a schedule's clock: less than one per unit of a feature and arrival."""
        instance = self.instance
        peaks = [float(r.peak_tokens) for r in instance.requests]
        tokens = min(float(instance.max_num_batched_tokens), sum(peaks))
        work = min(sum(p * p for p in peaks), float(instance.kv_tokens) ** 2)
        per_iteration = 3.0 + 2.0 * self.n + tokens + work + 2.0 * min(sum(peaks), float(instance.kv_tokens))
        return self.num_iterations * per_iteration * len(instance.cost.terms) + self.n
