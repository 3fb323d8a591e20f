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

from infermax_gym.baselines.optimum.annealing.layout import (
    ARRIVED,
    BLOCK_SUM,
    CHUNKED,
    CONTEXT,
    COUNT,
    CUT,
    CUT_REQUEST,
    DROP,
    FAR,
    FINISHED,
    GAP,
    GENERATED,
    HOPELESS,
    HORIZON,
    JOINED,
    KNOWN_SUM,
    MOST_REMAINING,
    NEXT_FINISH,
    NUM_EVENTS,
    NUM_FINISHED,
    NUM_JOINING,
    NUM_WAITING,
    PREFILL,
    PREFILLS,
    RANK,
    RUNS,
    SHARE,
    SINCE,
    SKIPS,
    SMALLEST,
    STATUS,
    STEP,
    TOKENS,
    VICTIM,
    WAIT,
    WAITING,
    WORK,
    Case,
    Ints,
    Scratch,
)
from infermax_gym.baselines.optimum.borrow import borrowed
from infermax_gym.compile import compiled, inlined
from infermax_gym.cost.kernel import batch_seconds


@inlined
def _blocks(tokens: int, size: int) -> Any:
    return (tokens + size - 1) // size


@inlined
def _generated(w: Scratch, r: int, step: int) -> Any:
    """Output tokens of a request before batch `step`."""
    return w.state[r, GENERATED] + (step - w.state[r, JOINED] if w.state[r, STATUS] == RUNS else 0)


@inlined
def _record(w: Scratch, events: Ints, kind: int, r: int, tokens: int) -> None:
    """Note an event if there is room for it."""
    k = w.counter[NUM_EVENTS]
    if k < events.shape[0]:
        events[k, 0], events[k, 1], events[k, 2], events[k, 3] = w.counter[STEP], kind, r, tokens
    w.counter[NUM_EVENTS] = k + 1


@inlined
def _recount(case: Case, w: Scratch) -> None:
    """Totals over those that run, after somebody joined or left."""
    size = case.block_size
    step = w.counter[STEP]
    w.residue[:] = 0
    known_sum = block_sum = 0
    soonest = FAR
    for k in range(w.counter[COUNT]):
        r = w.running[k]
        generated = _generated(w, r, step)
        known = case.prompt[r] + generated
        known_sum += known
        block_sum += _blocks(known, size)
        w.residue[(known - step) % size] += 1
        soonest = min(soonest, step + case.output[r] - generated - 1)
    w.counter[KNOWN_SUM], w.counter[BLOCK_SUM], w.counter[NEXT_FINISH] = known_sum, block_sum, soonest


@inlined
def _make_room(case: Case, w: Scratch, knobs: Ints, events: Ints) -> None:
    """Preempt victims until the next batch fits."""
    step, size = w.counter[STEP], case.block_size
    taken = w.counter[BLOCK_SUM]
    if w.counter[CUT_REQUEST] >= 0:
        r = w.counter[CUT_REQUEST]
        taken += _blocks(case.prompt[r] + w.state[r, GENERATED], size)
    if taken <= case.num_blocks:
        return
    while taken > case.num_blocks:
        worst, worst_score = 0, -FAR
        for k in range(w.counter[COUNT]):
            r = w.running[k]
            score = w.state[r, RANK]
            if knobs[VICTIM] == SMALLEST:
                score = -case.prompt[r] - _generated(w, r, step)
            elif knobs[VICTIM] == MOST_REMAINING:
                score = case.output[r] - _generated(w, r, step)
            if score > worst_score:
                worst, worst_score = k, score
        r = w.running[worst]
        w.state[r, GENERATED] = _generated(w, r, step)
        w.state[r, STATUS] = WAITING
        taken -= _blocks(case.prompt[r] + w.state[r, GENERATED], size)
        w.counter[COUNT] -= 1
        w.running[worst] = w.running[w.counter[COUNT]]
        w.counter[NUM_WAITING] += 1
        _record(w, events, DROP, r, 0)
    w.counter[HOPELESS] = 1
    _recount(case, w)


