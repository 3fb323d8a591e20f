"""Requests that move between replicas: who is paired, when KV has been copied, when it has landed."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.cluster.kernel.candidates import can_hold
from infermax_gym.cluster.kernel.memory import (
    cores_of,
    events_of,
    home_of,
    kind_of,
    moves_of,
    num_migrations_of,
    partners_of,
    predictions_of,
    signals_of,
    slot_of,
    slots_of,
)
from infermax_gym.cluster.kernel.signals import FREE_KV, RUNNING, WAITING, WAITING_TOKENS
from infermax_gym.cluster.kernel.tournament import next_boundary, set_boundary
from infermax_gym.cluster.migration import Mover, Pairing
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.fit import blocks_for
from infermax_gym.engine.kernel.group import blocks_held, resident
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.kernel.move import attach, detach, give_back, set_aside
from infermax_gym.engine.kernel.run import wait_until
from infermax_gym.engine.layout import RUNNING as RUNS

# What a move does, by its source.
NOTHING = 0
COPYING = 1  # while its request decodes on
FLYING = 2  # its request has stopped


@inlined
def _transfer_seconds(f: Any, num_tokens: int) -> Any:
    return f.transfer_latency_s + num_tokens * f.bytes_per_token / f.bytes_per_s


@inlined
def _load_of(free_tokens: float, requests_there: float, block_size: int) -> Any:
    return -free_tokens / block_size / requests_there if requests_there > 0.0 else -math.inf


@inlined
def _load(f: Any, i: int, more_blocks: int, more_requests: int) -> Any:
    """Load of replica i, with so many blocks taken and requests added to what its signals say."""
    signals = signals_of(f)
    block_size = cores_of(f)[i].block_size
    free_tokens = signals[FREE_KV, i] - signals[WAITING_TOKENS, i] - more_blocks * block_size
    return _load_of(free_tokens, signals[WAITING, i] + signals[RUNNING, i] + more_requests, block_size)


@compiled
def _mover(f: Any, i: int) -> Any:
    """The running decode of replica i that would move, or -1."""
    s = cores_of(f)[i]
    req = requests(s)
    run = running(s)
    best = -1
    best_tokens = 0
    for position in range(s.num_running):
        q = req[run[position]]
        if q.in_prefill:
            continue
        tokens = resident(s, q)
        better = (
            f.mover == Mover.LAST
            or (f.mover == Mover.SHORTEST and tokens < best_tokens)
            or (f.mover == Mover.LONGEST and tokens > best_tokens)
        )
        if best < 0 or better:
            best = run[position]
            best_tokens = tokens
    return best


@inlined
def _pays(f: Any, i: int, d: int, left: int, taken: int) -> Any:
    """Whether moving a request, which leaves so many blocks and takes so many, balances the loads of i and d."""
    if f.pairing != Pairing.BALANCED:
        return True
    after = _load(f, d, taken, 1)
    if after > f.migration_threshold:
        return False
    before = _load(f, d, 0, 0)
    gap = _load(f, i, -left, -1) - after
    return math.isinf(before) or 0.0 < gap < _load(f, i, 0, 0) - before


@compiled
def _begin(f: Any, i: int, d: int) -> None:
    """Replica i begins to copy a request to replica d, if it has one that fits there."""
    s = cores_of(f)[i]
    t = cores_of(f)[d]
    r = _mover(f, i)
    if r < 0:
        return
    q = requests(s)[r]
    tokens = resident(s, q)
    blocks = blocks_for(t, tokens + 1)
    if not can_hold(t, q) or t.num_running >= t.max_num_seqs or t.free_blocks - blocks < t.watermark_blocks:
        return
    if not _pays(f, i, d, blocks_held(s, q), blocks):
        return
    set_aside(t, blocks)
    partners = partners_of(f)
    partners[i] = d
    partners[d] = i
    move = moves_of(f)[i]
    move.state = COPYING
    move.slot = r
    move.preemptions = q.preemptions
    move.tokens = tokens
    move.blocks = blocks
    move.at_s = s.clock_s + _transfer_seconds(f, tokens)


@compiled
def _pair(f: Any) -> None:
    """The most loaded replica with the least loaded one, and so on inwards, as far as the threshold allows."""
    partners = partners_of(f)
    moves = moves_of(f)
    for i in range(f.num_replicas):
        moves[i].load = _load(f, i, 0, 0)
        moves[i].paired = partners[i] >= 0
    while True:
        source = -1
        target = -1
        for i in range(f.num_replicas):
            if moves[i].paired:
                continue
            if moves[i].load > f.migration_threshold and (source < 0 or moves[i].load > moves[source].load):
                source = i
            if moves[i].load < f.migration_threshold and (target < 0 or moves[i].load < moves[target].load):
                target = i
        if source < 0 or target < 0:
            return
        moves[source].paired = 1
        moves[target].paired = 1
        _begin(f, source, target)


@inlined
def _part(f: Any, i: int) -> None:
    partners = partners_of(f)
    moves_of(f)[i].state = NOTHING
    partners[partners[i]] = -1
    partners[i] = -1


@inlined
def _next_landing(f: Any) -> Any:
    """The source whose request lands first."""
    moves = moves_of(f)
    best = -1
    for i in range(f.num_replicas):
        if moves[i].state == FLYING and (best < 0 or moves[i].at_s < moves[best].at_s):
            best = i
    return best


@compiled
def send_off(f: Any, i: int, at_s: float) -> None:
    """At a boundary of replica i, its request being copied: call it off, stop it and send what is left, or go on."""
    s = cores_of(f)[i]
    move = moves_of(f)[i]
    d = partners_of(f)[i]
    t = cores_of(f)[d]
    q = requests(s)[move.slot]
    lost = q.place != RUNS or q.preemptions != move.preemptions
    if not lost and at_s < move.at_s:
        return
    tokens = resident(s, q)
    more = max(0, blocks_for(t, tokens + 1) - move.blocks)
    if lost or more > t.free_blocks:
        give_back(t, move.blocks)
        if t.num_waiting > 0 and math.isinf(next_boundary(f, d)):
            set_boundary(f, d, max(t.clock_s, at_s))
        f.num_aborted += 1
        _part(f, i)
        return
    t.free_blocks -= more
    move.blocks += more
    detach(s, move.slot)
    move.left_s = at_s
    move.at_s = at_s + _transfer_seconds(f, tokens - move.tokens)
    move.state = FLYING
    f.next_landing_s = min(f.next_landing_s, move.at_s)


@compiled
def _land(f: Any) -> Any:
    """The next landing; False if there is no room in the engine for its record (make some at `chosen`)."""
    i = _next_landing(f)
    move = moves_of(f)[i]
    cores = cores_of(f)
    d = partners_of(f)[i]
    t = cores[d]
    if t.num_requests == slots_of(f)[d]:
        f.chosen = d
        return False
    f.chosen = -1
    wait_until(t, move.at_s)
    slot = t.num_requests
    attach(cores[i], t, move.slot, move.blocks, move.left_s)
    q = requests(t)[slot]
    if f.has_predictions:
        q.prediction = predictions_of(f)[kind_of(f)[d], q.number]
        q.first_prediction = q.prediction
    home_of(f)[q.number] = d
    slot_of(f)[q.number] = slot
    num_migrations_of(f)[q.number] += 1
    signals_of(f)[RUNNING, d] += 1.0
    if math.isinf(next_boundary(f, d)):
        set_boundary(f, d, t.clock_s)
    _part(f, i)
    following = _next_landing(f)
    f.next_landing_s = moves_of(f)[following].at_s if following >= 0 else math.inf
    return True


@compiled
def migrate_before(f: Any, until_s: float) -> Any:
    """Landings and pairings that come before `until_s` and not after the next boundary; False as in `_land`."""
    events = events_of(f)
    while True:
        if math.isinf(events[1]) and math.isinf(f.next_landing_s):  # nobody can move: leave pairings out
            if not math.isinf(until_s):
                f.next_pairing = max(f.next_pairing, int(until_s / f.migration_period_s) - 1)
                while f.next_pairing * f.migration_period_s < until_s:
                    f.next_pairing += 1
            return True
        pairing_s = f.next_pairing * f.migration_period_s
        at_s = min(f.next_landing_s, pairing_s)
        if at_s >= until_s or at_s > events[1]:
            return True
        if f.next_landing_s <= pairing_s:
            if not _land(f):
                return False
        else:
            _pair(f)
            f.next_pairing += 1
