"""Which replica gets the request: the scores of `infermax_gym.cluster.router.Score`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from infermax_gym.cluster.kernel.ahead import ahead_rule
from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.memory import (
    NUM_SIGNALS,
    bound_of,
    constants_of,
    draws_of,
    matched_of,
    seen_by,
    session_of,
)
from infermax_gym.cluster.kernel.prefixes import match
from infermax_gym.cluster.kernel.rules import deficit_rule, e2_rule, normalised_rule, prefix_rule
from infermax_gym.cluster.kernel.signals import (
    FREE_KV,
    PREFILL_TOKENS,
    RELEASE_RATE,
    RUNNING,
    WAITING,
    WAITING_TOKENS,
)
from infermax_gym.cluster.router import CONSTANTS, MOST_CHOICES, Score
from infermax_gym.compile import compiled, inlined

KV_TOKENS = CONSTANTS.index("kv_tokens")
PREFILL_RATE = CONSTANTS.index("prefill_tokens_per_s")


@inlined
def _weighted(f: Any, seen: Any, i: int) -> Any:
    total = 0.0
    for k in range(NUM_SIGNALS):
        total += f.weights[k] * seen[k, i]
    return total


@inlined
def start_delay(seen: Any, constants: Any, i: int, prompt: int) -> Any:
    """SAL's estimate: seconds until the queue's prefills are through and enough KV is free, whichever is later."""
    prefill_rate = constants[PREFILL_RATE, i]
    delay_s = seen[PREFILL_TOKENS, i] / prefill_rate
    lacking = prompt - seen[FREE_KV, i]
    if lacking > 0.0:
        rate = seen[RELEASE_RATE, i] if seen[RELEASE_RATE, i] > 0.0 else prefill_rate
        delay_s = max(delay_s, lacking / rate)
    return delay_s


@inlined
def _score(f: Any, seen: Any, constants: Any, matched: Any, i: int, prompt: int) -> Any:
    there = seen[WAITING, i] + seen[RUNNING, i]
    if f.score == Score.WEIGHTED:
        return _weighted(f, seen, i)
    if f.score == Score.KV_SHARE:
        capacity = constants[KV_TOKENS, i]
        return (capacity - seen[FREE_KV, i] + seen[WAITING_TOKENS, i]) / capacity
    if f.score == Score.FREENESS:
        return (seen[WAITING_TOKENS, i] - seen[FREE_KV, i]) / there if there > 0.0 else -math.inf
    if f.score == Score.PREFILL_BY_BATCH:
        return (seen[PREFILL_TOKENS, i] + prompt - matched[i]) * there
    return start_delay(seen, constants, i, prompt)


@compiled
def _best_of_all(f: Any, q: Any) -> Any:
    """The candidate with the smallest score, the first in line after the last chosen one on ties, or -1."""
    seen = seen_by(f)
    constants = constants_of(f)
    matched = matched_of(f)
    best = -1
    best_score = math.inf
    i = f.last_chosen
    for _ in range(f.num_replicas):
        i += 1
        if i == f.num_replicas:
            i = 0
        if is_candidate(f, i, q):
            if not f.needs_signals:
                return i
            score = _score(f, seen, constants, matched, i, q.prompt)
            if best < 0 or score < best_score:
                best = i
                best_score = score
    return best


@inlined
def _count_candidates(f: Any, q: Any) -> Any:
    if q.prompt + q.output <= f.easy_tokens:
        return f.num_replicas
    count = 0
    for i in range(f.num_replicas):
        count += is_candidate(f, i, q)
    return count


@inlined
def _candidate(f: Any, q: Any, number: int) -> Any:
    """The candidate with `number` candidates before it."""
    if q.prompt + q.output <= f.easy_tokens:
        return number
    i = 0
    while True:
        if is_candidate(f, i, q):
            if number == 0:
                return i
            number -= 1
        i += 1


@compiled
def _best_of_sample(f: Any, q: Any, row: int) -> Any:
    """The best of `num_choices` different candidates drawn at random, the first drawn on ties, or -1."""
    seen = seen_by(f)
    constants = constants_of(f)
    matched = matched_of(f)
    draws = draws_of(f)
    taken = np.empty(MOST_CHOICES, np.int64)  # candidate numbers, ascending
    num_candidates = _count_candidates(f, q)
    best = -1
    best_score = math.inf
    for k in range(min(f.num_choices, num_candidates)):
        number = int(draws[row, k] * (num_candidates - k))
        at = 0
        while at < k and taken[at] <= number:
            number += 1
            at += 1
        for later in range(k, at, -1):
            taken[later] = taken[later - 1]
        taken[at] = number
        i = _candidate(f, q, number)
        score = _score(f, seen, constants, matched, i, q.prompt)
        if best < 0 or score < best_score:
            best = i
            best_score = score
    return best


@inlined
def match_next(f: Any, q: Any) -> None:
    """Find out what of the next request, q, is presumably cached where."""
    if f.num_shared > 0:
        match(f, q.number, q.prompt)


@inlined
def _of_its_session(f: Any, q: Any) -> Any:
    """Where the last request of q's session went, if that may still bind it and q fits there; else -1."""
    last = bound_of(f)[session_of(f)[q.number]]
    i = int(last[1])
    return i if i >= 0 and q.arrival_s - last[0] <= f.sticky_s and is_candidate(f, i, q) else -1


@inlined
def choose(f: Any, q: Any, row: int) -> Any:
    """The replica for request q, the next one, which stands in `row` of the arrivals; -1 if none can hold it."""
    match_next(f, q)
    if f.sticky_s > 0.0:
        bound = _of_its_session(f, q)
        if bound >= 0:
            return bound
    if f.score == Score.PREFIX:
        return prefix_rule(f, q)
    if f.score == Score.NORMALISED:
        return normalised_rule(f, q)
    if f.score == Score.E2:
        return e2_rule(f, q)
    if f.score == Score.DEFICIT:
        return deficit_rule(f, q)
    if f.score == Score.AHEAD:
        return ahead_rule(f, q)
    return _best_of_all(f, q) if f.num_choices == 0 else _best_of_sample(f, q, row)
