"""Grant tokens, take them back, preempt: the only places where blocks change hands."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.fit import blocks_for
from infermax_gym.engine.kernel.group import leave_group, spell_out
from infermax_gym.engine.kernel.keys import is_pinned, set_queue_key, victim_score
from infermax_gym.engine.kernel.levels import begin_wait
from infermax_gym.engine.kernel.memory import batch_of, holds_of, preempted_of, requests, running
from infermax_gym.engine.kernel.prefix import publish, release, release_kept
from infermax_gym.engine.kernel.queue import push
from infermax_gym.engine.kernel.seconds import prefill_seconds
from infermax_gym.engine.layout import RUNNING, WAITING
from infermax_gym.engine.policy import PreemptMode, QueueOrder, Victim, VictimPool


@inlined
def join(s: Any, r: int, blocks: int, found: int) -> None:
    """Append request r, no longer in the queue, to the running list with `blocks` blocks, `found` of them its own."""
    req = requests(s)
    run = running(s)
    q = req[r]
    if s.num_running > 0 and run[s.num_running - 1] > r:
        s.run_unsorted = 1
    run[s.num_running] = r
    s.num_running += 1
    s.num_running_prefills += q.in_prefill
    s.free_blocks -= blocks - found
    q.held = blocks
    q.place = RUNNING


@compiled
def leave(s: Any, position: int) -> None:
    """Take the request at `position` out of the running list, keeping the order of the others."""
    req = requests(s)
    run = running(s)
    s.num_running_prefills -= req[run[position]].in_prefill
    for i in range(position, s.num_running - 1):
        run[i] = run[i + 1]
    s.num_running -= 1


@inlined
def grant(s: Any, r: int, num_tokens: int) -> None:
    """Put (r, num_tokens) into the batch; r takes the blocks that it lacks."""
    req = requests(s)
    batch = batch_of(s)
    q = req[r]
    q.batch_slot = s.batch_size
    batch[s.batch_size, 0] = r
    batch[s.batch_size, 1] = num_tokens
    s.batch_size += 1
    s.tokens_left -= num_tokens
    s.num_tokens += num_tokens
    if q.in_prefill:
        s.prefill_left -= num_tokens
        s.num_prefills += 1
        s.prefill_work += num_tokens * num_tokens + 2 * num_tokens * q.computed
        s.prefill_context += q.computed
    else:
        s.num_decodes += 1
        s.decode_context += q.computed
    if q.computed + num_tokens > q.held * s.block_size:
        missing = blocks_for(s, q.computed + num_tokens) - q.held
        s.free_blocks -= missing
        q.held += missing


@compiled
def _refund(s: Any, r: int) -> None:
    """Take r out of the batch that is being built."""
    req = requests(s)
    batch = batch_of(s)
    q = req[r]
    slot = q.batch_slot
    num_tokens = batch[slot, 1]
    s.tokens_left += num_tokens
    s.num_tokens -= num_tokens
    if q.in_prefill:
        s.prefill_left += num_tokens
        s.num_prefills -= 1
        s.prefill_work -= num_tokens * num_tokens + 2 * num_tokens * q.computed
        s.prefill_context -= q.computed
    else:
        s.num_decodes -= 1
        s.decode_context -= q.computed
    s.batch_size -= 1
    for i in range(slot, s.batch_size):
        batch[i, 0] = batch[i + 1, 0]
        batch[i, 1] = batch[i + 1, 1]
        req[batch[i, 0]].batch_slot = i
    q.batch_slot = -1


@inlined
def release_withheld(s: Any) -> None:
    """Free the blocks that finished requests kept while others ran."""
    s.free_blocks += s.withheld_blocks
    s.withheld_blocks = 0
    if s.prefix_caching:
        release_kept(s)


@inlined
def free_blocks_of(s: Any, r: int) -> None:
    """Free what request r holds, who has left the running list, and what was withheld, if nobody runs any more."""
    q = requests(s)[r]
    if s.prefix_caching:
        publish(s, r, q.computed // s.block_size)
        release(s, r)
    else:
        s.free_blocks += q.held
        q.held = 0
    if s.num_running == 0 and not s.lingers:
        release_withheld(s)


@inlined
def _swaps(s: Any, num_tokens: int) -> Any:
    """Whether a victim's KV moves to the host."""
    if s.preempt_mode == PreemptMode.CHEAPER:
        return 2.0 * num_tokens / s.swap_tokens_per_s < prefill_seconds(s, num_tokens)
    return s.preempt_mode == PreemptMode.SWAP


