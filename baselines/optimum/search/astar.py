"""Best-first search over states, compiled: a store of labels, a hash table and a bucket queue.

Every label (a way to reach a state) is expanded whose bound is below the incumbent; when none is left, the
incumbent is optimal. The order in which they are expanded (by bound, in buckets) is a matter of speed alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.baselines.optimum.search.expand import decode_key, expand, num_unfinished
from infermax_gym.baselines.optimum.search.layout import Floats, Ints, Scratch, Successors, Tables
from infermax_gym.compile import compiled, inlined

# Entries of `Store.counter`.
NUM_LABELS = 0
CURRENT = 1  # bucket being emptied
NUM_EXPANDED = 2
GOAL = 3  # label of the incumbent, -1 if it came from elsewhere
STATUS = 4
NUM_COUNTERS = 5

# Entries of `Store.value`, seconds.
INCUMBENT = 0
FIRST_BOUND = 1  # of the first bucket
BUCKET_WIDTH = 2

# Values of STATUS.
RUNNING = 0
EXHAUSTED = 1  # proven
NO_ROOM = 2  # more labels than the store holds
TOO_WIDE = 3  # more successors than the buffers hold
FULL_SLOTS = 4  # the hash table must grow

_SAME_S = 1e-12  # seconds by which a label may be worse and still count as equal


class Store(NamedTuple):
    """Labels and the structures over them.

    Attributes:
        key, clock, cost: (capacity,) state, seconds, seconds of objective so far.
        parent: (capacity,) label it came from, -1 at the root.
        link: (capacity,) next label in the same bucket, -1 at the end.
        chain: (capacity,) next label of the same state.
        dead: (capacity,) 1 once dominated.
        slot: (power of two,) label + 1 at the head of a state's chain, 0 if empty.
        bucket: (num_buckets,) first label of each bucket, -1 if empty.
        counter: (NUM_COUNTERS,) see above.
        value: (3,) see above.
    """

    key: Ints
    clock: Floats
    cost: Floats
    parent: NDArray[np.int32]
    link: NDArray[np.int32]
    chain: NDArray[np.int32]
    dead: NDArray[np.uint8]
    slot: NDArray[np.int32]
    bucket: NDArray[np.int32]
    counter: Ints
    value: Floats


@inlined
def _slot_of(store: Store, bits: int, key: int) -> Any:
    """Where the chain of states that share all but the low bits of a key starts, or the empty slot where it would."""
    mask = store.slot.size - 1
    base = key >> bits
    hashed = np.uint64(base) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64(hashed >> np.uint64(20)) & mask
    while store.slot[at] != 0 and store.key[store.slot[at] - 1] >> bits != base:
        at = (at + 1) & mask
    return at


@compiled
def fill_slots(t: Tables, store: Store) -> None:
    """Rebuild the hash table from the labels (after it has grown)."""
    t, store = borrowed(t), borrowed(store)
    for label in range(store.counter[NUM_LABELS]):
        if store.dead[label] == 0:
            at = _slot_of(store, t.mask_bits, store.key[label])
            store.chain[label] = store.slot[at] - 1
            store.slot[at] = label + 1


@inlined
def _dominates(t: Tables, n_left: int, clock_a: float, cost_a: float, clock_b: float, cost_b: float) -> Any:
    """Whether reaching a state at clock_a with cost_a is at least as good as with b's.

    Timed latency: whatever follows b can follow a no later, so a must be no later and its finished requests no
    worse; once nothing depends on the clock, the cost alone decides.
    """
    if not t.timed or not t.latency:
        return cost_a <= cost_b + _SAME_S
    if min(clock_a, clock_b) >= t.last_event_s:
        return cost_a <= cost_b + _SAME_S
    return clock_a <= clock_b + _SAME_S and cost_a - n_left * clock_a <= cost_b - n_left * clock_b + _SAME_S


@inlined
def _insert_label(
    t: Tables, store: Store, n_left: int, key: int, clock: float, cost: float, bound: float, parent: int
) -> Any:
    """Add a label unless it is dominated; False if there is no room.

    A state whose running requests also run in another (with the same tokens) can do all that the other can.
    """
    low = (1 << t.mask_bits) - 1
    at = _slot_of(store, t.mask_bits, key)
    label = store.slot[at] - 1
    previous = -1
    while label >= 0:
        following = store.chain[label]
        other = store.key[label]
        if (other & ~key & low) == 0 and _dominates(t, n_left, store.clock[label], store.cost[label], clock, cost):
            return True
        if (key & ~other & low) == 0 and _dominates(t, n_left, clock, cost, store.clock[label], store.cost[label]):
            store.dead[label] = 1
            if previous < 0:
                store.slot[at] = following + 1
            else:
                store.chain[previous] = following
        else:
            previous = label
        label = following
    new = store.counter[NUM_LABELS]
    if new >= store.key.size:
        return False
    store.key[new] = key
    store.clock[new] = clock
    store.cost[new] = cost
    store.parent[new] = parent
    store.dead[new] = 0
    # Emptying a chain keeps its slot's place in the probe sequence only if it is filled again at once.
    store.chain[new] = store.slot[at] - 1
    store.slot[at] = new + 1
    store.counter[NUM_LABELS] = new + 1
    b = int((bound - store.value[FIRST_BOUND]) / store.value[BUCKET_WIDTH])
    b = min(max(b, store.counter[CURRENT]), store.bucket.size - 1)
    store.link[new] = store.bucket[b]
    store.bucket[b] = new
    return True


@compiled
def put_root(t: Tables, store: Store, clock: float, cost: float, bound: float) -> None:
    """Start with the state in which nothing has happened."""
    _insert_label(t, store, t.num_requests, 0, clock, cost, bound, -1)


@inlined
def _insert_children(
    t: Tables, w: Scratch, out: Successors, store: Store, found: int, label: int, final_key: int
) -> None:
    """Add the successors of a label; a finished one replaces the incumbent if it is better."""
    for c in range(found):
        if out.key[c] == final_key:
            if out.cost_s[c] < store.value[INCUMBENT]:
                store.value[INCUMBENT] = out.cost_s[c]
                store.counter[GOAL] = label
            continue
        decode_key(t, out.key[c], w.after)
        left = num_unfinished(t, w.after)
        _insert_label(t, store, left, out.key[c], out.clock_s[c], out.cost_s[c], out.bound_s[c], label)


@compiled
def search(
    t: Tables, w: Scratch, out: Successors, store: Store, final_key: int, max_expanded: int, tolerance: float
) -> None:
    """Expand labels until none is left below the incumbent, room runs out or `max_expanded` more are done.

    Args:
        t: the problem.
        w: scratch.
        out: room for successors.
        store: labels; carries on where the last call stopped.
        final_key: the state in which everything is finished.
        max_expanded: how many labels to expand in this call.
        tolerance: relative gain below which a better schedule does not count.
    """
    t, w, out, store = borrowed(t), borrowed(w), borrowed(out), borrowed(store)
    stop = store.counter[NUM_EXPANDED] + max_expanded
    store.counter[STATUS] = RUNNING
    while store.counter[NUM_EXPANDED] < stop:
        b = store.counter[CURRENT]
        limit = store.value[INCUMBENT] * (1.0 - tolerance)
        if b >= store.bucket.size or store.value[FIRST_BOUND] + b * store.value[BUCKET_WIDTH] >= limit:
            store.counter[STATUS] = EXHAUSTED
            return
        label = store.bucket[b]
        if label < 0:
            store.counter[CURRENT] = b + 1
            continue
        if store.dead[label] == 1:
            store.bucket[b] = store.link[label]
            continue
        found = expand(t, w, out, store.key[label], store.clock[label], store.cost[label], limit)
        if found > out.key.size:
            store.counter[STATUS] = TOO_WIDE
            return
        if 2 * (store.counter[NUM_LABELS] + found) > store.slot.size:
            store.counter[STATUS] = FULL_SLOTS
            return
        if store.counter[NUM_LABELS] + found > store.key.size:
            store.counter[STATUS] = NO_ROOM
            return
        store.bucket[b] = store.link[label]
        store.counter[NUM_EXPANDED] += 1
        _insert_children(t, w, out, store, found, label, final_key)


def new_store(capacity: int, num_slots: int, num_buckets: int, root_bound: float, incumbent: float) -> Store:
    """An empty store; memory is touched only as labels arrive.

    Args:
        capacity: most labels.
        num_slots: initial size of the hash table, a power of two.
        num_buckets: resolution of the queue.
        root_bound: lower bound on the optimum, seconds.
        incumbent: objective of a known schedule, seconds.
    """
    width = max(incumbent - root_bound, 1e-12) / (num_buckets - 1)
    return Store(
        key=np.empty(capacity, np.int64),
        clock=np.empty(capacity),
        cost=np.empty(capacity),
        parent=np.empty(capacity, np.int32),
        link=np.empty(capacity, np.int32),
        chain=np.empty(capacity, np.int32),
        dead=np.empty(capacity, np.uint8),
        slot=np.zeros(num_slots, np.int32),
        bucket=np.full(num_buckets, -1, np.int32),
        counter=np.array([0, 0, 0, -1, RUNNING], np.int64),
        value=np.array([incumbent, root_bound, width]),
    )
