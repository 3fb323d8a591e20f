"""Does it fit? Blocks, reservations and the admission tests."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.group import emitted
from infermax_gym.engine.kernel.keys import output_estimate
from infermax_gym.engine.kernel.memory import histogram_of, requests, running, sort_ids, sort_keys
from infermax_gym.engine.policy import AdmissionCheck, Reserve


@inlined
def blocks_for(s: Any, num_tokens: int) -> Any:
    """Blocks that hold `num_tokens` tokens."""
    block_size = s.block_size
    return (num_tokens + block_size - 1) // block_size


@compiled
def reserved_blocks(s: Any, r: int, stored: int) -> Any:
    """Blocks that r, which waits, gets on admission, at most all; `stored` tokens are its own after its first pass."""
    req = requests(s)
    q = req[r]
    kind = s.reserve
    known = q.prompt + q.generated
    tokens = known
    if kind == Reserve.CHUNK:
        tokens = stored
    elif kind == Reserve.TOTAL_ESTIMATE:
        tokens = max(known, q.prompt + output_estimate(s, r) - 1)
    elif kind == Reserve.MODEL_LENGTH:
        tokens = max(known, s.max_model_len)
    return min(blocks_for(s, tokens), s.num_blocks)


@compiled
def _checked_blocks(s: Any, r: int, reserved: int) -> Any:
    """Blocks that must be free for r: its reservation, or what the policy's check asks beyond it."""
    req = requests(s)
    histogram = histogram_of(s)
    kind = s.admission_check
    q = req[r]
    known = q.prompt + q.generated
    needed = reserved
    if kind == AdmissionCheck.KNOWN:
        needed = max(reserved, blocks_for(s, known))
    elif kind == AdmissionCheck.HISTOGRAM:
        bucket = bucket_of(q.prompt)
        count = histogram[bucket, 0]
        mean = 0
        if count > 0:
            mean = int(math.ceil(histogram[bucket, 1] / count))
        needed = max(reserved, blocks_for(s, max(known, mean)))
    return min(needed, s.num_blocks)


@compiled
def bucket_of(prompt: int) -> Any:
    """floor(log2 prompt)."""
    bucket = 0
    while prompt > 1:
        prompt >>= 1
        bucket += 1
    return bucket


@compiled
def future_peak(s: Any, waiting_request: int) -> Any:
    """Most KV tokens that the running requests and the waiting request will ever need, if nobody else joins.

    Were all to decode in lock-step, the peak comes at somebody's completion: with requests sorted by remaining
    tokens, descending, it is the maximum over k of rest_k * k + the sum of the first k present needs.
    """
    req = requests(s)
    run = running(s)
    keys = sort_keys(s)
    ids = sort_ids(s)
    count = 0
    for i in range(s.num_running + 1):
        r = waiting_request if i == s.num_running else run[i]
        rest = max(output_estimate(s, r) - emitted(s, req[r]) - 1, 0)
        j = count
        while j > 0 and keys[j - 1] < rest:
            keys[j] = keys[j - 1]
            ids[j] = ids[j - 1]
            j -= 1
        keys[j] = rest
        ids[j] = req[r].prompt + emitted(s, req[r]) + s.block_size - 1
        count += 1
    peak = 0.0
    present = 0
    for k in range(count):
        present += ids[k]
        peak = max(peak, keys[k] * (k + 1) + present)
    return peak


@compiled
def fits(s: Any, r: int, reserved: int, freed: int, left: int) -> Any:
    """Whether waiting request r fits with `reserved` blocks.

    `freed` blocks count as free already (it finds them, held by somebody, or victims that are only considered hold
    them), and `left` requests as gone.
    """
    free = s.free_blocks + freed
    running = s.num_running - left
    if running == 0:
        return reserved <= free
    rest = free - _checked_blocks(s, r, reserved)
    if rest < s.watermark_blocks or rest * s.block_size < s.headroom_tokens * running:
        return False
    if s.admission_check == AdmissionCheck.FUTURE_PEAK:
        return future_peak(s, r) <= (1.0 - s.peak_margin) * s.num_blocks * s.block_size
    return True
