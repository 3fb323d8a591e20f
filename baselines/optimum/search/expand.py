"""One step of the search: every iteration that can follow a state, with a lower bound on each successor.

A state is one code per request (`tables.py`). A successor picks one action per request: nothing, hold, decode,
prefill, drop. Compiled; the tables come as a named tuple of arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import compiled
from infermax_gym.cost.kernel import batch_seconds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Bits of an action's flags.
ADVANCE = 1  # passes tokens
DROP = 2  # gives up its KV and passes nothing
RESTART = 4  # gives up its KV and starts its prefill anew in this iteration
CONTINUE = 8  # a prefill chunk behind resident ones
FIRST = 16  # emits the first token

MAX_REQUESTS = 16
NEVER = np.inf


class Tables(NamedTuple):
    """The problem as arrays; n requests in canonical order, codes of all requests one after another.

    Attributes:
        num_blocks, max_tokens, max_seqs: caps of one iteration.
        theta, term_end, floor_context: the cost model.
        latency: objective is the sum of finish times instead of the last one.
        lean: the cost is linear with non-negative coefficients, so dominated actions can be skipped.
        timed: states are only comparable with their clocks.
        last_event_s: clock after which states are comparable without it.
        arrival_s, ttft_limit_s: (n,).
        same: (n,) 1 where the request is identical to the one before it.
        offset: (n + 1,) first code of each request in the arrays below; its last code means finished.
        stride: (n,) weight of a request's code in the key of a state.
        action_start: (codes + 1,) actions of a code; the fields below are per action.
        to_code, tokens, work, is_prefill, prefill_context, is_decode, decode_context, blocks, held, flags.
        floor_s: (num_minorants, codes) least seconds of a request's remaining tokens, without batch constants.
        per_batch_s: (num_minorants, 3) constants of a batch: any, with decodes, with prefills.
        load: (codes, num_loads) remaining load of a request under each packing bound.
        load_cap: (num_loads,) what one batch can take of it.
        load_window: (num_loads,) batches outside the window that the load is restricted to.
        chain: (codes,) least number of iterations until a request is finished.
        chain_s: (codes,) least seconds until it is finished.
        prefill_due: (codes,) 1 if it must still complete a prefill.
        unfinished: (codes,) 1 unless finished.
        tail_s: (n + 1,) lower bound on the makespan of what arrives with request k or later.
    """

    num_blocks: int
    max_tokens: int
    max_seqs: int
    theta: Floats
    term_end: Ints
    floor_context: bool
    latency: bool
    lean: bool
    timed: bool
    last_event_s: float
    arrival_s: Floats
    ttft_limit_s: Floats
    same: Ints
    offset: Ints
    stride: Ints
    action_start: Ints
    to_code: Ints
    tokens: Ints
    work: Ints
    is_prefill: Ints
    prefill_context: Ints
    is_decode: Ints
    decode_context: Ints
    blocks: Ints
    held: Ints
    flags: Ints
    floor_s: Floats
    per_batch_s: Floats
    load: Ints
    load_cap: Ints
    load_window: Ints
    chain: Ints
    chain_s: Floats
    prefill_due: Ints
    unfinished: Ints
    tail_s: Floats


class Children(NamedTuple):
    """Buffers that `expand` fills: key, clock (s), cost (s), bound (s) and the actions of each successor."""

    key: Ints
    clock: Floats
    cost: Floats
    bound: Floats
    action: NDArray[np.int32]


@compiled
def decode_key(tables: Any, key: int, codes: Ints) -> None:
    """Codes of the state with this key."""
    rest = key
    for i in range(codes.size - 1, -1, -1):
        codes[i] = rest // tables.stride[i]
        rest -= codes[i] * tables.stride[i]


@compiled
def encode_sorted(tables: Any, codes: Ints) -> Any:
    """Key of a state after sorting the codes of identical requests (in place)."""
    for i in range(1, codes.size):
        j = i
        while tables.same[j] == 1 and codes[j] < codes[j - 1]:
            codes[j], codes[j - 1] = codes[j - 1], codes[j]
            j -= 1
    key = 0
    for i in range(codes.size):
        key += codes[i] * tables.stride[i]
    return key


@compiled
def _batch_constants(per_batch_s: Floats, batches: int, with_prefill: int) -> Any:
    """Least total of the batch constants of `batches` iterations, `with_prefill` of which prefill."""
    one, decode, prefill = per_batch_s[0], per_batch_s[1], per_batch_s[2]
    if prefill >= decode:
        return one * batches + prefill * with_prefill + decode * max(batches - with_prefill, 0)
    return one * batches + prefill * max(batches if with_prefill > 0 else 0, with_prefill)


@compiled
def makespan_bound(tables: Any, codes: Ints, load: Ints) -> Any:
    """Least seconds until all requests of a state are finished, ignoring arrivals.

    Args:
        tables: the problem.
        codes: (n,) code of each request.
        load: (num_loads,) the state's total load under each packing bound.
    """
    n = codes.size
    batches = 0
    due = 0
    for i in range(n):
        code = tables.offset[i] + codes[i]
        batches = max(batches, tables.chain[code])
        due += tables.prefill_due[code]
    for f in range(load.size):
        if load[f] > 0:
            cap = tables.load_cap[f]
            batches = max(batches, tables.load_window[f] + (load[f] + cap - 1) // cap)
    largest = 0.0
    for k in range(tables.floor_s.shape[0]):
        total = _batch_constants(tables.per_batch_s[k], batches, 1 if due > 0 else 0)
        for i in range(n):
            total += tables.floor_s[k, tables.offset[i] + codes[i]]
        largest = max(largest, total)
    return largest


@compiled
def _insert(values: Any, count: int, value: Any) -> None:
    """Insert into the sorted values[:count]."""
    j = count
    while j > 0 and values[j - 1] > value:
        values[j] = values[j - 1]
        j -= 1
    values[j] = value


@compiled
def latency_bound(tables: Any, codes: Ints, clock: float) -> Any:
    """Least sum of (finish - clock) over the unfinished requests of a state.

    The k-th finish needs at least the k smallest token times, the batches that the k smallest loads or the
    k-th shortest chain take, and a prefill if more finish than are resident.
    """
    n = codes.size
    alone = np.empty(MAX_REQUESTS, np.float64)
    count = 0
    resident = 0
    for i in range(n):
        code = tables.offset[i] + codes[i]
        if tables.unfinished[code]:
            _insert(alone, count, max(tables.arrival_s[i] - clock, 0.0) + tables.chain_s[code])
            count += 1
            resident += 1 - tables.prefill_due[code]
    batches = np.zeros(MAX_REQUESTS, np.int64)
    values = np.empty(MAX_REQUESTS, np.int64)
    for f in range(-1, tables.load_cap.size):
        if f >= 0 and tables.load_window[f] > 0:
            continue
        m = 0
        for i in range(n):
            code = tables.offset[i] + codes[i]
            if tables.unfinished[code]:
                _insert(values, m, tables.chain[code] if f < 0 else tables.load[code, f])
                m += 1
        total = 0
        for k in range(count):
            if f < 0:
                batches[k] = max(batches[k], values[k])
            else:
                total += values[k]
                cap = tables.load_cap[f]
                batches[k] = max(batches[k], (total + cap - 1) // cap)
    largest = 0.0
    floors = np.empty(MAX_REQUESTS, np.float64)
    for minorant in range(tables.floor_s.shape[0]):
        m = 0
        for i in range(n):
            code = tables.offset[i] + codes[i]
            if tables.unfinished[code]:
                _insert(floors, m, tables.floor_s[minorant, code])
                m += 1
        total_s = 0.0
        run = 0.0
        for k in range(count):
            run += floors[k]
            finish = run + _batch_constants(tables.per_batch_s[minorant], batches[k], 1 if k >= resident else 0)
            total_s += max(finish, alone[k])
        largest = max(largest, total_s)
    return largest


@compiled
def state_bound(tables: Any, codes: Ints, load: Ints, clock: float, cost: float) -> Any:
    """Lower bound on the objective of every completion of a state reached at `clock` with `cost`."""
    if tables.latency:
        return cost + latency_bound(tables, codes, clock)
    bound = clock + makespan_bound(tables, codes, load)
    for k in range(codes.size):
        if tables.arrival_s[k] > clock:
            return max(bound, tables.tail_s[k])
    return bound


@compiled
def _admissible(
    tables: Any, codes: Ints, chosen: Ints, start: float, waited: bool, num_tokens: int, num_blocks: int, num_seqs: int
) -> Any:
    """Whether a batch within the caps is worth looking at; see `expand` for the rules."""
    decodes = False
    restarts = False
    continues = False
    newest = not waited
    for i in range(codes.size):
        flags = tables.flags[chosen[i]]
        if flags & 2 and (
            num_blocks + tables.held[chosen[i]] <= tables.num_blocks and num_seqs + 1 <= tables.max_seqs
        ):
            return False
        decodes = decodes or tables.is_decode[chosen[i]] == 1
        restarts = restarts or flags & 4 != 0
        continues = continues or flags & 8 != 0
        newest = newest or (flags & 1 != 0 and tables.arrival_s[i] == start)
    if not newest:
        return False
    return not tables.lean or not (
        (decodes and restarts) or (continues and num_tokens < tables.max_tokens)
    )


@compiled
def _seconds(tables: Any, chosen: Ints) -> Any:
    """Duration of the batch of the chosen actions."""
    num_tokens = work = prefills = prefill_context = decode_context = decodes = 0
    for i in range(chosen.size):
        a = chosen[i]
        num_tokens += tables.tokens[a]
        work += tables.work[a]
        prefills += tables.is_prefill[a]
        prefill_context += tables.prefill_context[a]
        decode_context += tables.decode_context[a]
        decodes += tables.is_decode[a]
    return batch_seconds(
        tables.theta, tables.term_end, tables.floor_context,
        num_tokens, work, prefills, prefill_context, decode_context, decodes,
    )  # fmt: skip


@compiled
def _emit(
    tables: Any, codes: Ints, chosen: Ints, load: Ints, clock: float, start: float, cost: float, limit: float,
    children: Any, count: int,
) -> Any:  # fmt: skip
    """Append the successor of the chosen actions unless its bound reaches `limit`; returns the new count."""
    n = codes.size
    end = start + _seconds(tables, chosen)
    after = np.empty(n, np.int64)
    unfinished = 0
    for i in range(n):
        unfinished += tables.unfinished[tables.offset[i] + codes[i]]
        after[i] = tables.to_code[chosen[i]]
        if tables.flags[chosen[i]] & 16 and end - tables.arrival_s[i] > tables.ttft_limit_s[i]:
            return count
    new_cost = cost + (end - clock) * unfinished if tables.latency else end
    bound = state_bound(tables, after, load, end, new_cost)
    if bound >= limit:
        return count
    if count < children.key.size:
        children.key[count] = encode_sorted(tables, after)
        children.clock[count] = end
        children.cost[count] = new_cost
        children.bound[count] = bound
        for i in range(n):
            children.action[count, i] = chosen[i]
    return count + 1


@compiled
def _starting_at(
    tables: Any, codes: Ints, clock: float, start: float, cost: float, limit: float, children: Any, count: int
) -> Any:
    """Append the successors whose iteration begins at `start`; returns the new count."""
    n = codes.size
    loads = tables.load_cap.size
    chosen = np.zeros(n, np.int64)
    num_tokens = np.zeros(n + 1, np.int64)
    num_blocks = np.zeros(n + 1, np.int64)
    num_seqs = np.zeros(n + 1, np.int64)
    load = np.zeros((n + 1, loads), np.int64)
    depth = 0
    chosen[0] = tables.action_start[tables.offset[0] + codes[0]] - 1
    while depth >= 0:
        chosen[depth] += 1
        code = tables.offset[depth] + codes[depth]
        a = chosen[depth]
        if a >= tables.action_start[code + 1]:
            depth -= 1
            continue
        if tables.tokens[a] > 0 and tables.arrival_s[depth] > start:
            continue
        num_tokens[depth + 1] = num_tokens[depth] + tables.tokens[a]
        num_blocks[depth + 1] = num_blocks[depth] + tables.blocks[a]
        num_seqs[depth + 1] = num_seqs[depth] + (1 if tables.blocks[a] > 0 else 0)
        if (
            num_tokens[depth + 1] > tables.max_tokens
            or num_blocks[depth + 1] > tables.num_blocks
            or num_seqs[depth + 1] > tables.max_seqs
        ):
            continue
        after = tables.offset[depth] + tables.to_code[a]
        for f in range(loads):
            load[depth + 1, f] = load[depth, f] + tables.load[after, f]
        if depth + 1 < n:
            depth += 1
            chosen[depth] = tables.action_start[tables.offset[depth] + codes[depth]] - 1
            if tables.same[depth] == 1 and codes[depth] == codes[depth - 1]:
                chosen[depth] = (
                    chosen[depth - 1] - tables.action_start[tables.offset[depth - 1] + codes[depth - 1]] + chosen[depth]
                )
        elif num_tokens[n] > 0 and _admissible(
            tables, codes, chosen, start, start > clock, num_tokens[n], num_blocks[n], num_seqs[n]
        ):
            count = _emit(tables, codes, chosen, load[n], clock, start, cost, limit, children, count)
    return count


@compiled
def expand(tables: Any, codes: Ints, clock: float, cost: float, limit: float, children: Any) -> Any:
    """Append every successor of a state whose bound is below `limit`; returns how many there are.

    Without loss some successors are skipped. An iteration starts now or, after waiting, at the arrival of a
    request it serves. KV is given up only when keeping it would not fit (the latest moment is the best one).
    Where the cost is `lean`: no request restarts beside a decode (decoding it is cheaper), and later chunks of a
    prefill only join full batches (its earlier chunks could have waited).

    If more successors exist than the buffers hold, the count says so and the rest is lost.
    """
    count = _starting_at(tables, codes, clock, clock, cost, limit, children, 0)
    previous = clock
    for i in range(codes.size):
        start = tables.arrival_s[i]
        if start > previous:
            count = _starting_at(tables, codes, clock, start, cost, limit, children, count)
            previous = start
    return count
