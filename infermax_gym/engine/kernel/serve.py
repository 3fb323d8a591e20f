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
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.policy import Victim


@inlined
def chunk_tokens(s: Any, r: int, computed: int) -> Any:
    """Tokens that prefill r, with `computed` of them done, may compute now: what it lacks, cut by the caps, or 0."""
    req = requests(s)
    q = req[r]
    lacking = q.prompt + q.generated - computed
    room = min(s.tokens_left, s.prefill_left)
    if s.chunking:
        return min(lacking, s.max_chunk, room)
    return lacking if lacking <= room else 0


@inlined
def _serve_one(s: Any, position: int) -> Any:
    """Serve the running request at `position`; returns the position of the next to look at."""
    req = requests(s)
    run = running(s)
    r = run[position]
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
    """One pass over the running list, serving decodes, prefills or both."""
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
def _last_makes_room(s: Any) -> Any:
    """Preempt the last of the running list, if it is whom serving one by one would preempt first; False if not.

    The group is short of blocks and nobody has got tokens yet. Where victims come from the end of the list, that one
    goes in any case: for somebody before it, or, if all before it find their blocks, for itself.
    """
    if s.batch_size > 0 or not (s.victim == Victim.LIST_TAIL or guarded(s)):
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
    if s.num_running > s.num_running_prefills and not _serve_group(s):
        _serve(s, True, False)


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
