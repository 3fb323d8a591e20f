"""Where things lie in the flat arrays of the search.

Numba hands a named tuple of arrays to a function word by word, which costs more than the small functions of the
search do; so the tables are one integer and one float array, with a header of sizes and positions, and the
scratch is likewise.

    ints    tables: header, then the blocks below
    floats  tables in seconds
    work    integer scratch
    work_s  float scratch
"""

from __future__ import annotations

# Header of `ints`: sizes and flags.
NUM_REQUESTS = 0
NUM_BLOCKS = 1
MAX_TOKENS = 2
MAX_SEQS = 3
LATENCY = 4  # objective is the sum of finish times instead of the last one
LEAN = 5  # the cost is linear with non-negative coefficients, so dominated actions can be skipped
TIMED = 6  # states are only comparable with their clocks
FLOOR_CONTEXT = 7  # of the cost model
NUM_LOADS = 8
NUM_MINORANTS = 9
BACKWARD = 10  # time runs backward
MASK_BITS = 11  # low bits of a key: one per request, set where its code is a twin
BLOCK_SIZE = 12
CHUNK_RULE = 13  # which prefill chunks are looked at, see below

# Header of `ints`: positions of blocks in `ints`.
SAME = 14  # (n,) 1 where the request is identical to the one before it
OFFSET = 15  # (n + 1,) number of each request's first code; its last code means finished
STRIDE = 16  # (n,) weight of a request's base in the key of a state
UNBASE = 17  # (codes,) first code of each base of a request, from its offset on
ACTION_START = 18  # (codes + 1,) first action of a code
ACTION = 19  # (actions, NUM_COLUMNS)
CODE = 20  # (codes, CODE_COLUMNS)
LOAD = 21  # (codes, num_loads) remaining load of a request under each packing bound
LOAD_CAP = 22  # (num_loads,) what one batch can take of it
LOAD_WINDOW = 23  # (num_loads,) batches outside of the window that the load is restricted to

# Header of `ints`: positions of blocks in `floats`, all in seconds.
ARRIVAL = 24  # (n,)
TTFT_LIMIT = 25  # (n,)
TAIL = 26  # (n + 1,) lower bound on the makespan of what arrives with request k or later
RESTART_S = 27  # (actions,) what a restart costs more than the decode it replaces, without batch constants
CODE_S = 28  # (codes, 2 + num_minorants)
PER_BATCH = 29  # (num_minorants, 3) constants of a batch: any, with decodes, with prefills
LAST_EVENT = 30  # (1,) clock after which states are comparable without it

# Header of `ints`: positions of blocks in `work`.
CODES = 31  # (n,) the state being expanded
CHOSEN = 32  # (n,) action picked for each request
AFTER = 33  # (n,) codes after it
SUMS = 34  # (n + 1, SUMMED) totals of the actions picked so far
LOAD_SUMS = 35  # (n + 1, num_loads)
MOST = 36  # (n + 1, 2) blocks and sequences that the requests from i on can take at most
ROOM = 37  # (4, n) of the bounds; in `work_s` (3, n) from 0

HEADER = 38

# Columns of an action; the first SUMMED of them add up over a batch.
TOKENS = 0
WORK = 1
PREFILLS = 2
PREFILL_CONTEXT = 3
DECODE_CONTEXT = 4
DECODES = 5
BLOCKS = 6
SEATS = 7
RESTARTS = 8  # gives up the KV of a decode and prefills anew in the same iteration
CONTINUES = 9  # a prefill chunk behind resident ones
PAUSES = 10  # has decoded since its prefill and idles
PARKS = 11  # has not decoded since its prefill and idles
PARTIALS = 12  # a prefill chunk that leaves tokens to be prefilled
SUMMED = 13
HELD = 13  # blocks dropped by a request that drops its KV and passes nothing, else 0
FIRST = 14  # emits the first token
LOCKS = 15  # backward: blocks of the pass that would come next; the request is locked if they fit as well
TO_CODE = 16
NUM_COLUMNS = 17

# Integer columns of a code.
CHAIN = 0  # least number of iterations until the request is finished
DUE = 1  # 1 if it must still complete a prefill
UNFINISHED = 2
FINISHES = 3  # 1 if its finish is still ahead
LOW = 4  # blocks it holds at least from now, or from its next prefill, to its end
RISE = 5  # blocks of its last pass less LOW
RESIDENT = 6  # KV tokens
RUNS = 7  # 1 if it decodes in every batch that decodes, until it finishes or is preempted
BASE = 8  # number among the request's codes, twins counted once
TWIN = 9  # 1 if it is a more restricted version of the code before it
CODE_COLUMNS = 10

# Float columns of a code.
CHAIN_S = 0  # least seconds until it is finished, alone
REFILL_S = 1  # least extra of preempting it later
FLOOR_S = 2  # first of the columns: remaining token times under each minorant

# Values of CHUNK_RULE.
ALL_CHUNKS = 0
FULL_BATCHES = 1  # later chunks only join batches that use up the token budget
BEFORE_GAPS = 2  # after an unfinished prefill the engine waits for an arrival
