"""Lock-step decodes: all running decodes as one group that is served in constant time.

Most of an engine's life is the same pass for the same decodes. While nobody has to be preempted, every running
decode gets one token, so the group needs only its size, its summed context and, per phase of the block size,
how many members take a new block at that tick. A member's `computed` and `generated` are stored minus the
group's tick (`grouped` says so; `resident` and `emitted` read them), hence one addition moves all of them.
Whatever needs members one by one (a preemption, too few tokens or blocks) first disbands the group; results are
the same bit for bit.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import batch_of, fresh_of, phases_of, requests, running

FAR = 2**62

# What `offer_group` answers.
IMPOSSIBLE = 0
SHORT = 1
GRANTED = 2


@inlined
def resident(s: Any, q: Any) -> Any:
    """KV tokens of a request, in the group or not."""
    return q.computed + s.tick * q.grouped


@inlined
def emitted(s: Any, q: Any) -> Any:
    """Generated tokens of a request, in the group or not."""
    return q.generated + s.tick * q.grouped


@inlined
def blocks_held(s: Any, q: Any) -> Any:
    """Blocks of a request, in the group or not."""
    return max(q.held, (resident(s, q) + s.block_size - 1) // s.block_size) if q.grouped else q.held


@inlined
def _join(s: Any, q: Any) -> None:
    phases = phases_of(s)
    room = q.held * s.block_size - q.computed
    q.phased = room < s.block_size
    if q.phased:
        phases[(s.tick + room) % s.block_size] += 1
    else:
        s.group_roomy_until = min(s.group_roomy_until, s.tick + room - s.block_size + 1)
    s.group_size += 1
    s.group_context += q.computed
    q.computed -= s.tick
    q.generated -= s.tick
    q.grouped = 1
    q.fresh = 1
    s.group_ends = min(s.group_ends, q.output - q.generated)


@inlined
def _forget_fresh(s: Any, q: Any) -> None:
    req = requests(s)
    fresh = fresh_of(s)
    q.fresh = 0
    kept = 0
    for i in range(s.num_fresh):
        if req[fresh[i]].fresh:
            fresh[kept] = fresh[i]
            kept += 1
    s.num_fresh = kept


@inlined
def leave_group(s: Any, q: Any) -> None:
    """Take a member out and make its record absolute (between iterations, or where the group does not run)."""
    phases = phases_of(s)
    held = blocks_held(s, q)
    q.computed += s.tick
    q.generated += s.tick
    q.held = held
    if q.phased:
        room = held * s.block_size - q.computed
        phases[(s.tick + room) % s.block_size] -= 1
    if q.fresh:
        _forget_fresh(s, q)
    else:
        q.last_token_s = s.group_last_s
    q.grouped = 0
    s.group_size -= 1
    s.group_context -= q.computed


@compiled
def disband(s: Any) -> None:
    """Make every member's record absolute."""
    req = requests(s)
    run = running(s)
    if s.group_size > 0:
        for i in range(s.num_running):
            q = req[run[i]]
            if q.grouped:
                leave_group(s, q)
    s.group_ends = FAR
    s.group_roomy_until = FAR
    s.num_fresh = 0


@compiled
def spell_out(s: Any) -> None:
    """Replace the group's grant in the batch being built by one entry per member, and disband it."""
    req = requests(s)
    run = running(s)
    batch = batch_of(s)
    phases = phases_of(s)
    size = s.group_size
    for i in range(s.batch_size - 1, s.group_slot - 1, -1):
        batch[i + size, 0] = batch[i, 0]
        batch[i + size, 1] = batch[i, 1]
        req[batch[i, 0]].batch_slot = i + size
    s.batch_size += size
    phases[:] = 0
    slot = s.group_slot
    for i in range(s.num_running):
        q = req[run[i]]
        if q.grouped:
            leave_group(s, q)
            q.held = max(q.held, (q.computed + s.block_size) // s.block_size)
            batch[slot, 0] = run[i]
            batch[slot, 1] = 1
            q.batch_slot = slot
            slot += 1
    phases[:] = 0
    s.group_runs = 0
    disband(s)


@inlined
def _gather(s: Any, num_decodes: int) -> None:
    """Every running decode joins the group."""
    req = requests(s)
    run = running(s)
    fresh = fresh_of(s)
    if s.tick >= s.group_roomy_until:
        disband(s)
    if s.group_size == num_decodes:
        return
    for i in range(s.num_running):
        q = req[run[i]]
        if not q.in_prefill and not q.grouped:
            _join(s, q)
            fresh[s.num_fresh] = run[i]
            s.num_fresh += 1


@compiled
def decode_demand(s: Any) -> Any:
    """Blocks that one token for every running decode would take now; gathers the group."""
    phases = phases_of(s)
    num_decodes = s.num_running - s.num_running_prefills
    if num_decodes == 0:
        return 0
    _gather(s, num_decodes)
    return phases[s.tick % s.block_size]


@inlined
def offer_group(s: Any) -> Any:
    """One token to every running decode at once: GRANTED, SHORT of blocks (nothing changed), or IMPOSSIBLE."""
    phases = phases_of(s)
    num_decodes = s.num_running - s.num_running_prefills
    if not s.lockstep or num_decodes > s.tokens_left:
        return IMPOSSIBLE
    _gather(s, num_decodes)
    blocks = phases[s.tick % s.block_size]
    if blocks > s.free_blocks:
        return SHORT
    s.free_blocks -= blocks
    s.tokens_left -= num_decodes
    s.num_tokens += num_decodes
    s.num_decodes += num_decodes
    s.decode_context += s.group_context
    s.group_slot = s.batch_size
    s.group_runs = 1
    return GRANTED


@inlined
def grant_group(s: Any) -> Any:
    """One token to every running decode at once, if nobody has to be preempted for it; False otherwise."""
    if offer_group(s) == GRANTED:
        return True
    disband(s)
    return False
