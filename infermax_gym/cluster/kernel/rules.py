"""Routers that are a rule over all candidates, not a score of each by itself: `infermax_gym.cluster.router.Score`.

Each takes the record of a fleet and the next request, whose matches are known, and returns a replica, or -1 if none can
hold the request. Ties go to the first in line after the replica chosen last.
"""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.memory import charged_to, constants_of, matched_of, recent_tokens_of, seen_by, sent_to
from infermax_gym.cluster.kernel.recent_load import forget_before
from infermax_gym.cluster.kernel.signals import FREE_KV, RUNNING, WAITING
from infermax_gym.cluster.router import CONSTANTS
from infermax_gym.compile import compiled, inlined

KV_TOKENS = CONSTANTS.index("kv_tokens")
PREFILL_RATE = CONSTANTS.index("prefill_tokens_per_s")


@inlined
def _next(f: Any, i: int) -> Any:
    """The replica after i, around."""
    return i + 1 if i + 1 < f.num_replicas else 0


@compiled
def prefix_rule(f: Any, q: Any) -> Any:
    """The emptiest replica if loads differ too much, else the longest match, else who was sent least; -1 for nobody.

    Each of them is the first in line after the last chosen one on ties.
    """
    seen = seen_by(f)
    matched = matched_of(f)
    sent = sent_to(f)
    capacity = constants_of(f)[KV_TOKENS]
    emptiest = -1
    longest = -1
    smallest = -1
    least = 0.0
    most = 0.0
    least_sent = 0.0
    i = f.last_chosen
    for _ in range(f.num_replicas):
        i = _next(f, i)
        if not is_candidate(f, i, q):
            continue
        there = seen[WAITING, i] + seen[RUNNING, i]
        kept = min(float(sent[i]), capacity[i])
        if emptiest < 0 or there < least:
            emptiest = i
            least = there
        if longest < 0 or matched[i] > matched[longest]:
            longest = i
        if smallest < 0 or kept < least_sent:
            smallest = i
            least_sent = kept
        most = max(most, there)
    if most - least > f.most_difference and most > f.most_ratio * least:
        return emptiest
    if longest >= 0 and matched[longest] > f.least_match * q.prompt:
        return longest
    return smallest


@compiled
def normalised_rule(f: Any, q: Any) -> Any:
    """The largest weighted sum of three shares: of the prompt that matches, of the way to the emptiest queue, of KV."""
    seen = seen_by(f)
    capacity = constants_of(f)[KV_TOKENS]
    matched = matched_of(f)
    least = math.inf
    most = -math.inf
    for i in range(f.num_replicas):
        if is_candidate(f, i, q):
            least = min(least, seen[WAITING, i])
            most = max(most, seen[WAITING, i])
    best = -1
    best_total = 0.0
    i = f.last_chosen
    for _ in range(f.num_replicas):
        i = _next(f, i)
        if not is_candidate(f, i, q):
            continue
        prefix = matched[i] / q.prompt
        queue = (most - seen[WAITING, i]) / (most - least) if most > least else 1.0
        kv = seen[FREE_KV, i] / capacity[i]
        total = f.share_weights[0] * prefix + f.share_weights[1] * queue + f.share_weights[2] * kv
        if best < 0 or total > best_total:
            best = i
            best_total = total
    return best


@compiled
def e2_rule(f: Any, q: Any) -> Any:
    """The lightest of those with the longest match if that is over half of the prompt, else the cheapest of all."""
    constants = constants_of(f)
    matched = matched_of(f)
    sent = sent_to(f)
    forget_before(f, q.arrival_s - f.recent_s)
    recent_tokens = recent_tokens_of(f)
    longest = 0
    for i in range(f.num_replicas):
        if is_candidate(f, i, q):
            longest = max(longest, matched[i])
    exploits = longest > q.prompt - longest
    best = -1
    least_s = 0.0
    i = f.last_chosen
    for _ in range(f.num_replicas):
        i = _next(f, i)
        if not is_candidate(f, i, q) or (exploits and matched[i] < longest):
            continue
        cost = float(recent_tokens[i])
        if not exploits:
            new = q.prompt - matched[i]
            capacity = constants[KV_TOKENS, i]
            cost += new + max(0.0, min(float(sent[i]), capacity) + new - capacity)
        cost_s = cost / constants[PREFILL_RATE, i]
        if best < 0 or cost_s < least_s:
            best = i
            least_s = cost_s
    return best


@compiled
def deficit_rule(f: Any, q: Any) -> Any:
    """The longest match among the replicas where the tenant has credit left."""
    matched = matched_of(f)
    charged = charged_to(f)[q.tenant]
    least = -1
    for i in range(f.num_replicas):
        if is_candidate(f, i, q) and (least < 0 or charged[i] < least):
            least = charged[i]
    granted = f.quantum_tokens * (1 + least // f.quantum_tokens)
    best = -1
    i = f.last_chosen
    for _ in range(f.num_replicas):
        i = _next(f, i)
        if is_candidate(f, i, q) and charged[i] < granted and (best < 0 or matched[i] > matched[best]):
            best = i
    return best
