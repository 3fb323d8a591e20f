"""The order of the running list before and after a decision."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.evict import guarded
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.keys import processed, queue_score, token_deadline
from infermax_gym.engine.kernel.memory import batch_of, requests, running, sort_ids, sort_keys
from infermax_gym.engine.policy import RunOrder


@compiled
def _sort_by_arrival(s: Any, count: int) -> None:
    """Insertion sort of the first `count` running requests by number (they are nearly sorted)."""
    run = running(s)
    for i in range(1, count):
        r = run[i]
        j = i
        while j > 0 and run[j - 1] > r:
            run[j] = run[j - 1]
            j -= 1
        run[j] = r


@compiled
def _sort_by_keys(s: Any) -> None:
    """Stable insertion sort of the running list by `keys`, ascending."""
    run = running(s)
    keys = sort_keys(s)
    for i in range(1, s.num_running):
        key = keys[i]
        if keys[i - 1] <= key:
            continue
        r = run[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            run[j] = run[j - 1]
            j -= 1
        keys[j] = key
        run[j] = r


@inlined
def order_running(s: Any) -> None:
    """Put the running list in the policy's order."""
    run = running(s)
    keys = sort_keys(s)
    order = s.run_order
    if order == RunOrder.ARRIVAL or guarded(s):
        if s.run_unsorted:
            _sort_by_arrival(s, s.num_running)
            s.run_unsorted = 0
    elif order == RunOrder.PROCESSED_DESC or order == RunOrder.QUEUE_KEY:
        for i in range(s.num_running):
            r = run[i]
            keys[i] = -float(processed(s, r)) if order == RunOrder.PROCESSED_DESC else queue_score(s, r)
        _sort_by_keys(s)
        s.run_unsorted = 1
    elif order == RunOrder.TOKEN_DEADLINE:
        disband(s)
        req = requests(s)
        for i in range(s.num_running):
            q = req[run[i]]
            keys[i] = q.arrival_s if q.in_prefill else token_deadline(s, q)
        _sort_by_keys(s)
        s.run_unsorted = 1


@inlined
def relist(s: Any) -> None:
    """For run orders that follow the batch: those left out, by arrival, then the batch as it was built."""
    order = s.run_order
    if guarded(s) or (order != RunOrder.BATCH and order != RunOrder.PROCESSED_DESC):
        return
    # A batch of all running requests, decodes only, has the list's order already, unless those due were served first.
    if s.num_prefills > 0 or s.num_decodes != s.num_running or s.hold_iterations > 0.0:
        _follow_batch(s)


@compiled
def _follow_batch(s: Any) -> None:
    req = requests(s)
    run = running(s)
    batch = batch_of(s)
    ids = sort_ids(s)
    num_left_out = 0
    num_grouped = 0
    for i in range(s.num_running):
        q = req[run[i]]
        if q.grouped and s.group_runs:
            ids[num_grouped] = run[i]
            num_grouped += 1
        elif q.batch_slot < 0:
            run[num_left_out] = run[i]
            num_left_out += 1
    _sort_by_arrival(s, num_left_out)
    position = num_left_out
    for i in range(s.batch_size + 1):
        if s.group_runs and i == s.group_slot:
            for j in range(num_grouped):
                run[position] = ids[j]
                position += 1
        if i < s.batch_size:
            run[position] = batch[i, 0]
            position += 1
    s.run_unsorted = 1
