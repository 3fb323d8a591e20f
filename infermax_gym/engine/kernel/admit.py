"""Who joins: swapped requests that come back, waiting requests, and waiting requests that preempt others."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.evict import grant, guarded, join, preempt
from infermax_gym.engine.kernel.fair import charge
from infermax_gym.engine.kernel.fit import blocks_for, fits, reserved_blocks
from infermax_gym.engine.kernel.keys import is_pinned, queue_score
from infermax_gym.engine.kernel.memory import requests, running, skipped_of, sort_ids, sort_keys
from infermax_gym.engine.kernel.prefix import (
    find_for,
    freed_by,
    publish_batch,
    publish_shared,
    take_found,
)
from infermax_gym.engine.kernel.queue import head, oldest, push, remove
from infermax_gym.engine.kernel.serve import chunk_tokens
from infermax_gym.engine.policy import OnMisfit, QueueOrder


@inlined
def _channel_busy(s: Any) -> Any:
    """Whether more transfers are pending than may lag behind, so that no other is begun without need."""
    if s.swap_lag_tokens == 0 or s.num_running == 0:
        return False
    return s.pending_swap_tokens + s.swapped_tokens > s.swap_lag_tokens


@compiled
def resume_swapped(s: Any) -> None:
    """Bring requests back from the host while they lead the queue and fit."""
    req = requests(s)
    while s.num_waiting > 0 and s.num_running < s.max_num_seqs:
        r = head(s)
        q = req[r]
        if not q.on_host or (s.num_running > 0 and guarded(s)) or _channel_busy(s):
            return
        spare = s.free_blocks + find_for(s, r)[1] - blocks_for(s, q.computed + 1)
        if spare < (s.watermark_blocks if s.num_running > 0 else 0):
            return
        bring_in(s, r, blocks_for(s, q.computed))


@compiled
def bring_in(s: Any, r: int, blocks: int) -> None:
    """Move waiting request r to the running list with `blocks` blocks, its swapped KV back on the device.

    What it finds in the prefix cache it takes too, even beyond `blocks`.
    """
    q = requests(s)[r]
    remove(s, r)
    found = take_found(s, r)
    join(s, r, max(blocks, found), found)
    if q.on_host:
        q.on_host = 0
        s.host_free_tokens += q.computed
        s.swapped_tokens += q.computed
        s.changed = 1
        if s.prefix_caching:
            publish_shared(s, r, q.computed)


@compiled
def has_room_for(s: Any, r: int, freed: int, left: int) -> Any:
    """Whether r joins once `left` victims are gone and `freed` blocks with them; if any go, nothing is found held."""
    req = requests(s)
    known = req[r].prompt + req[r].generated
    if left == 0:
        freed += find_for(s, r)[1]
    return s.num_running - left < s.max_num_seqs and fits(s, r, reserved_blocks(s, r, known), freed, left)


@compiled
def preempt_for(s: Any, r: int, key: float) -> Any:
    """Preempt as few running requests with keys larger than `key` as let r in; False (and no change) if all do not."""
    run = running(s)
    keys = sort_keys(s)
    ids = sort_ids(s)
    for i in range(s.num_running):
        keys[i] = -np.inf if is_pinned(s, run[i]) else queue_score(s, run[i])
    freed = 0
    left = 0
    while not has_room_for(s, r, freed, left):
        worst = -1
        for i in range(s.num_running):
            if keys[i] > key and (worst < 0 or keys[i] >= keys[worst]):
                worst = i
        if worst < 0:
            return False
        keys[worst] = -np.inf
        ids[left] = run[worst]
        freed += freed_by(s, run[worst])
        left += 1
    for v in range(left):
        position = 0
        while run[position] != ids[v]:
            position += 1
        preempt(s, position)
    return True


@compiled
def displace(s: Any) -> None:
    """Waiting requests with smaller queue keys preempt running requests and join without tokens yet.

    Losing its KV may lower a request's key: whoever was preempted at this clock preempts nobody in return, or two
    could go on for ever.
    """
    req = requests(s)
    if not s.preempt_for_waiting or guarded(s):
        return
    while s.num_waiting > 0 and s.num_running > 0:
        r = head(s)
        just_left = req[r].preemptions > 0 and req[r].waiting_since_s == s.clock_s
        if has_room_for(s, r, 0, 0) or just_left or _channel_busy(s) or not preempt_for(s, r, req[r].key):
            return
        bring_in(s, r, reserved_blocks(s, r, req[r].prompt + req[r].generated))


@inlined
def _gate_closed(s: Any) -> Any:
    """Whether the policy holds admission in this call."""
    req = requests(s)
    if s.preempted_in_serve and not s.admit_after_preemption:
        return True
    if s.admit_when_empty_only and s.num_running_at_start > 0:
        return True
    if s.num_waiting < s.min_waiting and s.next_arrival < s.num_requests:
        return True
    if s.num_running == 0:
        return False
    if guarded(s):
        return True
    if s.decodes_since_admission < s.min_decodes_between_prefills:
        return True
    if s.delay_factor > 0.0 and s.num_waiting > 0:
        waited = s.clock_s - req[oldest(s)].arrival_s
        return waited <= s.delay_factor * s.last_prefill_s
    return False


@compiled
def admit(s: Any) -> None:
    """Waiting requests join, best key first, while sequences, tokens and memory last."""
    req = requests(s)
    skipped = skipped_of(s)
    if s.num_waiting == 0 or _gate_closed(s):
        return
    shares = s.prefix_caching and s.shares_in_batch
    if shares:
        publish_batch(s)
    num_skipped = 0
    while s.num_waiting > 0 and s.num_running < s.max_num_seqs and s.tokens_left > 0:
        if s.num_running_prefills >= s.max_prefills:
            break
        r = head(s)
        found, found_held = find_for(s, r)
        computed = found * s.block_size
        num_tokens = chunk_tokens(s, r, computed)
        if req[r].on_host or num_tokens <= 0:
            break
        blocks = reserved_blocks(s, r, computed + num_tokens)
        if fits(s, r, blocks, found_held, 0):
            bring_in(s, r, blocks)
            s.num_admitted += 1
            if s.queue_order == QueueOrder.FAIR and req[r].preemptions == 0:
                charge(s, r, s.prompt_charge * req[r].prompt)
            grant(s, r, num_tokens)
            if shares:
                publish_shared(s, r, computed + num_tokens)
        elif s.on_misfit == OnMisfit.SKIP and num_skipped < s.max_skips:
            remove(s, r)
            skipped[num_skipped] = r
            num_skipped += 1
        else:
            break
    for i in range(num_skipped):
        push(s, skipped[i])
