"""The order of the running list before and after a decision."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import batch_of, requests, running, sort_keys
from infermax_gym.engine.kernel.evict import guarded
from infermax_gym.engine.kernel.keys import processed, queue_score
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


@inlined
def relist(s: Any) -> None:
    """For run orders that follow the batch: those left out, by arrival, then the batch as it was built."""
    req = requests(s)
    run = running(s)
    batch = batch_of(s)
    order = s.run_order
    if order != RunOrder.BATCH and order != RunOrder.PROCESSED_DESC:
        return
    if s.batch_size == s.num_running and s.num_prefills == 0:
        return  # decodes alone, granted in list order
    count = 0
    for i in range(s.num_running):
        r = run[i]
        if req[r].batch_slot < 0:
            run[count] = r
            count += 1
    _sort_by_arrival(s, count)
    for i in range(s.batch_size):
        run[count + i] = batch[i, 0]
    s.run_unsorted = 1
