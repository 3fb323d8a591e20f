"""The records of the annealing search: a case, the scratch of a schedule, and the columns of their arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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

# Columns of the state of a request.
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

# Entries of `Scratch.joined`: what the prefills of a batch add up to, as the cost model counts it.
TOKENS = 0
WORK = 1
PREFILLS = 2
CONTEXT = 3

FAR = 2**60


class Case(NamedTuple):
    """The requests, by arrival, and the engine.

    Attributes:
        prompt, output: (n,) tokens.
        arrival_s: (n,) seconds.
        num_blocks, block_size, max_num_batched_tokens, max_num_seqs: of the engine.
        floor_context, theta, term_end: the cost model, see `cost.kernel.batch_seconds`.
        latency: the objective is the sum of finish times, not the last one.
        preemptive: whether a schedule may preempt at all.
    """

    prompt: Ints
    output: Ints
    arrival_s: Floats
    num_blocks: int
    block_size: int
    max_num_batched_tokens: int
    max_num_seqs: int
    floor_context: bool
    theta: Floats
    term_end: Ints
    latency: bool
    preemptive: bool


class Scratch(NamedTuple):
    """Buffers of a schedule under way.

    Attributes:
        state: (n, STATE_COLUMNS) of each request.
        running: (n + 1,) who runs, COUNT of them.
        joining: (n + 1,) who joins the next batch, NUM_JOINING of them.
        rest, known: (n + 1,) remaining batches and known tokens of those who would run, most batches first.
        residue: (block size,) how many of those who run begin a block in which batch, by its number modulo the size.
        joined: (4,) totals of the prefills of a batch, see above.
        counter: (NUM_COUNTERS,) see above; STEP and NUM_EVENTS are results.
    """

    state: Ints
    running: Ints
    joining: Ints
    rest: Ints
    known: Ints
    residue: Ints
    joined: Ints
    counter: Ints


def new_scratch(num_requests: int, block_size: int) -> Scratch:
    """Buffers for a case of this size."""
    return Scratch(
        state=np.zeros((num_requests, STATE_COLUMNS), np.int64),
        running=np.zeros(num_requests + 1, np.int64),
        joining=np.zeros(num_requests + 1, np.int64),
        rest=np.zeros(num_requests + 1, np.int64),
        known=np.zeros(num_requests + 1, np.int64),
        residue=np.zeros(block_size, np.int64),
        joined=np.zeros(CONTEXT + 1, np.int64),
        counter=np.zeros(NUM_COUNTERS, np.int64),
    )
