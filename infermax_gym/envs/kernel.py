"""Compiled steps of `InferMax-v0`: legality, actions, and running on to the next decision."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.admit import bring_in
from infermax_gym.engine.kernel.advance import advance, arrive, has_room
from infermax_gym.engine.kernel.decide import begin
from infermax_gym.engine.kernel.evict import grant, preempt
from infermax_gym.engine.kernel.fast_forward import fast_forward
from infermax_gym.engine.kernel.fit import blocks_for, reserved_blocks
from infermax_gym.engine.kernel.group import decode_demand, grant_group
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.kernel.order import order_running, relist
from infermax_gym.engine.kernel.run import jump_to_next_arrival
from infermax_gym.engine.kernel.serve import serve_decodes
from infermax_gym.engine.policy import Reserve
from infermax_gym.envs.lane import (
    ADMITTED,
    LOG_FULL,
    PREEMPTED,
    RUNNING_ON,
    TERMINATED,
    TRUNCATED,
    chunk_budgets_of,
    slots_of,
    touched_of,
)
from infermax_gym.envs.slots import show_running, show_waiting


@inlined
def admission_blocks(s: Any, r: int) -> Any:
    """Blocks that admitting waiting request r takes at least."""
    q = requests(s)[r]
    blocks = reserved_blocks(s, r, 1)
    return max(blocks, blocks_for(s, q.computed + 1)) if q.on_host else blocks


@inlined
def can_admit(s: Any, v: Any, r: int) -> Any:
    """Whether ADMIT of r is legal: max_num_seqs, its blocks, tokens if they count, not admitted before in this turn."""
    admitted = requests(s)[r].touched & ADMITTED
    tokens = not v.within_budget or v.spare_tokens > 0
    return s.num_running < s.max_num_seqs and not admitted and tokens and admission_blocks(s, r) <= s.free_blocks


@compiled
def _spare_tokens(s: Any) -> Any:
    """What the next iteration's decodes and prefills, cut as they are, leave of the token budget."""
    req = requests(s)
    run = running(s)
    left = s.token_budget - (s.num_running - s.num_running_prefills)
    prefills = s.num_running_prefills
    i = s.num_running - 1
    while prefills > 0 and i >= 0:  # the newest stand behind
        q = req[run[i]]
        if q.in_prefill:
            left -= min(q.prompt + q.generated - q.computed, s.max_chunk)
            prefills -= 1
        i -= 1
    return left


@compiled
def can_run(s: Any, v: Any, level: int) -> Any:
    """Whether RUN at `level` is legal: every decode finds its block, and somebody computes a token."""
    if s.num_running > s.num_running_prefills:
        return v.demand <= s.free_blocks
    if s.num_running == 0 or chunk_budgets_of(v)[level] == 0:
        return False
    if s.free_blocks > 0:
        return True
    req = requests(s)
    run = running(s)
    for i in range(s.num_running):
        q = req[run[i]]
        if q.computed < q.held * s.block_size:
            return True
    return False


@compiled
def can_preempt(s: Any, v: Any, position: int) -> Any:
    """Whether PREEMPT of a running request is legal: it has run since it was admitted, or nothing else could be done.

    Admissions that share cached prefixes may leave no block for anybody's next token: then they are taken back.
    """
    req = requests(s)
    run = running(s)
    if not req[run[position]].touched & ADMITTED:
        return True
    for i in range(s.num_running):
        if not req[run[i]].touched & ADMITTED:
            return False
    return not can_run(s, v, v.num_chunk_budgets - 1)


@compiled
def show(s: Any, v: Any) -> None:
    """Refresh what the agent sees and what RUN would need."""
    _foresee(s, v)
    show_waiting(s, v)
    show_running(s, v)


@inlined
def _foresee(s: Any, v: Any) -> None:
    v.demand = decode_demand(s)
    if v.within_budget:
        v.spare_tokens = _spare_tokens(s)


