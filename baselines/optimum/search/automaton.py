"""One request as a small automaton: the situations it can be in, and what it can do in one iteration of each.

`RequestModel` goes forward in time; `reverse.ReverseModel` goes backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.search.layout import ActionRow, CodeRow, Floats, Ints
from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    NUM_DECODES,
    NUM_PREFILLS,
    NUM_TOKENS,
    PREFILL_CONTEXT,
    PREFILL_WORK,
)

VARIANTS = ("preemptive", "no-preemption", "reserve")


@dataclass(frozen=True)
class Options:
    """Which problem the search solves.

    Attributes:
        objective: "makespan" or "latency".
        variant: one of `VARIANTS`.
        chunks: whether prefills may be cut. Off without a token budget is a relaxation, see `exact.py`.
        budget: token budget of an iteration.
        late: look only at schedules whose passes happen as late as they can, see `expand`. Without loss if the
            cost is linear and no token budget binds.
        timed: there are arrivals or limits on the time to first token.
    """

    objective: str
    variant: str
    chunks: bool
    budget: int
    late: bool = False
    timed: bool = False


class Phase(IntEnum):
    """What a request that is not finished is about to do."""

    WAITING = 0  # to be prefilled
    LOCKED = 1  # as WAITING (backward only), but may not decode next
    DECODING = 2  # to decode, now or later
    RUNNING = 3  # has decoded since its prefill and goes on (with `Options.late` only)


@dataclass(frozen=True)
class Situation:
    """Where one unfinished request stands.

    Attributes:
        generated: output tokens emitted so far.
        resident: KV tokens.
        phase: see `Phase`.
    """

    generated: int
    resident: int
    phase: Phase


@dataclass
class Action:
    """What a request does in one iteration; the fields are those of `layout.ActionRow`."""

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
    partials: int = 0
    held: int = 0
    first: int = 0
    locks: int = 0
    restart_s: float = 0.0

    def columns(self, to_code: int) -> ActionRow:
        """The action as the tables hold it."""
        return ActionRow(
            tokens=self.tokens,
            work=self.work,
            prefills=self.prefills,
            prefill_context=self.prefill_context,
            decode_context=self.decode_context,
            decodes=self.decodes,
            blocks=self.blocks,
            seqs=int(self.blocks > 0),
            restarts=self.restarts,
            continues=self.continues,
            pauses=self.pauses,
            parks=self.parks,
            partials=self.partials,
            held=self.held,
            first=self.first,
            locks=self.locks,
            to_code=to_code,
        )


class RequestModel:
    """The situations of one request and the actions in each, forward in time."""

    def __init__(self, request: Request, instance: Instance, options: Options) -> None:
        self.request = request
        self.instance = instance
        self.options = options
        self.prompt = request.num_prompt_tokens
        self.output = request.num_output_tokens
        self.situations = self._situations()
        self.number: dict[Situation | None, int] = {s: k for k, s in enumerate(self.situations)}
        self.number[None] = len(self.situations)

    def _situations(self) -> list[Situation]:
        """From the request as it arrives; codes that differ in a twin are neighbours."""
        preemptive = self.options.variant == "preemptive"
        result = []
        for g in range(self.output):
            if g == 0 or preemptive:
                last = self.prompt + g if self.options.chunks else 1
                result += [Situation(g, m, Phase.WAITING) for m in range(last)]
            if g == 1 or (g > 1 and (preemptive or not self.options.late)):
                result.append(Situation(g, self.prompt + g - 1, Phase.DECODING))
            if g > 1 and self.options.late:
                result.append(Situation(g, self.prompt + g - 1, Phase.RUNNING))
        return result

    def blocks(self, tokens: int) -> int:
        """Blocks for `tokens` resident tokens."""
        if tokens > 0 and self.options.variant == "reserve":
            return self.instance.blocks(self.request.peak_tokens)
        return self.instance.blocks(tokens)

    def actions(self, s: Situation) -> list[Action]:
        """Every action in a situation; the first is to stay as it is."""
        held = self.blocks(s.resident)
        result = [Action(s, blocks=held)]
        if s.phase == Phase.WAITING:
            result += self._prefills(s)
        else:
            result[0].pauses = int(s.phase == Phase.RUNNING)
            result[0].parks = int(self.options.late and not self.options.timed and s.phase == Phase.DECODING)
            result.append(self._decode(s))
        if s.resident > 0 and self.options.variant == "preemptive":
            dropped = Situation(s.generated, 0, Phase.WAITING)
            result.append(Action(dropped, held=held))
            for action in self._prefills(dropped):
                if s.phase != Phase.WAITING:
                    action.restarts = 1
                    action.restart_s = self._restart_s(action, s)
                result.append(action)
        return result

    def _after(self, generated: int, by_decode: bool) -> Situation | None:
        if generated == self.output:
            return None
        phase = Phase.RUNNING if by_decode and self.options.late else Phase.DECODING
        return Situation(generated, self.prompt + generated - 1, phase)

    def _decode(self, s: Situation) -> Action:
        return Action(
            self._after(s.generated + 1, True),
            tokens=1,
            decodes=1,
            decode_context=s.resident,
            blocks=self.blocks(s.resident + 1),
        )

    def _prefills(self, s: Situation) -> list[Action]:
        rest = self.prompt + s.generated - s.resident
        sizes = range(1, min(rest, self.options.budget) + 1) if self.options.chunks else range(rest, rest + 1)
        result = []
        for c in sizes:
            part = Situation(s.generated, s.resident + c, Phase.WAITING)
            action = Action(
                self._after(s.generated + 1, False) if c == rest else part,
                tokens=c,
                work=c * c + 2 * c * s.resident,
                prefills=1,
                prefill_context=s.resident,
                blocks=self.blocks(s.resident + c),
                continues=int(s.resident > 0),
                partials=int(c < rest),
                first=int(s.generated == 0 and c == rest),
            )
            result.append(action)
        return result

    def _restart_s(self, action: Action, s: Situation) -> float:
        """What a prefill costs more than decoding in situation s, without batch constants, if the cost is linear."""
        form = np.sum([term[0] for term in self.instance.cost.terms], axis=0)
        prefill = form[NUM_TOKENS] * action.tokens + form[PREFILL_WORK] * action.work + form[NUM_PREFILLS]
        return float(prefill - form[NUM_TOKENS] - form[DECODE_CONTEXT] * s.resident - form[NUM_DECODES])

    def is_twin(self, s: Situation) -> bool:
        """Whether a situation is a more restricted version of the one before it."""
        return s.phase == Phase.RUNNING and Situation(s.generated, s.resident, Phase.DECODING) in self.number

    def chain(self, s: Situation) -> int:
        """Least number of iterations until the request is done."""
        rest = self.output - s.generated
        if s.phase != Phase.WAITING:
            return rest
        return rest - 1 - (s.resident - self.prompt - s.generated) // self.options.budget

    @cached_property
    def codes(self) -> Ints:
        """(codes, columns of `layout.CodeRow`)."""
        codes = []
        peak = self.instance.blocks(self.request.peak_tokens)
        base = -1
        for s in self.situations:
            waits = s.phase == Phase.WAITING
            low = self.blocks(self.prompt + s.generated if waits else s.resident)
            twin = self.is_twin(s)
            base += not twin
            code = CodeRow(
                chain=self.chain(s),
                due=int(waits),
                unfinished=1,
                finishes=1,
                low=low,
                rise=peak - low,
                resident=s.resident,
                runs=int(s.phase == Phase.RUNNING),
                base=base,
                twin=int(twin),
            )
            codes.append(code)
        return np.array([*codes, finished_code(base + 1)], dtype=np.int64)

    def token_seconds(self, form: Floats) -> tuple[Floats, Floats]:
        """(num_output_tokens,) seconds of emitting each token by a whole prefill and by a decode, under a minorant."""
        known = self.prompt + np.arange(self.output, dtype=np.float64)
        prefill = form[NUM_TOKENS] * known + form[PREFILL_WORK] * known**2 + form[NUM_PREFILLS]
        decode = form[NUM_TOKENS] + form[NUM_DECODES] + form[DECODE_CONTEXT] * (known - 1)
        return prefill, decode

    def cheapest(self, form: Floats) -> Floats:
        """(num_output_tokens,) least seconds of emitting each token; the first one is always prefilled."""
        prefill, decode = self.token_seconds(form)
        result = np.minimum(prefill, decode) if self.options.variant == "preemptive" else decode
        result[0] = prefill[0]
        return result

    def floors(self, form: Floats) -> Floats:
        """(codes,) least seconds of the remaining tokens under a linear minorant, without batch constants."""
        cheapest = self.cheapest(form)
        prefill, _ = self.token_seconds(form)
        after = np.append(np.cumsum(cheapest[::-1])[::-1], 0.0)
        result = np.zeros(len(self.situations) + 1)
        for k, s in enumerate(self.situations):
            g, m, known = s.generated, float(s.resident), float(self.prompt + s.generated)
            now = cheapest[g]
            if s.phase == Phase.WAITING:
                now = (
                    form[NUM_TOKENS] * (known - m)
                    + form[PREFILL_WORK] * (known**2 - m**2)
                    + form[NUM_PREFILLS]
                    + form[PREFILL_CONTEXT] * m
                )
                now = min(now, prefill[g])
            result[k] = now + after[g + 1]
        return result

    def refills(self, forms: Floats) -> Floats:
        """(codes,) least extra seconds of one preemption from a situation on; infinite where it is forbidden."""
        if self.options.variant != "preemptive":
            return np.full(len(self.situations) + 1, np.inf)
        extra = np.full(self.output, np.inf)
        for form in forms:
            prefill, decode = self.token_seconds(form)
            extra = np.minimum(extra, np.maximum(prefill - decode, 0.0))
        least = np.minimum.accumulate(extra[::-1])[::-1]
        return np.array([least[s.generated] for s in self.situations] + [0.0])

    def passes(self) -> Ints:
        """(codes,) least tokens still to be passed."""
        result = []
        for s in self.situations:
            now = self.prompt + s.generated - s.resident if s.phase == Phase.WAITING else 1
            result.append(now + self.output - s.generated - 1)
        return np.array([*result, 0], dtype=np.int64)

    def spans(self, skip_next: int, skip_last: int) -> tuple[Ints, Ints]:
        """Remaining output tokens that can be neither in the next iterations nor in the last ones.

        Returns:
            first and one past the last token, (codes,) each.
        """
        generated = np.array([s.generated for s in self.situations] + [self.output], dtype=np.int64)
        first = np.minimum(generated + skip_next, self.output)
        return first, np.maximum(first, self.output - skip_last)

    def sizes(self) -> Ints:
        """(num_output_tokens,) blocks of the pass that emits each token."""
        return np.array([self.blocks(self.prompt + g) for g in range(self.output)], dtype=np.int64)


def finished_code(base: int) -> CodeRow:
    """The last code of a request: nothing is left to do."""
    return CodeRow(
        chain=0, due=0, unfinished=0, finishes=0, low=0, rise=0, resident=0, runs=0, base=base, twin=0
    )  # fmt: skip
