"""Looking ahead: the replica at which the next request would finish first."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.memory import kind_of, sandboxes_of, seen_by
from infermax_gym.cluster.kernel.sandbox import copy_alive
from infermax_gym.cluster.kernel.signals import PREFILL_TOKENS
from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.memory import requests
from infermax_gym.engine.kernel.run import LOG_FULL, STUCK, run
from infermax_gym.engine.layout import FINISHED

_ITERATIONS_AT_ONCE = 64


@compiled
def _finish_s(f: Any, i: int, q: Any, until_s: float) -> Any:
    """When request q would finish at replica i; inf if it would not before a later iteration than that of `until_s`."""
    k = copy_alive(f, i, q)
    t = sandboxes_of(f)[kind_of(f)[i]]
    req = requests(t)
    while req[k].place != FINISHED:
        if t.clock_s >= until_s:
            return math.inf
        code = run(t, _ITERATIONS_AT_ONCE, until_s, True)
        if code == LOG_FULL:
            t.num_gaps = 0
        elif code == STUCK:
            return math.inf
    return req[k].finish_s


@compiled
def ahead_rule(f: Any, q: Any) -> Any:
    """The candidate where request q would finish first; beyond `horizon_s`, the one with the fewest prefill tokens."""
    seen = seen_by(f)
    horizon_s = q.arrival_s + f.horizon_s
    earliest_s = math.inf
    best = -1
    fallback = -1
    i = f.last_chosen
    for _ in range(f.num_replicas):
        i = i + 1 if i + 1 < f.num_replicas else 0
        if not is_candidate(f, i, q):
            continue
        if fallback < 0 or seen[PREFILL_TOKENS, i] < seen[PREFILL_TOKENS, fallback]:
            fallback = i
        finish_s = _finish_s(f, i, q, min(horizon_s, earliest_s))
        if finish_s < earliest_s:
            best = i
            earliest_s = finish_s
    return best if best >= 0 else fallback
