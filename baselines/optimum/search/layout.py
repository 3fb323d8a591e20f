"""The records of the compiled search: its tables, its scratch, and the columns of their arrays.

    Tables      the problem, constant while the search runs: sizes, flags, and arrays over requests, codes and actions
    Scratch     buffers that the functions of the search overwrite
    Successors  what `expand` finds

A *code* numbers the situations of a request (`automaton.py`), a *state* is one code per request, and an *action* is
what a request does in one iteration. Codes of all requests lie one after another, each request's from `Tables.offset`
on; actions of all codes likewise, from `Tables.action_start` on.

Numba hands a record to a function array by array and counts a reference to each. So only the few outermost functions
are called; those they call are expanded in place (`compile.inlined`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class ActionRow(NamedTuple):
    """The columns of an action; those before `held` add up over a batch.

    Attributes:
        tokens, work, prefills, prefill_context, decode_context, decodes: what the cost model counts.
        blocks: KV blocks that the request takes in the iteration.
        seqs: 1 if it is resident in it.
        restarts: 1 if it drops the KV of a decode and prefills anew in the same iteration.
        continues: 1 for a prefill chunk behind resident ones.
        pauses: 1 if it has decoded since its prefill and idles.
        parks: 1 if it has not decoded since its prefill and idles.
        partials: 1 for a prefill chunk that leaves tokens to be prefilled.
        held: blocks dropped by a request that drops its KV and passes nothing, else 0.
        first: 1 if it emits the first token.
        locks: backward, blocks of the pass that would come next; the request is locked if they fit as well.
        to_code: the code after it.
    """

    tokens: int
    work: int
    prefills: int
    prefill_context: int
    decode_context: int
    decodes: int
    blocks: int
    seqs: int
    restarts: int
    continues: int
    pauses: int
    parks: int
    partials: int
    held: int
    first: int
    locks: int
    to_code: int


(
    TOKENS, WORK, PREFILLS, PREFILL_CONTEXT, DECODE_CONTEXT, DECODES, BLOCKS, SEQS, RESTARTS, CONTINUES, PAUSES, PARKS,
    PARTIALS, HELD, FIRST, LOCKS, TO_CODE,
) = range(len(ActionRow._fields))  # fmt: skip
NUM_SUMMED = HELD
"""Columns of an action that add up over a batch."""


class CodeRow(NamedTuple):
    """The integer columns of a code.

    Attributes:
        chain: least number of iterations until the request is finished.
        due: 1 if it must still complete a prefill.
        unfinished: 1 but for the last code of a request.
        finishes: 1 if its finish is still ahead.
        low: blocks it holds at least from now, or from its next prefill, to its end.
        rise: blocks of its last pass less `low`.
        resident: KV tokens.
        runs: 1 if it decodes in every batch that decodes, until it finishes or is preempted.
        base: number among the request's codes, twins counted once.
        twin: 1 if it is a more restricted version of the code before it.
    """

    chain: int
    due: int
    unfinished: int
    finishes: int
    low: int
    rise: int
    resident: int
    runs: int
    base: int
    twin: int


CHAIN, DUE, UNFINISHED, FINISHES, LOW, RISE, RESIDENT, RUNS, BASE, TWIN = range(len(CodeRow._fields))

# Float columns of a code.
CHAIN_S = 0  # least seconds until it is finished, alone
REFILL_S = 1  # least extra of preempting it later
FLOOR_S = 2  # first of the columns: remaining token times under each minorant

# Columns of the constants of a batch, in seconds.
ANY_BATCH = 0
WITH_DECODES = 1
WITH_PREFILLS = 2

# Values of `Tables.chunk_rule`: which prefill chunks are looked at.
ALL_CHUNKS = 0
FULL_BATCHES = 1  # later chunks only join batches that use up the token budget
BEFORE_GAPS = 2  # after an unfinished prefill the engine waits for an arrival


class Tables(NamedTuple):
    """The problem.

    Attributes:
        num_requests: n.
        num_blocks, block_size, max_num_batched_tokens, max_num_seqs: of the engine.
        floor_context: of the cost model.
        latency: the objective is the sum of finish times instead of the last one.
        lean: the cost is linear with non-negative coefficients, so dominated actions can be skipped.
        timed: states are only comparable with their clocks.
        backward: time runs backward.
        chunk_rule: which prefill chunks are looked at, see above.
        mask_bits: low bits of a key: one per request, set where its code is a twin.
        last_event_s: clock after which states are comparable without it.
        theta, term_end: the cost model, see `cost.kernel.batch_seconds`.
        same: (n,) whether the request is identical to the one before it.
        offset: (n + 1,) number of each request's first code; its last code means finished.
        stride: (n,) weight of a request's base in the key of a state.
        unbase: (codes,) first code of each base of a request, from its offset on.
        action_start: (codes + 1,) first action of a code.
        action: (actions, columns of `ActionRow`).
        code: (codes, columns of `CodeRow`).
        load: (codes, loads) remaining load of a request under each packing bound, see `loads.py`.
        load_cap: (loads,) what one batch can take of it.
        load_outside: (loads,) batches at both ends that take nothing of it.
        arrival_s, ttft_limit_s: (n,) seconds.
        tail_s: (n + 1,) lower bound on the makespan of what arrives with request k or later, seconds.
        restart_s: (actions,) what a restart costs more than the decode it replaces, without batch constants, seconds.
        code_s: (codes, 2 + minorants) CHAIN_S, REFILL_S and FLOOR_S.
        per_batch_s: (minorants, 3) ANY_BATCH, WITH_DECODES and WITH_PREFILLS.
    """

    num_requests: int
    num_blocks: int
    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    floor_context: bool
    latency: bool
    lean: bool
    timed: bool
    backward: bool
    chunk_rule: int
    mask_bits: int
    last_event_s: float
    theta: Floats
    term_end: Ints
    same: Bools
    offset: Ints
    stride: Ints
    unbase: Ints
    action_start: Ints
    action: Ints
    code: Ints
    load: Ints
    load_cap: Ints
    load_outside: Ints
    arrival_s: Floats
    ttft_limit_s: Floats
    tail_s: Floats
    restart_s: Floats
    code_s: Floats
    per_batch_s: Floats


class Scratch(NamedTuple):
    """Buffers.

    Attributes:
        codes: (n,) the state being expanded.
        chosen: (n,) action picked for each request.
        after: (n,) codes after it.
        sums: (n + 1, NUM_SUMMED) totals of the actions of the first k requests.
        load_sums: (n + 1, loads) likewise of the loads after them; the last row is that of a whole state.
        most_blocks, most_seqs: (n + 1,) what the requests from k on can take at most.
        sorted_blocks, sorted_steps: (n,) lists that the bounds sort.
        finish_batches: (n,) least iterations until k + 1 requests are finished.
        sorted_refill_s, sorted_alone_s, sorted_floor_s: (n,) lists that the bounds sort, seconds.
    """

    codes: Ints
    chosen: Ints
    after: Ints
    sums: Ints
    load_sums: Ints
    most_blocks: Ints
    most_seqs: Ints
    sorted_blocks: Ints
    sorted_steps: Ints
    finish_batches: Ints
    sorted_refill_s: Floats
    sorted_alone_s: Floats
    sorted_floor_s: Floats


class Successors(NamedTuple):
    """Room for the successors of one state.

    Attributes:
        key: (width,) the state.
        actions: (width, n) that lead to it.
        clock_s, cost_s, bound_s: (width,) when it is reached, objective so far, bound on the objective in the end.
    """

    key: Ints
    actions: Ints
    clock_s: Floats
    cost_s: Floats
    bound_s: Floats


def new_scratch(num_requests: int, num_loads: int) -> Scratch:
    """Buffers for a problem of this size."""
    n = num_requests
    return Scratch(
        codes=np.zeros(n, np.int64),
        chosen=np.zeros(n, np.int64),
        after=np.zeros(n, np.int64),
        sums=np.zeros((n + 1, NUM_SUMMED), np.int64),
        load_sums=np.zeros((n + 1, num_loads), np.int64),
        most_blocks=np.zeros(n + 1, np.int64),
        most_seqs=np.zeros(n + 1, np.int64),
        sorted_blocks=np.zeros(n, np.int64),
        sorted_steps=np.zeros(n, np.int64),
        finish_batches=np.zeros(n, np.int64),
        sorted_refill_s=np.zeros(n),
        sorted_alone_s=np.zeros(n),
        sorted_floor_s=np.zeros(n),
    )


def new_successors(width: int, num_requests: int) -> Successors:
    """Room for `width` successors; memory is touched only as they are written."""
    return Successors(
        np.empty(width, np.int64),
        np.empty((width, num_requests), np.int64),
        np.empty(width),
        np.empty(width),
        np.empty(width),
    )
