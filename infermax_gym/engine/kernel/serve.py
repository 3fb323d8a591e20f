"""Serve running requests: decodes, prefills, or one list of both."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.evict import grant, make_room
from infermax_gym.engine.kernel.group import disband, grant_group
from infermax_gym.engine.kernel.memory import requests, running


@inlined
def chunk_tokens(s: Any, r: int) -> Any:
    """Tokens that prefill r may compute now: what it lacks, cut by the caps, or 0."""
    req = requests(s)
    q = req[r]
    lacking = q.prompt + q.generated - q.computed
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
    num_tokens = chunk_tokens(s, r) if req[r].in_prefill else min(1, s.tokens_left)
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
def serve_decodes(s: Any) -> None:
    """Every running decode asks for one token."""
    if s.num_running > s.num_running_prefills and not grant_group(s):
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
    if s.num_running > s.num_running_prefills and _decodes_lead(s) and grant_group(s):
        serve_prefills(s)
        return
    disband(s)
    _serve(s, True, True)
