"""Carry out a decision made outside the kernel, checking every rule of the engine."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.admit import bring_in
from infermax_gym.engine.kernel.decide import begin
from infermax_gym.engine.kernel.evict import grant, preempt
from infermax_gym.engine.kernel.fit import blocks_for
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.kernel.prefix import find_for, publish_shared
from infermax_gym.engine.layout import RUNNING, WAITING

FAULTS = (
    "",
    "is not running and cannot be preempted",
    "does not exist or has not arrived",
    "is neither waiting nor running",
    "stands in the batch twice",
    "must get one token, as every decode",
    "must get between 1 and its missing tokens",
    "exceeds the token budget of the iteration",
    "finds no free sequence: max_num_seqs requests are running",
    "finds no free KV block for its tokens",
)
NOT_THERE = 2


@compiled
def _fault_of(s: Any, r: int, num_tokens: int) -> Any:
    """Index into FAULTS of what is wrong with giving r `num_tokens` tokens now, 0 if nothing is."""
    req = requests(s)
    if r < 0 or r >= s.next_arrival:
        return NOT_THERE
    q = req[r]
    if q.place != WAITING and q.place != RUNNING:
        return 3
    if q.batch_slot >= 0:
        return 4
    if not q.in_prefill and num_tokens != 1:
        return 5
    if num_tokens < 1 or (q.in_prefill and num_tokens > q.prompt + q.generated - q.computed):
        return 6
    if num_tokens > s.tokens_left:
        return 7
    if q.place == WAITING and s.num_running >= s.max_num_seqs:
        return 8
    return 0


@compiled
def _serve(s: Any, r: int, num_tokens: int) -> Any:
    """Give r its tokens, after bringing it in if it waits; it computes no token that it finds in the cache.

    Returns an index into FAULTS.
    """
    fault = _fault_of(s, r, num_tokens)
    if fault:
        return fault
    q = requests(s)[r]
    waits = q.place == WAITING
    computed = q.computed
    held = q.held
    if waits:
        found, held = find_for(s, r)
        computed = max(computed, found * s.block_size)
        num_tokens = min(num_tokens, q.prompt + q.generated - computed)
    if blocks_for(s, computed + num_tokens) - held > s.free_blocks:
        return 9
    if waits:
        bring_in(s, r, blocks_for(s, computed))
        s.num_admitted += 1
    grant(s, r, num_tokens)
    if s.prefix_caching:
        publish_shared(s, r, computed + num_tokens)
    return 0


@compiled
def apply_decision(s: Any, batch: Any, victims: Any) -> Any:
    """Build the batch from (k, 2) int64 (request, tokens), after preempting (v,) int64 requests.

    Returns (0, -1), or an index into FAULTS and the request it speaks of.
    """
    run = running(s)
    disband(s)
    begin(s)
    s.num_decisions += 1
    for v in victims:
        position = 0
        while position < s.num_running and run[position] != v:
            position += 1
        if position == s.num_running:
            return 1, v
        preempt(s, position)
    for i in range(batch.shape[0]):
        r = batch[i, 0]
        fault = _serve(s, r, batch[i, 1])
        if fault:
            return fault, r
    return 0, -1
