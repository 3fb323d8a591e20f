"""What the agent sees of requests: the waiting and running slots, filled without scanning the queue.

Waiting slots: the first half (of an odd number the larger half) holds the smallest queue keys in order, the rest the
oldest requests that are not among them. Equal keys and equal arrivals stand in order of the workload, except among the
smallest keys where the queue's tournament tree decides (of two equal keys the one that was found first).
Running slots: the first half (likewise) holds the end of the running list, last first (the newest, as most engines
evict), the rest the best victims by the stated key: the largest victim key, or the fewest processed tokens; of equal
ones the earlier in the running list. Requests admitted in this turn stand behind all others, last first.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.keys import processed, victim_score
from infermax_gym.engine.kernel.memory import queue_tree, requests, running, sort_ids, sort_keys
from infermax_gym.engine.policy import Reserve
from infermax_gym.envs.scheduling.lane import ADMITTED, needs_of, scratch_ids, scratch_keys, slots_of
from infermax_gym.envs.scheduling.legal import admission_blocks


@inlined
def _insert(ids: Any, keys: Any, count: int, most: int, number: int, key: float) -> Any:
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
def smallest_keys(s: Any, v: Any, most: int, out: Any) -> Any:
    """The requests with the smallest fixed queue keys, in order, into `out`; returns how many.

    Best-first descent of the tournament tree: only the `most` best open subtrees are ever kept.
    """
    req = requests(s)
    tree = queue_tree(s)
    nodes = scratch_ids(v)
    keys = scratch_keys(v)
    found = 0
    if tree[1] < 0:
        return 0
    nodes[0] = 1
    keys[0] = req[tree[1]].key
    count = 1
    while count > 0 and found < most:
        node = nodes[0]
        winner = tree[node]
        count -= 1
        for i in range(count):
            nodes[i] = nodes[i + 1]
            keys[i] = keys[i + 1]
        out[found] = winner
        found += 1
        while node < s.num_leaves:
            left, right = 2 * node, 2 * node + 1
            node, other = (left, right) if tree[left] == winner else (right, left)
            if tree[other] >= 0:
                count = _insert(nodes, keys, count, most, other, req[tree[other]].key)
    return found


@compiled
def _add_oldest(s: Any, v: Any, found: int, most: int, out: Any) -> Any:
    """Append the oldest waiting requests that are not in `out` yet, up to `most` entries."""
    tree = queue_tree(s)
    first = found
    stack = scratch_ids(v)
    stack[0] = 1
    depth = 1
    while depth > 0 and found < most:
        depth -= 1
        node = stack[depth]
        if tree[node] < 0:
            continue
        if node < s.num_leaves:
            stack[depth] = 2 * node + 1
            stack[depth + 1] = 2 * node
            depth += 2
            continue
        known = False
        for i in range(first):
            known = known or out[i] == tree[node]
        if not known:
            out[found] = tree[node]
            found += 1
    return found


@compiled
def show_waiting(s: Any, v: Any) -> None:
    """Fill the waiting slots, and note what admissions would take."""
    if _is_shown(s, v):
        return
    slots = slots_of(v)
    needs = needs_of(v)
    most = v.num_waiting_slots
    found = 0
    if s.num_waiting > 0:
        found = smallest_keys(s, v, (most + 1) // 2, slots)
        found = _add_oldest(s, v, found, most, slots)
    v.num_waiting_shown = found
    for i in range(found):
        needs[i] = admission_blocks(s, slots[i])
    for i in range(found, most):
        slots[i] = -1


@inlined
def _is_shown(s: Any, v: Any) -> Any:
    """Whether the waiting slots show the queue as it is; notes what it depends on.

    Keys of waiting requests stand still, and who joins the queue arrives or is preempted; of two queues with as many
    arrivals and preemptions, and as many requests, nobody has left either. Only estimates of whole lengths change
    what the admission of a waiting request takes.
    """
    known = v.shown_arrivals == s.next_arrival and v.shown_preemptions == s.num_preemptions
    known = known and v.shown_waiting == s.num_waiting
    v.shown_arrivals = s.next_arrival
    v.shown_preemptions = s.num_preemptions
    v.shown_waiting = s.num_waiting
    return known and s.reserve != Reserve.TOTAL_ESTIMATE


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
                count = _insert(ids, keys, count, most, position, key)
    for i in range(count):
        slots[first + i] = ids[i]
    return count
