"""The invariants of `infermax_gym.engine.invariants`, all at once: do they hold, now or after every iteration?

Compiled, so that whole traces can be run and checked. It only says yes or no; the checker in Python then finds out
what is wrong. Prefix caches are left to that one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.kernel.run import LIMIT, run
from infermax_gym.engine.layout import FINISHED, FUTURE, REJECTED, RUNNING, WAITING

BROKEN = -1  # an invariant does not hold


@compiled
def run_checked(s: Any, granted: Any, most_stalled: int, until_s: float) -> Any:
    """`run` without fast-forward, the invariants checked after every iteration; what it returns, or BROKEN.

    Args:
        s: the engine, without a prefix cache.
        granted: (1,) int64 tokens granted so far, kept up to date.
        most_stalled: iterations in a row without an output token that invariant 9 allows.
        until_s: as in `run`.
    """
    while True:
        num_before = s.num_iterations
        last_clock_s = s.clock_s
        last_running = s.num_running
        code = run(s, 1, until_s, False)
        if s.num_iterations > num_before:
            granted[0] += s.num_tokens
            disband(s)
            kept = s.num_tokens <= s.token_budget and s.stalled_iterations <= most_stalled
            if not kept or not all_in_order(s, granted[0], last_clock_s, last_running):
                return BROKEN
        if code != LIMIT or s.clock_s >= until_s:
            return code


@compiled
def all_in_order(s: Any, granted: int, last_clock_s: float, last_running: int) -> Any:
    """Whether invariants 1 to 8 hold.

    Args:
        s: the engine, its group disbanded, without a prefix cache.
        granted: tokens granted so far, as invariant 7 counts them.
        last_clock_s: the clock when it was checked last.
        last_running: how many were running then.
    """
    req = requests(s)
    counts = np.zeros(5, np.int64)
    held = 0
    computed = 0
    waiting_tokens = 0
    unstarted = 0
    prefills = 0
    for r in range(s.num_requests):
        q = req[r]
        counts[q.place] += 1
        held += q.held
        computed += q.computed
        known = q.prompt + q.generated
        if q.generated > q.output or q.computed > known:
            return False
        present = q.place == WAITING or q.place == RUNNING
        unstarted += present and q.generated == 0
        if q.place == WAITING:
            waiting_tokens += known
        if q.place == RUNNING:
            prefills += q.in_prefill
            if q.held * s.block_size < q.computed or (not q.in_prefill and known - q.computed != 1):
                return False
        elif q.held != 0:
            return False
        if q.place == FINISHED and (q.generated != q.output or q.first_token_s > q.finish_s):
            return False
    return (
        counts[WAITING] == s.num_waiting
        and counts[RUNNING] == s.num_running
        and counts[FINISHED] == s.num_finished
        and counts[REJECTED] == s.num_rejected
        and counts[FUTURE] == s.num_requests - s.next_arrival
        and waiting_tokens == s.waiting_tokens
        and unstarted == s.num_unstarted
        and prefills == s.num_running_prefills
        and _each_runs_once(s)
        and s.free_blocks + held + s.withheld_blocks == s.num_blocks
        and s.free_blocks >= 0
        and s.num_running <= max(s.max_num_seqs, last_running)
        and s.clock_s >= last_clock_s
        and granted == computed + s.num_recomputed - s.num_cached
    )


@compiled
def _each_runs_once(s: Any) -> Any:
    req = requests(s)
    run = running(s)
    seen = np.zeros(s.num_requests, np.bool_)
    for i in range(s.num_running):
        if seen[run[i]] or req[run[i]].place != RUNNING:
            return False
        seen[run[i]] = True
    return True
