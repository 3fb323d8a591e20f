"""What the agent may do now: legality of actions, the mask, and what stands in for an illegal action."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.fit import blocks_for, reserved_blocks
from infermax_gym.engine.kernel.group import decode_demand
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.envs.scheduling.lane import ADMITTED, chunk_budgets_of, needs_of, slots_of
from infermax_gym.envs.status import RUNNING_ON


@inlined
def admission_blocks(s: Any, r: int) -> Any:
    """Blocks that admitting waiting request r takes at least."""
    q = requests(s)[r]
    blocks = reserved_blocks(s, r, 1)
    return max(blocks, blocks_for(s, q.computed + 1)) if q.on_host else blocks


@inlined
def can_admit(s: Any, v: Any, slot: int) -> Any:
    """Whether ADMIT of the request in a waiting slot is legal.

    max_num_seqs, its blocks, tokens if they count, not admitted before in this turn.
    """
    if s.num_running >= s.max_num_seqs or needs_of(v)[slot] > s.free_blocks:
        return False
    if v.within_budget and v.spare_tokens <= 0:
        return False
    return not requests(s)[slots_of(v)[slot]].touched & ADMITTED


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
    With `only_forced` nobody is preempted while RUN at full budget is legal.
    """
    if v.only_forced and can_run(s, v, v.num_chunk_budgets - 1):
        return False
    req = requests(s)
    run = running(s)
    if not req[run[position]].touched & ADMITTED:
        return True
    for i in range(s.num_running):
        if not req[run[i]].touched & ADMITTED:
            return False
    return not can_run(s, v, v.num_chunk_budgets - 1)


@inlined
def foresee(s: Any, v: Any) -> None:
    """Note what the next iteration needs of memory and, where tokens count for admission, leaves of the budget."""
    v.demand = decode_demand(s)
    if v.within_budget:
        v.spare_tokens = _spare_tokens(s)


@compiled
def fill_mask(s: Any, v: Any, mask: Any) -> None:
    """(num_actions,) int8: 1 where the action is legal now. Never all zero while the agent is to decide."""
    num_chunk_budgets = v.num_chunk_budgets
    waits = v.num_waiting_slots
    mask[:] = 0
    if v.status != RUNNING_ON:
        mask[num_chunk_budgets - 1] = 1  # nothing is left to decide: RUN does nothing
        return
    runs = False
    for level in range(num_chunk_budgets):
        runs = can_run(s, v, level)
        mask[level] = runs
    _mask_admissions(s, v, mask[num_chunk_budgets : num_chunk_budgets + waits])
    if not (v.only_forced and runs):
        _mask_preemptions(s, v, mask[num_chunk_budgets + waits :])


@inlined
def _mask_admissions(s: Any, v: Any, mask: Any) -> None:
    """As `can_admit` has it. Everything is read once: for all the compiler knows, writing may change the records."""
    if s.num_running >= s.max_num_seqs or (v.within_budget and v.spare_tokens <= 0):
        return
    req = requests(s)
    slots, needs = slots_of(v), needs_of(v)
    free = s.free_blocks
    for i in range(v.num_waiting_shown):
        mask[i] = needs[i] <= free and not req[slots[i]].touched & ADMITTED


@inlined
def _mask_preemptions(s: Any, v: Any, mask: Any) -> None:
    """As `can_preempt` has it; who has run since the admission may go."""
    req = requests(s)
    run = running(s)
    slots = slots_of(v)
    waits = v.num_waiting_slots
    for i in range(v.num_running_shown):
        position = slots[waits + i]
        fresh = req[run[position]].touched & ADMITTED
        mask[i] = not fresh or can_preempt(s, v, position)


@inlined
def is_legal(s: Any, v: Any, action: int) -> Any:
    """Whether an action number may be carried out now."""
    slots = slots_of(v)
    if action < 0:
        return False
    if action < v.num_chunk_budgets:
        return can_run(s, v, action)
    action -= v.num_chunk_budgets
    if action < v.num_waiting_slots:
        return slots[action] >= 0 and can_admit(s, v, action)
    action -= v.num_waiting_slots
    if action >= v.num_running_slots:
        return False
    position = slots[v.num_waiting_slots + action]
    return position >= 0 and can_preempt(s, v, position)


@inlined
def fallback(s: Any, v: Any) -> Any:
    """The action taken in place of an illegal one: RUN at full budget, else a victim, else an admission."""
    slots = slots_of(v)
    if can_run(s, v, v.num_chunk_budgets - 1):
        return v.num_chunk_budgets - 1
    for i in range(v.num_running_shown):
        if can_preempt(s, v, slots[v.num_waiting_slots + i]):
            return v.num_chunk_budgets + v.num_waiting_slots + i
    for i in range(v.num_waiting_shown):
        if can_admit(s, v, i):
            return v.num_chunk_budgets + i
    return 0
