"""A controller's estimates of output lengths, from those of finished requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from infermax_gym.agents.controller_layout import (
    KNOB_LOG_GENERATED,
    KNOB_LOG_REMAINING,
    KNOB_MEMORY_TIME,
    KNOB_OVERDUE,
)
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