@compiled
def fill_mask(s: Any, v: Any, mask: Any) -> None:
    """(num_actions,) int8: 1 where the action is legal now. Never all zero while the agent is to decide."""
    slots = slots_of(v)
    num_chunk_budgets = v.num_chunk_budgets
    waits = v.num_waiting_slots
    if v.status != RUNNING_ON:
        mask[:] = 0
        mask[num_chunk_budgets - 1] = 1  # nothing is left to decide: RUN does nothing
        return
    for level in range(num_chunk_budgets):
        mask[level] = can_run(s, v, level)
    for i in range(waits):
        mask[num_chunk_budgets + i] = slots[i] >= 0 and can_admit(s, v, slots[i])
    for i in range(v.num_running_slots):
        position = slots[waits + i]
        mask[num_chunk_budgets + waits + i] = position >= 0 and can_preempt(s, v, position)


@inlined
def _touch(s: Any, v: Any, r: int, mark: int) -> None:
    touched = touched_of(v)
    q = requests(s)[r]
    if q.touched == 0:
        touched[v.num_touched] = r
        v.num_touched += 1
    q.touched |= mark


@inlined
def _do_admit(s: Any, v: Any, r: int) -> None:
    q = requests(s)[r]
    blocks = admission_blocks(s, r)
    if q.on_host == 0 and s.reserve == Reserve.CHUNK:
        blocks = 0  # blocks come with the chunk
    _touch(s, v, r, ADMITTED)
    v.num_admitted += 1
    bring_in(s, r, blocks)


@inlined
def _do_preempt(s: Any, v: Any, position: int) -> None:
    _touch(s, v, running(s)[position], PREEMPTED)
    v.num_preempted += 1
    preempt(s, position)


@compiled
def _serve_prefills(s: Any) -> None:
    """Running prefills in list order, each cut by what budget and memory leave."""
    req = requests(s)
    run = running(s)
    for i in range(s.num_running):
        q = req[run[i]]
        if not q.in_prefill:
            continue
        room = q.held * s.block_size - q.computed + s.free_blocks * s.block_size
        lacking = q.prompt + q.generated - q.computed
        num_tokens = min(min(lacking, s.max_chunk), min(s.tokens_left, s.prefill_left), room)
        if num_tokens > 0:
            grant(s, run[i], num_tokens)


@compiled
def _iterate(s: Any, v: Any, level: int) -> None:
    """Run one iteration: every decode, and prefills within the chunk budget."""
    begin(s)
    s.num_decisions += 1
    s.prefill_left = min(s.prefill_left, chunk_budgets_of(v)[level])
    s.num_admitted = v.num_admitted
    s.changed = v.num_preempted > 0
    if s.num_running > s.num_running_prefills and not grant_group(s):
        serve_decodes(s)
    if s.num_running_prefills > 0:
        _serve_prefills(s)
    relist(s)
    advance(s)
    _new_turn(s, v)


@compiled
def _new_turn(s: Any, v: Any) -> None:
    req = requests(s)
    touched = touched_of(v)
    for i in range(v.num_touched):
        req[touched[i]].touched = 0
    v.num_touched = 0
    v.num_admitted = 0
    v.num_preempted = 0


@inlined
def _has_changed(s: Any, v: Any) -> Any:
    """Whether a request has arrived, finished or ended its prefill since the last RUN, which holds admissions back.

    Where tokens count for admission, also whether there are some now and were none then.
    """
    come_or_gone = s.next_arrival != v.seen_arrivals or s.num_finished != v.seen_finishes
    spare = v.within_budget and v.spare_tokens > 0 and not v.seen_spare
    return come_or_gone or s.num_running_prefills != v.seen_prefills or spare


@compiled
def _something_to_decide(s: Any, v: Any) -> Any:
    """Whether the agent has a choice that matters: memory is short, somebody can join, or nothing else can run."""
    if v.every_iteration or not can_run(s, v, v.level):
        return True
    if s.num_running_prefills > 0:
        budget = chunk_budgets_of(v)[v.level]
        spare = s.free_blocks - v.demand
        if budget == 0 or (s.reserve == Reserve.CHUNK and spare < blocks_for(s, budget) + s.num_running_prefills):
            return True
    if s.num_waiting == 0 or s.num_running >= s.max_num_seqs or (v.on_change and not _has_changed(s, v)):
        return False
    slots = slots_of(v)
    for i in range(v.num_waiting_shown):
        if can_admit(s, v, slots[i]):
            return True
    return False