@inlined
def _put(w: Scratch, count: int, remaining: int, tokens: int) -> None:
    """Insert into the list sorted by remaining batches, most first."""
    j = count
    while j > 0 and w.rest[j - 1] < remaining:
        w.rest[j], w.known[j] = w.rest[j - 1], w.known[j - 1]
        j -= 1
    w.rest[j], w.known[j] = remaining, tokens


@inlined
def _peak(w: Scratch, count: int, horizon: int) -> Any:
    """Most tokens of all together within `horizon` batches, each leaving after its remaining batches."""
    worst = total = 0
    for k in range(count):
        total += w.known[k]
        if k + 1 == count or w.rest[k + 1] < horizon:
            worst = max(worst, total + (k + 1) * (min(w.rest[k], horizon) - 1))
    return worst


@inlined
def _admit(case: Case, w: Scratch, order: Ints, knobs: Ints) -> None:
    """Choose who joins the next batch."""
    w.counter[NUM_JOINING] = 0
    if w.counter[NUM_WAITING] == 0 or w.counter[HOPELESS] == 1 or w.counter[CUT_REQUEST] >= 0:
        return
    if w.counter[COUNT] > 0 and w.counter[SINCE] < knobs[GAP]:
        return
    step, count, size = w.counter[STEP], w.counter[COUNT], case.block_size
    for k in range(count):
        generated = _generated(w, w.running[k], step)
        _put(w, k, case.output[w.running[k]] - generated, case.prompt[w.running[k]] + generated)
    budget = case.max_num_batched_tokens - count
    free = case.num_blocks - w.counter[BLOCK_SUM]
    tokens = skips = looked = k = 0
    while looked < w.counter[NUM_WAITING] and k < order.size and budget > 0 and count < case.max_num_seqs:
        r = order[k]
        k += 1
        if w.state[r, STATUS] != WAITING:
            continue
        looked += 1
        need = case.prompt[r] + w.state[r, GENERATED]
        fits = _blocks(need, size) <= free
        if fits and count > 0:
            _put(w, count, case.output[r] - w.state[r, GENERATED], need)
            slack = (count + 1) * (size - 1) // 2
            fits = _peak(w, count + 1, knobs[HORIZON]) + slack <= case.num_blocks * size
            if not fits:
                _take_out(w, count + 1, case.output[r] - w.state[r, GENERATED], need)
        elif fits:
            _put(w, 0, case.output[r] - w.state[r, GENERATED], need)
        if not fits:
            skips += 1
            if skips > knobs[SKIPS]:
                break
            continue
        w.joining[w.counter[NUM_JOINING]] = r
        w.counter[NUM_JOINING] += 1
        count += 1
        free -= _blocks(need, size)
        tokens += need
        budget -= need
    enough = tokens * 1000 >= knobs[SHARE] * case.num_blocks * size or w.counter[NUM_JOINING] == w.counter[NUM_WAITING]
    if w.counter[COUNT] > 0 and not enough and budget > 0:
        w.counter[NUM_JOINING] = 0
    w.counter[HOPELESS] = w.counter[NUM_JOINING] == 0


@inlined
def _take_out(w: Scratch, count: int, remaining: int, tokens: int) -> None:
    """Undo `_put`."""
    j = 0
    while w.rest[j] != remaining or w.known[j] != tokens:
        j += 1
    for k in range(j, count - 1):
        w.rest[k], w.known[k] = w.rest[k + 1], w.known[k + 1]


@inlined
def _start(case: Case, w: Scratch, r: int, c: int, events: Ints) -> None:
    """Give c prefill tokens to a request."""
    done = w.state[r, CHUNKED]
    w.joined[TOKENS] += c
    w.joined[WORK] += c * c + 2 * c * done
    w.joined[PREFILLS] += 1
    w.joined[CONTEXT] += done
    _record(w, events, PREFILL, r, c)
    if done + c < case.prompt[r] + w.state[r, GENERATED]:
        w.state[r, STATUS], w.state[r, CHUNKED] = CUT, done + c
        w.counter[CUT_REQUEST] = r
        return
    w.state[r, STATUS], w.state[r, CHUNKED], w.state[r, JOINED] = RUNS, 0, w.counter[STEP]
    w.counter[CUT_REQUEST] = -1
    w.running[w.counter[COUNT]] = r
    w.counter[COUNT] += 1