@compiled
def preempt(s: Any, position: int) -> None:
    """Preempt the request at `position` of the running list: it loses its blocks and waits again."""
    req = requests(s)
    run = running(s)
    preempted = preempted_of(s)
    r = run[position]
    q = req[r]
    if q.grouped:
        leave_group(s, q)
    if q.batch_slot >= 0:
        _refund(s, r)
    leave(s, position)
    free_blocks_of(s, r)
    if 0 < q.computed <= s.host_free_tokens and _swaps(s, q.computed):
        s.host_free_tokens -= q.computed
        s.swapped_tokens += q.computed
        q.on_host = 1
    else:
        s.num_recomputed += q.computed
        q.recomputed += q.computed
        if s.prefix_caching:
            holds_of(s)[r].lost = q.computed
        q.computed = 0
        q.in_prefill = 1
    q.paused = 0
    q.preemptions += 1
    s.num_preemptions += 1
    s.changed = 1
    if preempted[0] + 1 < preempted.size:
        preempted[0] += 1
        preempted[preempted[0]] = r
    q.place = WAITING
    begin_wait(s, r, s.clock_s)
    set_queue_key(s, r)
    if s.queue_order == QueueOrder.FIFO:
        s.front_key -= 1.0
        q.key = s.front_key
    push(s, r)


@inlined
def guarded(s: Any) -> Any:
    """Whether the progress guard holds: too many iterations in a row emitted no token, or too much was recomputed."""
    return s.stalled_iterations > s.stall_limit or s.wasteful != 0


@inlined
def _spares_granted(s: Any) -> Any:
    """Whether requests that have got tokens in this call are no candidates."""
    return s.victim_pool == VictimPool.UNVISITED or guarded(s)


@inlined
def _granted(s: Any, q: Any) -> Any:
    """Whether a running request has got tokens in this call."""
    return q.batch_slot >= 0 or (s.group_runs and q.grouped)


@compiled
def _largest_key(s: Any, start: int, unvisited_only: bool) -> Any:
    """Position, from `start` on, of the largest victim key; pinned requests only if all are. -1 if there is nobody."""
    req = requests(s)
    run = running(s)
    best = -1
    best_score = 0.0
    best_pinned = False
    for i in range(start, s.num_running):
        r = run[i]
        if unvisited_only and _granted(s, req[r]):
            continue
        score = victim_score(s, r)
        pinned = is_pinned(s, r)
        if best < 0 or (best_pinned and not pinned) or (best_pinned == pinned and score > best_score):
            best = i
            best_score = score
            best_pinned = pinned
    return best


@compiled
def _pick_victim(s: Any, position: int) -> Any:
    """Position of the victim that makes room for the request at `position`, or `position` itself."""
    req = requests(s)
    run = running(s)
    unvisited_only = _spares_granted(s)
    if s.victim == Victim.LIST_TAIL or guarded(s):
        last = s.num_running - 1
        while unvisited_only and last > position and _granted(s, req[run[last]]):
            last -= 1
        return last
    best = _largest_key(s, position + 1 if unvisited_only else 0, unvisited_only)
    return best if best >= 0 else position


@compiled
def _clear_share(s: Any, position: int) -> Any:
    """Preempt `evict_share` of all running requests, by the victim rule.

    Returns the position of the request that stood at `position`, or of whoever stood behind it, and whether it is
    still running.
    """
    if s.group_runs:
        spell_out(s)
    s.cleared = 1
    s.preempted_in_serve = 1
    stays = True
    for _ in range(int(math.ceil(s.evict_share * s.num_running))):
        victim = s.num_running - 1 if s.victim == Victim.LIST_TAIL else _largest_key(s, 0, False)
        preempt(s, victim)
        if victim < position:
            position -= 1
        elif victim == position:
            stays = False
    return position, stays


@inlined
def make_room(s: Any, position: int, num_tokens: int) -> Any:
    """Preempt until the running request at `position` can store `num_tokens` more tokens.

    Returns its position then and whether it is still running; if it preempted itself, the position is that of
    whoever stood behind it.
    """
    req = requests(s)
    run = running(s)
    r = run[position]
    q = req[r]
    if q.computed + num_tokens <= q.held * s.block_size:
        return position, True
    missing = blocks_for(s, q.computed + num_tokens) - q.held
    if missing > s.free_blocks and s.group_runs and not _spares_granted(s):
        spell_out(s)
    if missing > s.free_blocks and s.evict_share > 0.0 and not s.cleared and not guarded(s):
        position, stays = _clear_share(s, position)
        if not stays:
            return position, False
    while missing > s.free_blocks:
        victim = _pick_victim(s, position)
        s.preempted_in_serve = 1
        preempt(s, victim)
        if victim == position:
            return position, False
        if victim < position:
            position -= 1
    return position, True
