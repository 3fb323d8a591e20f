"""Serve running requests: decodes, prefills, or one list of both."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.evict import grant, guarded, make_room, preempt
from infermax_gym.engine.kernel.group import (
    GRANTED,
    SHORT,
    blocks_held,
    decode_demand,
    disband,
    offer_group,
    resident,
)
from infermax_gym.engine.kernel.keys import token_deadline
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.kernel.seconds import seconds_with
from infermax_gym.engine.policy import Victim


@compiled
def _tokens_in_time(s: Any, most: int, context: int) -> Any:
    """Tokens, at most `most`, of a prefill that keep the iteration within its time limit."""
    low = 0 if s.chunking else most - 1
    high = most
    while low < high:
        middle = (low + high + 1) // 2
        if seconds_with(s, middle, context) <= s.max_iteration_s:
            low = middle
        else:
            high = middle - 1
    return low if s.chunking or low == most else 0


@inlined
def limit_prefills(s: Any) -> None:
    """Set what holds for the prefills of this call, from who runs and waits when serving begins."""
    s.decodes_run = s.num_running > s.num_running_prefills
    s.alone = s.uncapped_when_alone and s.num_running + s.num_waiting == 1
    if s.decodes_run:
        contended = s.num_running_prefills + s.num_waiting >= s.prefill_share_from
        if s.prefill_share < 1.0 and contended:
            s.prefill_left = max(1, int(s.token_budget * s.prefill_share))
        since = s.num_iterations + 1 - s.last_prefill_iteration
        s.prefills_held = since < s.prefill_interval and not s.prefills_backed_up


@inlined
def note_backlog(s: Any) -> None:
    """Whether the queue is not empty although prefills were not held."""
    if not s.prefills_held and (s.admit_after_preemption or not s.preempted_in_serve):
        s.prefills_backed_up = s.num_waiting > 0


@inlined
def chunk_tokens(s: Any, r: int, computed: int) -> Any:
    """Tokens that prefill r, with `computed` of them done, may compute now: what it lacks, cut by the caps, or 0."""
    req = requests(s)
    q = req[r]
    lacking = q.prompt + q.generated - computed
    room = min(s.tokens_left, s.prefill_left)
    if s.prefills_held:
        return 0
    if s.chunking:
        wanted = lacking if s.alone else min(lacking, s.max_chunk)
        if s.decodes_run and room < min(wanted, s.min_chunk):
            return 0
        lacking = min(wanted, room)
    elif lacking > room:
        return 0
    if s.max_iteration_s > 0.0 and lacking > 0:
        in_time = _tokens_in_time(s, lacking, computed)
        if in_time == 0 and s.num_tokens == 0:
            return 1 if s.chunking else lacking
        return in_time
    return lacking


@inlined
def _serve_one(s: Any, position: int) -> Any:
    """Serve the running request at `position`; returns the position of the next to look at."""
    req = requests(s)
    run = running(s)
    r = run[position]
    if req[r].paused:
        return position + 1
    num_tokens = chunk_tokens(s, r, req[r].computed) if req[r].in_prefill else min(1, s.tokens_left)
    if num_tokens <= 0:
        return position + 1
    position, stays = make_room(s, position, num_tokens)
    if not stays:
        s.serving_ended = s.self_preemption_ends
        return position
    grant(s, r, num_tokens)
    return position + 1


@inlined
def _serve(s: Any, decodes: bool, prefills: bool) -> None:
    """One pass over the running list, serving decodes, prefills or both, if they have got nothing yet."""
    req = requests(s)
    run = running(s)
    position = 0
    while position < s.num_running and s.tokens_left > 0 and not s.serving_ended:
        q = req[run[position]]
        if (prefills if q.in_prefill else decodes) and q.batch_slot < 0:
            position = _serve_one(s, position)
        else:
            position += 1


@compiled
def resume_paused(s: Any) -> Any:
    """Let all paused prefills go on; whether there were any."""
    req = requests(s)
    run = running(s)
    found = False
    for i in range(s.num_running):
        q = req[run[i]]
        found = found or q.paused != 0
        q.paused = 0
    return found


@compiled
def _last_makes_room(s: Any) -> Any:
    """Preempt the last of the running list, if it is whom serving one by one would preempt first; False if not.

    The group is short of blocks and nobody has got tokens yet. Where victims come from the end of the list, that one
    goes in any case: for somebody before it, or, if all before it find their blocks, for itself.
    """
    if s.batch_size > 0 or s.evict_share > 0.0 or not (s.victim == Victim.LIST_TAIL or guarded(s)):
        return False
    q = requests(s)[running(s)[s.num_running - 1]]
    needs_block = q.grouped and resident(s, q) + 1 > blocks_held(s, q) * s.block_size
    if needs_block and decode_demand(s) - 1 <= s.free_blocks:
        s.serving_ended = s.self_preemption_ends
    s.preempted_in_serve = 1
    preempt(s, s.num_running - 1)
    return True


@inlined
def _serve_group(s: Any) -> Any:
    """One token to every running decode at once, the end of the list making room; False if that is not possible."""
    answer = offer_group(s)
    while answer == SHORT and _last_makes_room(s):
        if s.num_running == s.num_running_prefills:
            return True
        answer = offer_group(s)
    if answer == GRANTED:
        return True
    disband(s)
    return False


@compiled
def serve_decodes(s: Any) -> None:
    """Every running decode asks for one token."""
    if s.serving_ended:  # by a prefill that preempted itself before
        return
    if s.num_running > s.num_running_prefills and not _serve_group(s):
        _serve(s, True, False)


@compiled
def serve_due_decodes(s: Any) -> None:
    """Decodes whose next token is due within `hold_iterations` mean iterations ask for one token."""
    req = requests(s)
    run = running(s)
    horizon_s = s.clock_s + _hold_seconds(s)
    position = 0
    while position < s.num_running and s.tokens_left > 0 and not s.serving_ended:
        q = req[run[position]]
        if not q.in_prefill and token_deadline(s, q) <= horizon_s:
            position = _serve_one(s, position)
        else:
            position += 1


@inlined
def _hold_seconds(s: Any) -> Any:
    """How long before its deadline a token is due: so many mean iterations, twice as many if memory is nearly full."""
    mean_s = s.busy_s / s.num_iterations if s.num_iterations > 0 else 0.0
    nearly_full = 25 * (s.num_blocks - s.free_blocks) >= 24 * s.num_blocks
    return (2.0 * s.hold_iterations if nearly_full else s.hold_iterations) * mean_s


@compiled
def serve_prefills(s: Any) -> None:
    """Every running prefill asks for its next chunk."""
    if s.num_running_prefills > 0:
        _serve(s, False, True)


@inlined
def _decodes_lead(s: Any) -> Any:
    """Whether no prefill stands before a decode in the running list."""
    req = requests(s)
    run = running(s)
    for i in range(s.num_running - s.num_running_prefills, s.num_running):
        if not req[run[i]].in_prefill:
            return False
    return True


@compiled
def serve_all(s: Any) -> None:
    """Decodes and prefills alike, in list order."""
    if s.num_running > s.num_running_prefills and _decodes_lead(s) and _serve_group(s):
        serve_prefills(s)
        return
    disband(s)
    _serve(s, True, True)