@compiled
def go_on(s: Any, v: Any) -> None:
    """Run until the agent has something to decide, the episode ends or the log is full; sets `status`."""
    while True:
        arrive(s)
        if s.num_finished + s.num_rejected == s.num_requests:
            v.status = TERMINATED
            show(s, v)
            return
        if s.clock_s >= v.time_limit_s:
            v.status = TRUNCATED
            order_running(s)
            show(s, v)
            return
        if not has_room(s):
            v.status = LOG_FULL
            return
        if s.num_running + s.num_waiting == 0:
            jump_to_next_arrival(s)
            continue
        order_running(s)
        _foresee(s, v)
        show_waiting(s, v)
        if _something_to_decide(s, v):
            v.status = RUNNING_ON
            show_running(s, v)
            return
        _iterate(s, v, v.level)
        alone = s.group_runs and s.group_size == s.num_running and s.finished_now == 0
        if alone and s.num_prefills == 0 and not v.every_iteration:
            fast_forward(s, 2**62, v.time_limit_s)


@compiled
def start(s: Any, v: Any) -> None:
    """Bring a fresh engine to its first decision."""
    v.status = RUNNING_ON
    v.level = v.num_chunk_budgets - 1
    go_on(s, v)


@inlined
def _fallback(s: Any, v: Any) -> Any:
    """The action taken in place of an illegal one: RUN at full budget, else a victim, else an admission."""
    slots = slots_of(v)
    if can_run(s, v, v.num_chunk_budgets - 1):
        return v.num_chunk_budgets - 1
    for i in range(v.num_running_shown):
        if can_preempt(s, v, slots[v.num_waiting_slots + i]):
            return v.num_chunk_budgets + v.num_waiting_slots + i
    for i in range(v.num_waiting_shown):
        if can_admit(s, v, slots[i]):
            return v.num_chunk_budgets + i
    return 0


@inlined
def _is_legal(s: Any, v: Any, action: int) -> Any:
    slots = slots_of(v)
    if action < 0:
        return False
    if action < v.num_chunk_budgets:
        return can_run(s, v, action)
    action -= v.num_chunk_budgets
    if action < v.num_waiting_slots:
        return slots[action] >= 0 and can_admit(s, v, slots[action])
    action -= v.num_waiting_slots
    if action >= v.num_running_slots:
        return False
    position = slots[v.num_waiting_slots + action]
    return position >= 0 and can_preempt(s, v, position)


@compiled
def act(s: Any, v: Any, action: int) -> None:
    """Carry out one action; after RUN, go on to the next decision. An illegal action is counted and replaced."""
    slots = slots_of(v)
    v.num_decisions += 1
    if v.status != RUNNING_ON:
        return
    if not _is_legal(s, v, action):
        v.num_illegal += 1
        action = _fallback(s, v)
    if action < v.num_chunk_budgets:
        v.level = action
        v.seen_arrivals = s.next_arrival
        v.seen_finishes = s.num_finished
        v.seen_prefills = s.num_running_prefills
        v.seen_spare = v.spare_tokens > 0
        _iterate(s, v, action)
        go_on(s, v)
        return
    target = action - v.num_chunk_budgets
    if target < v.num_waiting_slots:
        _do_admit(s, v, slots[target])
    else:
        _do_preempt(s, v, slots[target])
    show(s, v)


@compiled
def take_components(s: Any, v: Any, out: Any) -> None:
    """(6,) what happened since the last call: dt_s, system and unstarted request-seconds, busy_s, good, finished."""
    out[0] = s.clock_s - v.last_clock_s
    out[1] = s.system_seconds - v.last_system_seconds
    out[2] = s.unstarted_seconds - v.last_unstarted_seconds
    out[3] = s.busy_s - v.last_busy_s
    out[4] = s.num_good - v.last_num_good
    out[5] = s.num_finished - v.last_num_finished
    v.last_clock_s = s.clock_s
    v.last_system_seconds = s.system_seconds
    v.last_unstarted_seconds = s.unstarted_seconds
    v.last_busy_s = s.busy_s
    v.last_num_good = s.num_good
    v.last_num_finished = s.num_finished


NUM_COMPONENTS = 6
