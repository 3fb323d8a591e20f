"""Simulated annealing over priority lists and thresholds, compiled; anytime."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.annealing import decoder
from infermax_gym.baselines.optimum.annealing.decoder import (
    GAP,
    HORIZON,
    NUM_KNOBS,
    NUM_VICTIMS,
    SHARE,
    SKIPS,
    VICTIM,
    decode,
)
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.plan import Plan, Step
from infermax_gym.compile import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
    request: Ints, arrival: Floats, engine: Ints, theta: Floats, term_end: Ints, state: Ints, room: Ints,
    residue: Ints, counter: Ints, events: Ints, order: Ints, knobs: Ints, best_order: Ints, best_knobs: Ints,
    value: Floats, seed: NDArray[np.uint64], rounds: int, hot: float, cold: float, preemptive: bool,
) -> None:  # fmt: skip
    """Some rounds of annealing from `order` and `knobs`; `value` is (current, best).

    Args:
        request, arrival, engine, theta, term_end, state, room, residue, counter, events: see `decode`.
        order, knobs: current solution, updated.
        best_order, best_knobs: best solution, updated.
        value: (2,) objectives of both, seconds, updated.
        seed: (1,) state of the random numbers.
        rounds: schedules to try.
        hot, cold: temperature at the first and last round, as a share of the objective.
        preemptive: admissions may look ahead less far than to the end, so that somebody may have to be preempted.
    """
    old_order, old_knobs = order.copy(), knobs.copy()
    longest = 1
    for r in range(request.shape[0]):
        longest = max(longest, request[r, 1])
    shortest = 1 if preemptive else longest
    for k in range(rounds):
        temperature = value[1] * hot * (cold / hot) ** (k / rounds)
        _move(order, knobs, seed, shortest, longest)
        allowed = value[0] - temperature * np.log(1.0 - _random(seed))
        new = decode(
            request, arrival, order, knobs, engine, theta, term_end, state, room, residue, counter, events, allowed
        )
        if new > allowed:
            order[:] = old_order
            knobs[:] = old_knobs
            continue
        value[0] = new
        old_order[:] = order
        old_knobs[:] = knobs
        if new < value[1]:
            value[1] = new
            best_order[:] = order
            best_knobs[:] = knobs


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
        n = len(instance)
        self.instance = instance
        self.preemptive = variant == "preemptive"
        requests = instance.requests
        self._request = np.array([(r.num_prompt_tokens, r.num_output_tokens) for r in requests], dtype=np.int64)
        self._arrival = np.array([r.arrival_s for r in requests])
        budget = instance.max_num_batched_tokens
        self._engine = np.array(
            [
                instance.num_blocks, instance.block_size, budget, min(instance.max_num_seqs, budget),
                instance.cost.floor_context, objective == "latency", self.preemptive,
            ],
            dtype=np.int64,
        )  # fmt: skip
        self._cost = (instance.cost.theta, instance.cost.term_end)
        self._scratch = (
            np.zeros((n, decoder.STATE_COLUMNS), np.int64),
            np.zeros((4, n + 1), np.int64),
            np.zeros(instance.block_size, np.int64),
            np.zeros(decoder.NUM_COUNTERS + 4, np.int64),
        )
        self._nothing = np.zeros((0, 4), np.int64)
        self._seed = np.array([seed * 2_654_435_761 + 88_172_645_463_325_252], dtype=np.uint64)
        self.num_schedules = 0
        self._start(stop)

    def _decode(self, order: Ints, knobs: Ints, events: Ints, stop_at: float = np.inf) -> float:
        self.num_schedules += 1
        return float(
            decode(
                self._request, self._arrival, order, knobs, self._engine, *self._cost, *self._scratch, events, stop_at
            )
        )

    def _lists(self) -> list[Ints]:
        """Priority lists to start from."""
        prompt, output = self._request.T
        keys = (np.arange(len(prompt)), output, -output, prompt + output, -(prompt + output), prompt, output - prompt)
        return [np.lexsort((np.arange(len(prompt)), key)).astype(np.int64) for key in keys]

    def _start(self, stop: Callable[[], bool]) -> None:
        longest = int(self._request[:, 1].max())
        horizons = (
            [longest] if not self.preemptive else sorted({1, 2, 4, 8, 16, longest // 4, longest // 2, longest})[::-1]
        )
        best = np.inf
        for order, horizon, gap in itertools.product(self._lists(), horizons, (0, 4, 8)):
            knobs = np.array([max(horizon, 1), gap, 8, decoder.LAST_IN_LIST, 0], dtype=np.int64)
            # Admitting with little foresight may preempt for ever: nothing much worse is followed to its end.
            value = self._decode(order, knobs, self._nothing, 2.0 * best)
            if value < best or not hasattr(self, "_order"):
                best, self._order, self._knobs = value, order.copy(), knobs
            if stop():
                break
        self._best_order, self._best_knobs = self._order.copy(), self._knobs.copy()
        self._value = np.array([best, best])

    @property
    def value(self) -> float:
        """Objective of the best schedule: last finish, or sum of finish times, seconds; infinite if there is none."""
        return float(self._value[1])

    def advance(self, rounds: int, hot: float = 0.003, cold: float = 0.0001) -> None:
        """Anneal for some rounds, from the best schedule so far."""
        self._order[:], self._knobs[:], self._value[0] = self._best_order, self._best_knobs, self._value[1]
        self.num_schedules += rounds
        anneal(
            self._request, self._arrival, self._engine, *self._cost, *self._scratch, self._nothing, self._order,
            self._knobs, self._best_order, self._best_knobs, self._value, self._seed, rounds, hot, cold, self.preemptive,
        )  # fmt: skip

    def plan(self) -> Plan:
        """The best schedule as a plan."""
        self._decode(self._best_order, self._best_knobs, self._nothing)
        events = np.zeros((int(self._scratch[3][decoder.NUM_EVENTS]), 4), np.int64)
        self._decode(self._best_order, self._best_knobs, events)
        return self._plan_of(events.tolist(), int(self._scratch[3][decoder.STEP]))

    def _plan_of(self, events: list[list[int]], num_batches: int) -> Plan:
        """Replay the events: who decodes when follows from them."""
        left = self._request[:, 1].tolist()
        known = self._request[:, 0].tolist()
        chunked = [0] * len(left)
        runs: dict[int, None] = {}
        steps: list[Step] = []
        at = 0
        for batch_number in range(num_batches):
            joiners, preempted = [], []
            while at < len(events) and events[at][0] == batch_number:
                _, kind, r, tokens = events[at]
                at += 1
                if kind == decoder.WAIT:
                    steps.append(Step(()))
                elif kind == decoder.DROP:
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
