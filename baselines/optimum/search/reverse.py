"""One request as an automaton that goes backward in time.

Backward, a request places its last token first. What it holds then only shrinks until the prefill that began the
residence; how a residence ends (a finish, or a preemption) costs nothing, so it can be placed as late as it fits:

    a residence whose last pass is a decode ends right before an iteration in which that pass would not have fitted

(else all its decodes could happen one iteration later, in less memory). Forward, the same rule would speak about
the future; backward it removes most choices: a request that fitted and was left out is locked for one step.
Only for the makespan of requests that arrive together, under a linear cost without a binding token budget.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from infermax_gym.baselines.optimum.search.automaton import Action, Phase, RequestModel, Situation, finished_code
from infermax_gym.baselines.optimum.search.layout import CodeRow, Floats, Ints


class ReverseModel(RequestModel):
    """The situations of one request and the actions in each, backward in time.

    `generated` counts the tokens that are still to be placed, those before the ones placed already. RUNNING: the
    residence goes on with the next earlier token. DECODING: all its decodes are placed, only the prefill is
    missing. WAITING: not resident.
    """

    def _situations(self) -> list[Situation]:
        result = []
        for g in range(self.output, 0, -1):
            if g == self.output or self.options.variant == "preemptive":
                result += [Situation(g, 0, Phase.WAITING), Situation(g, 0, Phase.LOCKED)]
            if g < self.output:
                resident = self.prompt + g - 1
                if g == 1 or self.options.variant == "preemptive":
                    result.append(Situation(g, resident, Phase.DECODING))
                result.append(Situation(g, resident, Phase.RUNNING))
        return result

    def actions(self, s: Situation) -> list[Action]:
        """Every action in a situation; the first is to stay as it is."""
        held = self.blocks(s.resident)
        if s.phase in (Phase.WAITING, Phase.LOCKED):
            stay = Situation(s.generated, 0, Phase.WAITING)
            result = [Action(stay, locks=self._last_blocks(s.generated)), *self._prefills(s)]
            return result + ([self._decode(s)] if s.phase == Phase.WAITING and s.generated > 1 else [])
        if s.phase == Phase.DECODING:
            return [Action(s, blocks=held, parks=1), *self._prefills(s)]
        result = [Action(s, blocks=held, pauses=1), *self._prefills(s)]
        parked = Situation(s.generated, s.resident, Phase.DECODING)
        if parked in self.number:
            result.append(Action(parked, blocks=held, parks=1))
        return result + ([self._decode(s)] if s.generated > 1 else [])

    def _last_blocks(self, generated: int) -> int:
        """Blocks of the pass that emits the `generated`-th token."""
        return self.blocks(self.prompt + generated - 1)

    def _decode(self, s: Situation) -> Action:
        g = s.generated
        return Action(
            Situation(g - 1, self.prompt + g - 2, Phase.RUNNING),
            tokens=1,
            decodes=1,
            decode_context=self.prompt + g - 2,
            blocks=self._last_blocks(g),
        )

    def _prefills(self, s: Situation) -> list[Action]:
        g = s.generated
        if g > 1 and self.options.variant != "preemptive":
            return []
        tokens = self.prompt + g - 1
        left = Situation(g - 1, 0, Phase.WAITING) if g > 1 else None
        return [
            Action(
                left,
                tokens=tokens,
                work=tokens * tokens,
                prefills=1,
                blocks=self._last_blocks(g),
                locks=self._last_blocks(g - 1) if g > 1 else 0,
            )
        ]

    def is_twin(self, s: Situation) -> bool:
        """Whether a situation is a more restricted version of the one before it."""
        return s.phase == Phase.LOCKED

    def chain(self, s: Situation) -> int:
        """Least number of iterations until the request is done."""
        return s.generated

    @cached_property
    def codes(self) -> Ints:
        """(codes, columns of `layout.CodeRow`)."""
        codes = []
        low = self.blocks(self.prompt)
        rise = self.instance.blocks(self.request.peak_tokens) - low
        base = -1
        for s in self.situations:
            twin = self.is_twin(s)
            base += not twin
            code = CodeRow(
                chain=s.generated,
                due=1,
                unfinished=1,
                finishes=int(s.generated == self.output),
                low=low,
                rise=rise,
                resident=s.resident,
                runs=0,
                base=base,
                twin=int(twin),
            )
            codes.append(code)
        return np.array([*codes, finished_code(base + 1)], dtype=np.int64)

    def floors(self, form: Floats) -> Floats:
        """(codes,) least seconds of the remaining tokens under a linear minorant, without batch constants."""
        total = np.concatenate(([0.0], np.cumsum(self.cheapest(form))))
        return np.array([total[s.generated] for s in self.situations] + [0.0])

    def refills(self, forms: Floats) -> Floats:
        """(codes,) zero: backward, a preemption is paid for when its refill is placed."""
        return np.zeros(len(self.situations) + 1)

    def passes(self) -> Ints:
        """(codes,) least tokens still to be passed."""
        return np.array([self.prompt + s.generated - 1 for s in self.situations] + [0], dtype=np.int64)

    def spans(self, skip_next: int, skip_last: int) -> tuple[Ints, Ints]:
        """Remaining output tokens that can be neither in the next iterations (backward) nor in the last ones."""
        generated = np.array([s.generated for s in self.situations] + [0], dtype=np.int64)
        first = np.full(len(generated), min(skip_last, self.output), dtype=np.int64)
        return first, np.maximum(first, generated - skip_next)
