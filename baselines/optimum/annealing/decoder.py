"""From a priority list and a few thresholds to a schedule, compiled: what the annealing search evaluates.

Running requests decode in every batch. When somebody may join (enough batches since the last admission, enough
memory for the next batches), waiting requests are admitted in the order of the list; their prefills share the
batch with the decodes and are cut where the token budget ends. When the next batch would not fit, victims are
preempted. Every rule of the engine is kept; the engine replays the plan before anything is reported.

A batch without events costs a handful of additions: block counts and contexts are kept as totals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import compiled
from infermax_gym.cost.kernel import batch_seconds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Knobs of a schedule.
HORIZON = 0  # batches ahead for which memory must suffice on admission
GAP = 1  # least number of batches from one admission to the next
SKIPS = 2  # misfits passed over per admission
VICTIM = 3  # which running request goes
SHARE = 4  # thousandths of the memory that an admission must fill, unless it takes all that wait or nobody runs
NUM_KNOBS = 5

# Values of VICTIM.
LAST_IN_LIST = 0
SMALLEST = 1  # fewest known tokens
MOST_REMAINING = 2
NUM_VICTIMS = 3

# The engine.
BLOCKS = 0
BLOCK_SIZE = 1
BUDGET = 2
SEATS = 3
FLOOR_CONTEXT = 4
LATENCY = 5  # objective is the sum of finish times, not the last one
PREEMPTIVE = 6  # whether a schedule may preempt at all

# Columns of a request.
PROMPT = 0
OUTPUT = 1

# Columns of its state.
STATUS = 0
GENERATED = 1  # output tokens at its last prefill, or at the moment if it does not run
JOINED = 2  # batch in which its last prefill ended
CHUNKED = 3  # tokens prefilled while its prefill is cut
RANK = 4  # position in the list
STATE_COLUMNS = 5

ABSENT, WAITING, CUT, RUNS, FINISHED = 0, 1, 2, 3, 4

# Counters.
STEP = 0  # number of the next batch
COUNT = 1  # how many run
NUM_WAITING = 2
ARRIVED = 3
NUM_FINISHED = 4
SINCE = 5  # batches since the last admission
CUT_REQUEST = 6  # whose prefill is cut, -1 if nobody's
KNOWN_SUM = 7  # known tokens of all that run
BLOCK_SUM = 8  # blocks that the next batch takes for them
NEXT_FINISH = 9  # batch in which the next of them finishes
HOPELESS = 10  # the last attempt to admit failed and nothing has changed since
NUM_EVENTS = 11
NUM_JOINING = 12
NUM_COUNTERS = 13

# Kinds of an event: (batch, kind, request, tokens).
PREFILL = 0
DROP = 1
WAIT = 2

_FAR = 2**60


@compiled
def _blocks(tokens: int, size: int) -> Any:
    return (tokens + size - 1) // size


@compiled
def _generated(state: Ints, r: int, step: int) -> Any:
    """Output tokens of a request before batch `step`."""
    return state[r, GENERATED] + (step - state[r, JOINED] if state[r, STATUS] == RUNS else 0)


@compiled
def _record(counter: Ints, events: Ints, kind: int, r: int, tokens: int) -> None:
    """Note an event if there is room for it."""
    k = counter[NUM_EVENTS]
    if k < events.shape[0]:
        events[k, 0], events[k, 1], events[k, 2], events[k, 3] = counter[STEP], kind, r, tokens
    counter[NUM_EVENTS] = k + 1


@compiled
def _recount(request: Ints, state: Ints, running: Ints, residue: Ints, counter: Ints, size: int) -> None:
    """Totals over those that run, after somebody joined or left."""
    step = counter[STEP]
    residue[:] = 0
    known_sum = block_sum = 0
    soonest = _FAR
    for k in range(counter[COUNT]):
        r = running[k]
        generated = _generated(state, r, step)
        known = request[r, PROMPT] + generated
        known_sum += known
        block_sum += _blocks(known, size)
        residue[(known - step) % size] += 1
        soonest = min(soonest, step + request[r, OUTPUT] - generated - 1)
    counter[KNOWN_SUM], counter[BLOCK_SUM], counter[NEXT_FINISH] = known_sum, block_sum, soonest


@compiled
def _make_room(
    request: Ints, state: Ints, running: Ints, residue: Ints, counter: Ints, engine: Ints, knobs: Ints, events: Ints
) -> None:
    """Preempt victims until the next batch fits."""
    step, size = counter[STEP], engine[BLOCK_SIZE]
    taken = counter[BLOCK_SUM]
    if counter[CUT_REQUEST] >= 0:
        r = counter[CUT_REQUEST]
        taken += _blocks(request[r, PROMPT] + state[r, GENERATED], size)
    if taken <= engine[BLOCKS]:
        return
    while taken > engine[BLOCKS]:
        worst, worst_score = 0, -_FAR
        for k in range(counter[COUNT]):
            r = running[k]
            score = state[r, RANK]
            if knobs[VICTIM] == SMALLEST:
                score = -request[r, PROMPT] - _generated(state, r, step)
            elif knobs[VICTIM] == MOST_REMAINING:
                score = request[r, OUTPUT] - _generated(state, r, step)
            if score > worst_score:
                worst, worst_score = k, score
        r = running[worst]
        state[r, GENERATED] = _generated(state, r, step)
        state[r, STATUS] = WAITING
        taken -= _blocks(request[r, PROMPT] + state[r, GENERATED], size)
        counter[COUNT] -= 1
        running[worst] = running[counter[COUNT]]
        counter[NUM_WAITING] += 1
        _record(counter, events, DROP, r, 0)
    counter[HOPELESS] = 1
    _recount(request, state, running, residue, counter, size)


@compiled
def _put(rest: Ints, known: Ints, count: int, remaining: int, tokens: int) -> None:
    """Insert into the list sorted by remaining batches, most first."""
    j = count
    while j > 0 and rest[j - 1] < remaining:
        rest[j], known[j] = rest[j - 1], known[j - 1]
        j -= 1
    rest[j], known[j] = remaining, tokens


@compiled
def _peak(rest: Ints, known: Ints, count: int, horizon: int) -> Any:
    """Most tokens of all together within `horizon` batches, each leaving after its remaining batches."""
    worst = total = 0
    for k in range(count):
        total += known[k]
        if k + 1 == count or rest[k + 1] < horizon:
            worst = max(worst, total + (k + 1) * (min(rest[k], horizon) - 1))
    return worst


@compiled
def _admit(
    request: Ints, state: Ints, order: Ints, running: Ints, room: Ints, counter: Ints, engine: Ints, knobs: Ints
) -> None:
    """Choose who joins the next batch: `NUM_JOINING` requests in room[0]."""
    counter[NUM_JOINING] = 0
    if counter[NUM_WAITING] == 0 or counter[HOPELESS] == 1 or counter[CUT_REQUEST] >= 0:
        return
    if counter[COUNT] > 0 and counter[SINCE] < knobs[GAP]:
        return
    joining, rest, known = room[0], room[1], room[2]
    step, count, size = counter[STEP], counter[COUNT], engine[BLOCK_SIZE]
    for k in range(count):
        generated = _generated(state, running[k], step)
        _put(rest, known, k, request[running[k], OUTPUT] - generated, request[running[k], PROMPT] + generated)
    budget = engine[BUDGET] - count
    free = engine[BLOCKS] - counter[BLOCK_SUM]
    tokens = skips = looked = k = 0
    while looked < counter[NUM_WAITING] and k < order.size and budget > 0 and count < engine[SEATS]:
        r = order[k]
        k += 1
        if state[r, STATUS] != WAITING:
            continue
        looked += 1
        need = request[r, PROMPT] + state[r, GENERATED]
        fits = _blocks(need, size) <= free
        if fits and count > 0:
            _put(rest, known, count, request[r, OUTPUT] - state[r, GENERATED], need)
            slack = (count + 1) * (size - 1) // 2
            fits = _peak(rest, known, count + 1, knobs[HORIZON]) + slack <= engine[BLOCKS] * size
            if not fits:
                _take_out(rest, known, count + 1, request[r, OUTPUT] - state[r, GENERATED], need)
        elif fits:
            _put(rest, known, 0, request[r, OUTPUT] - state[r, GENERATED], need)
        if not fits:
            skips += 1
            if skips > knobs[SKIPS]:
                break
            continue
        joining[counter[NUM_JOINING]] = r
        counter[NUM_JOINING] += 1
        count += 1
        free -= _blocks(need, size)
        tokens += need
        budget -= need
    enough = tokens * 1000 >= knobs[SHARE] * engine[BLOCKS] * size or counter[NUM_JOINING] == counter[NUM_WAITING]
    if counter[COUNT] > 0 and not enough and budget > 0:
        counter[NUM_JOINING] = 0
    counter[HOPELESS] = counter[NUM_JOINING] == 0


@compiled
def _take_out(rest: Ints, known: Ints, count: int, remaining: int, tokens: int) -> None:
    """Undo `_put`."""
    j = 0
    while rest[j] != remaining or known[j] != tokens:
        j += 1
    for k in range(j, count - 1):
        rest[k], known[k] = rest[k + 1], known[k + 1]


@compiled
def _start(request: Ints, state: Ints, running: Ints, counter: Ints, r: int, c: int, work: Ints, events: Ints) -> None:
    """Give c prefill tokens to a request; work collects tokens, c^2 + 2 c m, prefills and contexts."""
    done = state[r, CHUNKED]
    work[0] += c
    work[1] += c * c + 2 * c * done
    work[2] += 1
    work[3] += done
    _record(counter, events, PREFILL, r, c)
    if done + c < request[r, PROMPT] + state[r, GENERATED]:
        state[r, STATUS], state[r, CHUNKED] = CUT, done + c
        counter[CUT_REQUEST] = r
        return
    state[r, STATUS], state[r, CHUNKED], state[r, JOINED] = RUNS, 0, counter[STEP]
    counter[CUT_REQUEST] = -1
    running[counter[COUNT]] = r
    counter[COUNT] += 1


@compiled
def _prefill(
    request: Ints, state: Ints, running: Ints, room: Ints, counter: Ints, engine: Ints, work: Ints, events: Ints
) -> None:
    """Spend what the decodes leave of the token budget on the prefill under way or on those who join."""
    work[:] = 0
    budget = engine[BUDGET] - counter[COUNT]
    r = counter[CUT_REQUEST]
    if r >= 0 and budget > 0:
        left = request[r, PROMPT] + state[r, GENERATED] - state[r, CHUNKED]
        _start(request, state, running, counter, r, min(left, budget), work, events)
    for k in range(counter[NUM_JOINING]):
        r = room[0, k]
        c = min(request[r, PROMPT] + state[r, GENERATED], budget)
        budget -= c
        counter[NUM_WAITING] -= 1
        counter[SINCE] = 0
        _start(request, state, running, counter, r, c, work, events)


@compiled
def _finish(request: Ints, state: Ints, running: Ints, counter: Ints) -> Any:
    """Take out those who have emitted their last token in the batch before STEP; returns how many."""
    kept = 0
    for k in range(counter[COUNT]):
        r = running[k]
        if _generated(state, r, counter[STEP]) == request[r, OUTPUT]:
            state[r, STATUS] = FINISHED
        else:
            running[kept] = r
            kept += 1
    gone = counter[COUNT] - kept
    counter[COUNT] = kept
    counter[NUM_FINISHED] += gone
    return gone


@compiled
def decode(
    request: Ints, arrival: Floats, order: Ints, knobs: Ints, engine: Ints, theta: Floats, term_end: Ints,
    state: Ints, room: Ints, residue: Ints, counter: Ints, events: Ints, stop_at: float,
) -> Any:  # fmt: skip
    """Objective of the schedule of a list: last finish or sum of finishes, seconds; infinite beyond `stop_at`.

    Args:
        request: (n, 2) prompt and output tokens, by arrival.
        arrival: (n,) seconds.
        order: (n,) requests, the first to be admitted first.
        knobs: (NUM_KNOBS,).
        engine: (7,) sizes and flags, see the constants.
        theta, term_end: the cost model.
        state: (n, STATE_COLUMNS) scratch.
        room: (4, n + 1) scratch.
        residue: (block size,) scratch.
        counter: (NUM_COUNTERS,) scratch; STEP and NUM_EVENTS are results.
        events: (k, 4) receives the first k events.
        stop_at: seconds.
    """
    n = request.shape[0]
    running, work = room[3], counter[NUM_COUNTERS:]
    state[:] = 0
    counter[:] = 0
    counter[CUT_REQUEST] = -1
    counter[SINCE] = knobs[GAP]
    counter[NEXT_FINISH] = _FAR
    for k in range(n):
        state[order[k], RANK] = k
    clock = total = 0.0
    while counter[NUM_FINISHED] < n:
        while counter[ARRIVED] < n and arrival[counter[ARRIVED]] <= clock:
            state[counter[ARRIVED], STATUS] = WAITING
            counter[NUM_WAITING] += 1
            counter[ARRIVED] += 1
            counter[HOPELESS] = 0
        num_running = counter[COUNT]
        _make_room(request, state, running, residue, counter, engine, knobs, events)
        if engine[PREEMPTIVE] == 0 and counter[COUNT] < num_running:
            return np.inf
        _admit(request, state, order, running, room, counter, engine, knobs)
        num_decodes, context = counter[COUNT], counter[KNOWN_SUM] - counter[COUNT]
        _prefill(request, state, running, room, counter, engine, work, events)
        if work[0] + num_decodes == 0:
            if counter[ARRIVED] == n:
                return np.inf
            if counter[NUM_WAITING] > 0:
                _record(counter, events, WAIT, -1, 0)
            clock = arrival[counter[ARRIVED]]
            continue
        clock += batch_seconds(
            theta, term_end, engine[FLOOR_CONTEXT] == 1, num_decodes + work[0], work[1], work[2], work[3], context,
            num_decodes,
        )  # fmt: skip
        changed = work[0] > 0 or counter[NEXT_FINISH] == counter[STEP]
        counter[STEP] += 1
        counter[SINCE] += 1
        if changed:
            gone = _finish(request, state, running, counter)
            total += gone * clock
            if gone > 0:
                counter[HOPELESS] = 0
            _recount(request, state, running, residue, counter, engine[BLOCK_SIZE])
        else:
            counter[KNOWN_SUM] += counter[COUNT]
            counter[BLOCK_SUM] += residue[(1 - counter[STEP]) % engine[BLOCK_SIZE]]
        if (total + (n - counter[NUM_FINISHED]) * clock if engine[LATENCY] == 1 else clock) > stop_at:
            return np.inf
    return total if engine[LATENCY] == 1 else clock
