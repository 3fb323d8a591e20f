"""What the agent sees of running requests.

The first half of the running slots (of an odd number the larger half) holds the end of the running list, last first
(the newest, as most engines evict), the rest the best victims by the stated key: the largest victim key, or the fewest
processed tokens; of equal ones the earlier in the running list. Requests admitted in this turn stand behind all others,
last first.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.keys import processed, victim_score
from infermax_gym.engine.kernel.memory import requests, running, sort_ids, sort_keys
from infermax_gym.envs.scheduling.lane import ADMITTED, slots_of


@inlined
def insert(ids: Any, keys: Any, count: int, most: int, number: int, key: float) -> Any:
    """Insert into the `count` smallest keys found so far, in order, at most `most`; returns the new count."""
    if count == most and keys[count - 1] <= key:
        return count
    at = count if count < most else count - 1
    while at > 0 and keys[at - 1] > key:
        keys[at] = keys[at - 1]
        ids[at] = ids[at - 1]
        at -= 1
    keys[at] = key
    ids[at] = number
    return min(count + 1, most)


@compiled
def show_running(s: Any, v: Any) -> None:
    """Fill the running slots with positions in the running list, those that may be preempted first."""
    req = requests(s)
    run = running(s)
    slots = slots_of(v)
    first = v.num_waiting_slots
    most = v.num_running_slots
    found = 0
    position = s.num_running - 1
    while position >= 0 and found < (most + 1) // 2:
        if not req[run[position]].touched & ADMITTED:
            slots[first + found] = position
            found += 1
        position -= 1
    found += _best_victims(s, v, position + 1, most - found, slots, first + found)
    position = s.num_running - 1
    while position >= 0 and found < most and v.num_admitted > 0:
        if req[run[position]].touched & ADMITTED:
            slots[first + found] = position
            found += 1
        position -= 1
    v.num_running_shown = found
    for i in range(found, most):
        slots[first + i] = -1


@inlined
def _best_victims(s: Any, v: Any, before: int, most: int, slots: Any, first: int) -> Any:
    """The best victims among the first `before` of the running list into slots[first:]; returns how many."""
    req = requests(s)
    run = running(s)
    keys = sort_keys(s)
    ids = sort_ids(s)
    most = min(most, before)
    count = 0
    if most > 0:
        for position in range(before):
            r = run[position]
            if not req[r].touched & ADMITTED:
                key = -victim_score(s, r) if v.by_victim_key else float(processed(s, r))
                count = insert(ids, keys, count, most, position, key)
    for i in range(count):
        slots[first + i] = ids[i]
    return count
