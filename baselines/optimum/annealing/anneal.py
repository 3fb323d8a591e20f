"""Simulated annealing over priority lists and thresholds, compiled; anytime."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.annealing import layout
from infermax_gym.baselines.optimum.annealing.decoder import decode
from infermax_gym.baselines.optimum.annealing.layout import (
    GAP,
    HORIZON,
    NUM_KNOBS,
    NUM_VICTIMS,
    SHARE,
    SKIPS,
    VICTIM,
    Case,
    Floats,
    Ints,
    Scratch,
)
from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan, Step
from infermax_gym.compile import compiled


class Solutions(NamedTuple):
    """The solution that annealing is at, and the best so far.

    Attributes:
        order, best_order: (n,) priority lists.
        knobs, best_knobs: (NUM_KNOBS,) thresholds.
        value: (2,) NOW and BEST: objectives of both, seconds.
    """

    order: Ints
    knobs: Ints
    best_order: Ints
    best_knobs: Ints
    value: Floats


NOW = 0
BEST = 1


@compiled
def _random(seed: NDArray[np.uint64]) -> Any:
    """A number in [0, 1) from an xorshift generator."""
    x = seed[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    seed[0] = x
    return (x >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@compiled
def _move(order: Ints, knobs: Ints, seed: NDArray[np.uint64], shortest: int, longest: int) -> None:
    """Change a list or a knob a little, in place."""
    n = order.size
    kind = _random(seed)
    if kind < 0.2 or n < 2:
        which = int(_random(seed) * NUM_KNOBS)
        if which == HORIZON:
            factor = np.exp((_random(seed) - 0.5) * 2.0)
            knobs[HORIZON] = min(max(int(knobs[HORIZON] * factor + _random(seed)), shortest), longest)
        elif which == GAP:
            knobs[GAP] = max(knobs[GAP] + int(_random(seed) * 7.0) - 3, 0)
        elif which == SKIPS:
            knobs[SKIPS] = int(_random(seed) * min(n, 16))
        elif which == VICTIM:
            knobs[VICTIM] = int(_random(seed) * NUM_VICTIMS)
        else:
            knobs[SHARE] = max(knobs[SHARE] + int((_random(seed) - 0.5) * 60.0), 0)
        return
    i = int(_random(seed) * n)
    reach = n if kind < 0.5 else 8
    j = min(max(i + int((_random(seed) - 0.5) * 2.0 * reach), 0), n - 1)
    if kind < 0.75:
        order[i], order[j] = order[j], order[i]
        return
    moved = order[i]
    while i < j:
        order[i] = order[i + 1]
        i += 1
    while i > j:
        order[i] = order[i - 1]
        i -= 1
    order[j] = moved


@compiled
def anneal(
    case: Case, w: Scratch, found: Solutions, seed: NDArray[np.uint64], rounds: int, hot: float, cold: float
) -> None:
    """Some rounds of annealing from the current solution.

    Args:
        case: the requests and the engine. If schedules may preempt, admissions may look ahead less far than to the
            end.
        w: scratch of `decode`.
        found: updated.
        seed: (1,) state of the random numbers.
        rounds: schedules to try.
        hot: temperature at the first round, as a share of the objective.
        cold: likewise at the last one.
    """
    case, w, found = borrowed(case), borrowed(w), borrowed(found)
    order, knobs, value = found.order, found.knobs, found.value
    old_order, old_knobs = order.copy(), knobs.copy()
    nothing = np.zeros((0, 4), np.int64)
    longest = 1
    for r in range(case.output.size):
        longest = max(longest, case.output[r])
    shortest = 1 if case.preemptive else longest
    for k in range(rounds):
        temperature = value[BEST] * hot * (cold / hot) ** (k / rounds)
        _move(order, knobs, seed, shortest, longest)
        allowed = value[NOW] - temperature * np.log(1.0 - _random(seed))
        new = decode(case, w, order, knobs, nothing, allowed)
        if new > allowed:
            order[:] = old_order
            knobs[:] = old_knobs
            continue
        value[NOW] = new
        old_order[:] = order
        old_knobs[:] = knobs
        if new < value[BEST]:
            value[BEST] = new
            found.best_order[:] = order
            found.best_knobs[:] = knobs


_NOTHING = np.zeros((0, 4), np.int64)  # no room for events


def _case(instance: Instance, objective: str, variant: str) -> Case:
    """The instance as `decode` takes it."""
    requests, budget = instance.requests, instance.max_num_batched_tokens
    return Case(
        prompt=np.array([r.num_prompt_tokens for r in requests], dtype=np.int64),
        output=np.array([r.num_output_tokens for r in requests], dtype=np.int64),
        arrival_s=np.array([r.arrival_s for r in requests], dtype=np.float64),
        num_blocks=int(instance.num_blocks),
        block_size=int(instance.block_size),
        max_num_batched_tokens=int(budget),
        max_num_seqs=int(min(instance.max_num_seqs, budget)),
        floor_context=bool(instance.cost.floor_context),
        theta=instance.cost.theta,
        term_end=instance.cost.term_end,
        latency=objective == "latency",
        preemptive=variant == "preemptive",
    )


class Annealer:
    """Search for a good schedule of one instance, in slices.

    Attributes:
        num_schedules: how many have been tried.
    """

    def __init__(
        self,
        instance: Instance,
        objective: str,
        variant: str = "preemptive",
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Try the standard lists and thresholds.

        Args:
            instance: the problem.
            objective: "makespan" or "latency".
            variant: "preemptive", or one whose schedules never preempt.
            seed: of the random moves.
            stop: asked between the standard lists; True ends them, after one at least.
        """
        self.instance = instance
        self._case = _case(instance, objective, variant)
        self._scratch = layout.new_scratch(len(instance), instance.block_size)
        self._seed = np.array([seed * 2_654_435_761 + 88_172_645_463_325_252], dtype=np.uint64)
        self.num_schedules = 0
        self._found = self._start(stop)

    def _decode(self, order: Ints, knobs: Ints, events: Ints = _NOTHING, stop_at: float = np.inf) -> float:
        self.num_schedules += 1
        return float(decode(self._case, self._scratch, order, knobs, events, stop_at))

    def _lists(self) -> list[Ints]:
        """Priority lists to start from."""
        prompt, output = self._case.prompt, self._case.output
        keys = (np.arange(len(prompt)), output, -output, prompt + output, -(prompt + output), prompt, output - prompt)
        return [np.lexsort((np.arange(len(prompt)), key)).astype(np.int64) for key in keys]

    def _start(self, stop: Callable[[], bool]) -> Solutions:
        """The best of the standard lists and thresholds, one at least."""
        longest = int(self._case.output.max())
        horizons = [longest]
        if self._case.preemptive:
            horizons = sorted({1, 2, 4, 8, 16, longest // 4, longest // 2, longest}, reverse=True)
        best, best_order, best_knobs = np.inf, None, None
        for order, horizon, gap in itertools.product(self._lists(), horizons, (0, 4, 8)):
            knobs = np.zeros(NUM_KNOBS, np.int64)
            knobs[HORIZON], knobs[GAP], knobs[SKIPS], knobs[VICTIM] = max(horizon, 1), gap, 8, layout.LAST_IN_LIST
            # Admitting with little foresight may preempt for ever: nothing much worse is followed to its end.
            value = self._decode(order, knobs, stop_at=2.0 * best)
            if value < best or best_order is None or best_knobs is None:
                best, best_order, best_knobs = value, order, knobs
            if stop():
                break
        assert best_order is not None and best_knobs is not None
        return Solutions(
            best_order.copy(), best_knobs.copy(), best_order.copy(), best_knobs.copy(), np.array([best, best])
        )

    @property
    def value(self) -> float:
        """Objective of the best schedule: last finish, or sum of finish times, seconds; infinite if there is none."""
        return float(self._found.value[BEST])

    def advance(self, rounds: int, hot: float = 0.003, cold: float = 0.0001) -> None:
        """Anneal for some rounds, from the best schedule so far."""
        found = self._found
        found.order[:], found.knobs[:], found.value[NOW] = found.best_order, found.best_knobs, found.value[BEST]
        self.num_schedules += rounds
        anneal(self._case, self._scratch, found, self._seed, rounds, hot, cold)

    def plan(self) -> Plan:
        """The best schedule as a plan."""
        order, knobs, counter = self._found.best_order, self._found.best_knobs, self._scratch.counter
        self._decode(order, knobs)
        events = np.zeros((int(counter[layout.NUM_EVENTS]), 4), np.int64)
        self._decode(order, knobs, events)
        return self._plan_of(events.tolist(), int(counter[layout.STEP]))

    def _plan_of(self, events: list[list[int]], num_batches: int) -> Plan:
        """Replay the events: who decodes when follows from them."""
        left = self._case.output.tolist()
        known = self._case.prompt.tolist()
        chunked = [0] * len(left)
        runs: dict[int, None] = {}
        steps: list[Step] = []
        at = 0
        for batch_number in range(num_batches):
            joiners, preempted = [], []
            while at < len(events) and events[at][0] == batch_number:
                _, kind, r, tokens = events[at]
                at += 1
                if kind == layout.WAIT:
                    steps.append(Step(()))
                elif kind == layout.DROP:
                    preempted.append(r)
                    del runs[r]
                else:
                    joiners.append((r, tokens))
            steps.append(Step((*((r, 1) for r in runs), *joiners), tuple(preempted)))
            for r, tokens in joiners:
                chunked[r] += tokens
                if chunked[r] == known[r]:
                    chunked[r] = 0
                    runs[r] = None
            for r in list(runs):
                left[r] -= 1
                known[r] += 1
                if left[r] == 0:
                    del runs[r]
        return Plan(tuple(steps))
