"""A controller's estimates of output lengths, from those of finished requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from infermax_gym.agents.controller_layout import (
    KNOB_LOG_GENERATED,
    KNOB_LOG_REMAINING,
    KNOB_MEMORY_TIME,
    KNOB_OVERDUE,
)
from infermax_gym.vllm.columns import (
    ARRIVAL_S,
    GENERATED,
    GROUP,
    INDEX,
    KNOWN,
    LOG_FIRST_PREDICTION,
    LOG_GENERATED,
    LOG_ONE_MORE,
    PREDICTION,
    Table,
)
from infermax_gym.vllm.keys import each
from infermax_gym.vllm.knobs import KnobWeights
from infermax_gym.vllm.requests import Seen

_GROUP_WEIGHT = 4.0
_NUM_BUCKETS = 24


def expected_remaining(mean: float, spread: float, generated: int) -> float:
    """Mean remaining tokens of a log-normal length that is known to exceed `generated`, at least 1."""
    if generated < 1.0:
        return max(math.exp(mean + 0.5 * spread * spread), 1.0)
    at = (math.log(generated) - mean) / spread
    beyond = 0.5 * math.erfc(at / math.sqrt(2.0))
    if beyond < 1e-9:
        return max(generated * spread / at, 1.0)
    above = 0.5 * math.erfc((at - spread) / math.sqrt(2.0))
    return max(math.exp(mean + 0.5 * spread * spread) * above / beyond - generated, 1.0)


def each_expected_remaining(mean: Table, spread: Table, generated: Table, log_generated: Table) -> Table:
    """`expected_remaining` of (k,) requests, bit for bit; `log_generated` matters where `generated` is at least 1."""
    rest = each(math.exp, mean + 0.5 * spread * spread)
    old = np.flatnonzero(generated >= 1.0)
    if len(old) > 0:
        spread, generated = spread[old], generated[old]
        at = (log_generated[old] - mean[old]) / spread
        beyond = 0.5 * each(math.erfc, at / math.sqrt(2.0))
        above = 0.5 * each(math.erfc, (at - spread) / math.sqrt(2.0))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of the form that is not taken
            rest[old] = np.where(beyond < 1e-9, generated * spread / at, rest[old] * above / beyond - generated)
    return np.maximum(rest, 1.0)


class Lengths:
    """Finished output lengths by group, and what they say of those still to come."""

    def __init__(self, weights: KnobWeights) -> None:
        self._weights = weights
        self._totals: dict[int, list[float]] = {0: [0.0, 0.0, 0.0]}
        self._setting: tuple[Sequence[float], float] | None = None
        self._moments: dict[int, tuple[float, float]] = {}
        self._fresh_rest: dict[int, float] = {}

    def group(self, entry: Seen) -> int:
        """From 1: requests whose prompts share a power of two, and a class where classes are known."""
        bucket = min(entry.prompt.bit_length() - 1, _NUM_BUCKETS - 1)
        if self._weights.classes:
            bucket = bucket // 2 + _NUM_BUCKETS * entry.slo_class
        return 1 + bucket

    def learn(self, finished: Iterable[tuple[int, int]]) -> None:
        """Count finished requests: group and output tokens of each, in order of arrival."""
        for group, num_output_tokens in finished:
            log_output = math.log(num_output_tokens)
            for g in (0, group):
                totals = self._totals.setdefault(g, [0.0, 0.0, 0.0])
                totals[0] += 1.0
                totals[1] += log_output
                totals[2] += log_output * log_output

    def overall(self) -> tuple[float, float]:
        """Mean and variance of ln(output) over everything finished, drawn to the prior."""
        prior_log, prior_spread, prior_weight = self._weights.prior
        count, total, squares = self._totals[0]
        weight = count + prior_weight
        mean = (total + prior_weight * prior_log) / weight
        second = squares + prior_weight * (prior_spread * prior_spread + prior_log * prior_log)
        return mean, max(second / weight - mean * mean, 0.01)

    def set(self, knobs: Sequence[float], clock_s: float) -> None:
        """Estimate with these knobs, and with what is known now, until the next setting."""
        mean, variance = self.overall()
        self._setting = (knobs, clock_s)
        self._fresh_rest.clear()
        self._moments = {g: self._group_moments(g, mean, variance) for g in self._totals}
        self._moments[0] = self._group_moments(-1, mean, variance)  # of groups without anybody

    def estimate_waiting(self, table: Table) -> None:
        """`estimate` for everybody who waits, bit for bit.

        Args:
            table: of the queue; predictions and indices are written to it.
        """
        if self._setting is None or table.shape[1] == 0:
            return
        a, clock_s = self._setting
        table[PREDICTION], table[INDEX] = self._estimates(
            table[GENERATED],
            table[KNOWN],
            table[GROUP],
            table[LOG_FIRST_PREDICTION],
            table[LOG_GENERATED],
            table[LOG_ONE_MORE],
        )
        overdue = np.maximum(clock_s - table[ARRIVAL_S], 0.0) / 30.0
        table[INDEX] -= a[KNOB_OVERDUE] * (overdue * overdue)

    def estimate_running(self, running: Sequence[Seen], known: Table, generated: Table) -> None:
        """`estimate` for everybody who runs, bit for bit.

        Args:
            running: the requests.
            known: (running,) prompt and output tokens.
            generated: (running,) output tokens.
        """
        if self._setting is None or not running:
            return
        firsts = [math.log(e.first_prediction) if e.first_prediction > 0.0 else math.nan for e in running]
        predictions, indices = self._estimates(
            generated,
            known,
            np.array([entry.group for entry in running], np.float64),
            np.array(firsts),
            each(math.log, np.maximum(generated, 1.0)),
            each(math.log, 1.0 + generated),
        )
        for entry, prediction, index in zip(running, predictions.tolist(), indices.tolist(), strict=True):
            entry.prediction, entry.index = prediction, index

    def _estimates(
        self, generated: Table, known: Table, group: Table, log_first: Table, log_generated: Table, log_one_more: Table
    ) -> tuple[Table, Table]:
        """Predicted lengths, and the nonlinear part of the keys but for what depends on waiting."""
        assert self._setting is not None
        a, _ = self._setting
        mean, variance = self._moments_of(group)
        spread = np.sqrt(variance)
        sigma = self._weights.sigma
        if sigma > 0.0:
            told = ~np.isnan(log_first)
            precision = 1.0 / variance + 1.0 / (sigma * sigma)
            guess = log_first + 0.5 * (sigma * sigma)
            mean = np.where(told, (mean / variance + guess / (sigma * sigma)) / precision, mean)
            spread = np.where(told, np.sqrt(1.0 / precision), spread)
        rest = each_expected_remaining(mean, spread, generated, log_generated)
        index = a[KNOB_LOG_GENERATED] * log_one_more + a[KNOB_LOG_REMAINING] * each(math.log, 1.0 + rest)
        index += a[KNOB_MEMORY_TIME] * rest * (known + 0.5 * rest) / 1e6
        return generated + rest, index

    def _moments_of(self, group: Table) -> tuple[Table, Table]:
        """Mean and variance of ln(output) in the group of each request."""
        numbers = group.astype(np.int64)
        moments = np.empty((int(numbers.max()) + 1, 2))
        moments[:] = self._moments[0]
        for g, own in self._moments.items():
            if g < len(moments):
                moments[g] = own
        return moments[numbers, 0], moments[numbers, 1]

    def estimate(self, entry: Seen) -> None:
        """Estimate a request's length, and set the nonlinear part of its keys."""
        if self._setting is None:
            return
        a, clock_s = self._setting
        generated = entry.generated
        rest = self._rest(entry, generated)
        entry.prediction = generated + rest
        known = entry.prompt + generated
        log_generated = math.log(1.0 + generated) if generated else 0.0
        index = a[KNOB_LOG_GENERATED] * log_generated + a[KNOB_LOG_REMAINING] * math.log(1.0 + rest)
        index += a[KNOB_MEMORY_TIME] * rest * (known + 0.5 * rest) / 1e6
        if entry.waits:
            overdue = max(clock_s - entry.arrival_s, 0.0) / 30.0
            index -= a[KNOB_OVERDUE] * (overdue * overdue)
        entry.index = index

    def _rest(self, entry: Seen, generated: int) -> float:
        mean, variance = self._moments.get(entry.group, self._moments[0])
        sigma = self._weights.sigma
        if sigma > 0.0 and entry.first_prediction > 0.0:
            precision = 1.0 / variance + 1.0 / (sigma * sigma)
            guess = math.log(entry.first_prediction) + 0.5 * (sigma * sigma)
            mean = (mean / variance + guess / (sigma * sigma)) / precision
            return expected_remaining(mean, math.sqrt(1.0 / precision), generated)
        if generated > 0:
            return expected_remaining(mean, math.sqrt(variance), generated)
        rest = self._fresh_rest.get(entry.group)
        if rest is None:
            rest = self._fresh_rest[entry.group] = expected_remaining(mean, math.sqrt(variance), 0)
        return rest

    def _group_moments(self, g: int, mean: float, variance: float) -> tuple[float, float]:
        """Mean and variance of ln(output) in a group, drawn to those overall."""
        count, total, squares = self._totals.get(g, (0.0, 0.0, 0.0))
        weight = count + _GROUP_WEIGHT
        own = (total + _GROUP_WEIGHT * mean) / weight
        second = squares + _GROUP_WEIGHT * (variance + mean * mean)
        return own, max(second / weight - own * own, 0.01)