@inlined
def _prefill(case: Case, w: Scratch, events: Ints) -> None:
    """Spend what the decodes leave of the token budget on the prefill under way or on those who join."""
    w.joined[:] = 0
    budget = case.max_num_batched_tokens - w.counter[COUNT]
    r = w.counter[CUT_REQUEST]
    if r >= 0 and budget > 0:
        left = case.prompt[r] + w.state[r, GENERATED] - w.state[r, CHUNKED]
        _start(case, w, r, min(left, budget), events)
    for k in range(w.counter[NUM_JOINING]):
        r = w.joining[k]
        c = min(case.prompt[r] + w.state[r, GENERATED], budget)
        budget -= c
        w.counter[NUM_WAITING] -= 1
        w.counter[SINCE] = 0
        _start(case, w, r, c, events)


@inlined
def _finish(case: Case, w: Scratch) -> Any:
    """Take out those who have emitted their last token in the batch before STEP; returns how many."""
    kept = 0
    for k in range(w.counter[COUNT]):
        r = w.running[k]
        if _generated(w, r, w.counter[STEP]) == case.output[r]:
            w.state[r, STATUS] = FINISHED
        else:
            w.running[kept] = r
            kept += 1
    gone = w.counter[COUNT] - kept
    w.counter[COUNT] = kept
    w.counter[NUM_FINISHED] += gone
    return gone


@compiled
def decode(case: Case, w: Scratch, order: Ints, knobs: Ints, events: Ints, stop_at: float) -> Any:
    """Objective of the schedule of a list: last finish or sum of finishes, seconds; infinite beyond `stop_at`.

    Args:
        case: the requests and the engine.
        w: scratch; of its counters STEP and NUM_EVENTS are results.
        order: (n,) requests, the first to be admitted first.
        knobs: (NUM_KNOBS,).
        events: (k, 4) receives the first k events.
        stop_at: seconds.
    """
    case, w = borrowed(case), borrowed(w)
    n = case.prompt.size
    w.state[:] = 0
    w.counter[:] = 0
    w.counter[CUT_REQUEST] = -1
    w.counter[SINCE] = knobs[GAP]
    w.counter[NEXT_FINISH] = FAR
    for k in range(n):
        w.state[order[k], RANK] = k
    clock = total = 0.0
    while w.counter[NUM_FINISHED] < n:
        while w.counter[ARRIVED] < n and case.arrival_s[w.counter[ARRIVED]] <= clock:
            w.state[w.counter[ARRIVED], STATUS] = WAITING
            w.counter[NUM_WAITING] += 1
            w.counter[ARRIVED] += 1
            w.counter[HOPELESS] = 0
        num_running = w.counter[COUNT]
        _make_room(case, w, knobs, events)
        if not case.preemptive and w.counter[COUNT] < num_running:
            return np.inf
        _admit(case, w, order, knobs)
        num_decodes, context = w.counter[COUNT], w.counter[KNOWN_SUM] - w.counter[COUNT]
        _prefill(case, w, events)
        if w.joined[TOKENS] + num_decodes == 0:
            if w.counter[ARRIVED] == n:
                return np.inf
            if w.counter[NUM_WAITING] > 0:
                _record(w, events, WAIT, -1, 0)
            clock = case.arrival_s[w.counter[ARRIVED]]
            continue
        clock += batch_seconds(
            case.theta, case.term_end, case.floor_context, num_decodes + w.joined[TOKENS], w.joined[WORK],
            w.joined[PREFILLS], w.joined[CONTEXT], context, num_decodes,
        )  # fmt: skip
        changed = w.joined[TOKENS] > 0 or w.counter[NEXT_FINISH] == w.counter[STEP]
        w.counter[STEP] += 1
        w.counter[SINCE] += 1
        if changed:
            gone = _finish(case, w)
            total += gone * clock
            if gone > 0:
                w.counter[HOPELESS] = 0
            _recount(case, w)
        else:
            w.counter[KNOWN_SUM] += w.counter[COUNT]
            w.counter[BLOCK_SUM] += w.residue[(1 - w.counter[STEP]) % case.block_size]
        if (total + (n - w.counter[NUM_FINISHED]) * clock if case.latency else clock) > stop_at:
            return np.inf
    return total if case.latency else clock
