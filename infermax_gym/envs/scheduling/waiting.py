"""The waiting slots, kept up to date as requests join and leave the queue.

The first half (of an odd number the larger half) holds the smallest queue keys in order, the rest the oldest requests
that are not among them. Equal keys and equal arrivals stand in order of the workload, except among the smallest keys
where the queue's tournament tree decides (of two equal keys the one that was found first).

A search of the tree reads a hundred scattered records. So a lane keeps two lists that go on a little beyond the slots:
the smallest keys, as far as no two are equal, and the oldest requests. Whoever joins is inserted, whoever leaves is
taken out, and the tree is searched anew only when a list has become too short, or when the queue has changed in a way
that nobody told.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import queue_tree, requests
from infermax_gym.engine.layout import WAITING
from infermax_gym.engine.policy import Reserve
from infermax_gym.envs.scheduling.lane import (
    SPARE,
    needs_of,
    oldest_of,
    ranked_keys_of,
    ranked_of,
    scratch_ids,
    scratch_keys,
    slots_of,
)
from infermax_gym.envs.scheduling.legal import admission_blocks
from infermax_gym.envs.scheduling.slots import insert


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
                count = insert(nodes, keys, count, most, other, req[tree[other]].key)
    return found


@compiled
def oldest_waiting(s: Any, v: Any, most: int, out: Any) -> Any:
    """The waiting requests that arrived first, in order, into `out`, `most` at most; returns how many."""
    tree = queue_tree(s)
    found = 0
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
        out[found] = tree[node]
        found += 1
    return found


@compiled
def left_queue(v: Any, r: int) -> None:
    """Note that request r, which waited, is admitted."""
    v.listed_waiting -= 1
    v.queue_changed = 1
    ranked, keys, oldest = ranked_of(v), ranked_keys_of(v), oldest_of(v)
    i = 0
    while i < v.num_ranked and ranked[i] != r:
        i += 1
    if i < v.num_ranked:
        v.num_ranked -= 1
        for j in range(i, v.num_ranked):
            ranked[j] = ranked[j + 1]
            keys[j] = keys[j + 1]
    i = 0
    while i < v.num_oldest and oldest[i] != r:
        i += 1
    if i < v.num_oldest:
        v.num_oldest -= 1
        for j in range(i, v.num_oldest):
            oldest[j] = oldest[j + 1]


@compiled
def joined_queue(s: Any, v: Any, r: int) -> None:
    """Note that request r, whose key is set, waits."""
    v.listed_waiting += 1
    v.queue_changed = 1
    _rank(v, r, requests(s)[r].key)
    oldest = oldest_of(v)
    if not v.oldest_is_all and (v.num_oldest == 0 or r > oldest[v.num_oldest - 1]):
        return
    i = v.num_oldest
    if i == oldest.size:
        v.oldest_is_all = 0
        if r > oldest[i - 1]:
            return
        i -= 1
    v.num_oldest = i + 1
    while i > 0 and oldest[i - 1] > r:
        oldest[i] = oldest[i - 1]
        i -= 1
    oldest[i] = r


@inlined
def _rank(v: Any, r: int, key: float) -> None:
    """Insert into the list of smallest keys; it ends where two keys are equal, whose order only the tree knows."""
    ranked, keys = ranked_of(v), ranked_keys_of(v)
    count = v.num_ranked
    if not v.ranked_is_all and (count == 0 or key > keys[count - 1]):
        return
    i = count
    while i > 0 and keys[i - 1] > key:
        i -= 1
    if i > 0 and keys[i - 1] == key:
        v.num_ranked = i - 1
        v.ranked_is_all = 0
        return
    if count == ranked.size:
        v.ranked_is_all = 0
        count -= 1
        if i > count:
            return
    for j in range(count, i, -1):
        ranked[j] = ranked[j - 1]
        keys[j] = keys[j - 1]
    ranked[i] = r
    keys[i] = key
    v.num_ranked = count + 1


@inlined
def _note_arrivals(s: Any, v: Any) -> None:
    req = requests(s)
    for r in range(v.listed_arrivals, s.next_arrival):
        if req[r].place == WAITING:
            joined_queue(s, v, r)
    v.listed_arrivals = s.next_arrival


@inlined
def _forget(s: Any, v: Any) -> None:
    """Whatever the lists say may be wrong: the queue changed behind their back, or keys of waiting requests did."""
    v.num_ranked = 0
    v.ranked_is_all = 0
    v.num_oldest = 0
    v.oldest_is_all = 0
    v.listed_waiting = s.num_waiting
    v.listed_preemptions = s.num_preemptions
    v.queue_changed = 1


@compiled
def _rank_anew(s: Any, v: Any, most: int) -> None:
    req = requests(s)
    ranked, keys = ranked_of(v), ranked_keys_of(v)
    found = smallest_keys(s, v, min(most, ranked.size), ranked)
    for i in range(found):
        keys[i] = req[ranked[i]].key
    # What is not in the list may have the last key, too.
    certain = found if found == s.num_waiting else found - 1
    for i in range(found - 1):
        if keys[i] == keys[i + 1]:
            certain = min(certain, i)
    v.num_ranked = certain
    v.ranked_is_all = certain == s.num_waiting


@inlined
def _show_smallest(s: Any, v: Any, most: int, slots: Any) -> Any:
    ranked = ranked_of(v)
    shown = min(most, s.num_waiting)
    if v.num_ranked < shown:
        _rank_anew(s, v, most + SPARE // 2)
    for i in range(shown):
        slots[i] = ranked[i]
    return shown


@inlined
def _add_oldest(v: Any, found: int, first: int, most: int, slots: Any) -> Any:
    """Append those of the list of the oldest that are not among the `first` slots, up to `most`."""
    oldest = oldest_of(v)
    i = 0
    while i < v.num_oldest and found < most:
        known = False
        for j in range(first):
            known = known or slots[j] == oldest[i]
        if not known:
            slots[found] = oldest[i]
            found += 1
        i += 1
    return found


@compiled
def show_waiting(s: Any, v: Any) -> None:
    """Fill the waiting slots, and note what admissions would take; only where the queue has changed.

    Only estimates of whole lengths change what the admission of a waiting request takes.
    """
    _note_arrivals(s, v)
    if v.listed_waiting != s.num_waiting or v.listed_preemptions != s.num_preemptions:
        _forget(s, v)
    if not v.queue_changed and s.reserve != Reserve.TOTAL_ESTIMATE:
        return
    if s.starvation_s > 0.0 or s.starvation_iterations > 0:
        _forget(s, v)  # who starves gets another key
    v.queue_changed = 0
    slots = slots_of(v)
    needs = needs_of(v)
    most = v.num_waiting_slots
    first = _show_smallest(s, v, (most + 1) // 2, slots)
    found = _add_oldest(v, first, first, most, slots)
    if found < min(most, s.num_waiting):
        oldest = oldest_of(v)
        v.num_oldest = oldest_waiting(s, v, oldest.size, oldest)
        v.oldest_is_all = v.num_oldest == s.num_waiting
        found = _add_oldest(v, first, first, most, slots)
    v.num_waiting_shown = found
    for i in range(found):
        needs[i] = admission_blocks(s, slots[i])
    for i in range(found, most):
        slots[i] = -1
