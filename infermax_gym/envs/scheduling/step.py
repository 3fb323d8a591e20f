"""Compiled steps of `InferMax-v0`, from the entry `step_one` or `step_all`: actions, and on to the next decision."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.admit import bring_in
from infermax_gym.engine.kernel.advance import advance, arrive, has_room
from infermax_gym.engine.kernel.decide import begin
from infermax_gym.engine.kernel.evict import grant, preempt
from infermax_gym.engine.kernel.fast_forward import fast_forward
from infermax_gym.engine.kernel.fit import blocks_for
from infermax_gym.engine.kernel.group import grant_group
from infermax_gym.engine.kernel.memory import requests, running
from infermax_gym.engine.kernel.order import order_running, relist
from infermax_gym.engine.kernel.run import jump_to_next_arrival
from infermax_gym.engine.kernel.serve import serve_decodes
from infermax_gym.engine.policy import Reserve
from infermax_gym.envs.rewards import NUM_COMPONENTS, Component
from infermax_gym.envs.scheduling.lane import ADMITTED, PREEMPTED, chunk_budgets_of, slots_of, touched_of
from infermax_gym.envs.scheduling.layout import Fact
from infermax_gym.envs.scheduling.legal import admission_blocks, can_admit, can_run, fallback, foresee, is_legal
from infermax_gym.envs.scheduling.observe import observe
from infermax_gym.envs.scheduling.slots import show_running
from infermax_gym.envs.scheduling.waiting import joined_queue, left_queue, show_waiting
from infermax_gym.envs.status import HANDOVER, LOG_FULL, RUNNING_ON, TERMINATED, TRUNCATED


@compiled
def show(s: Any, v: Any) -> None:
    """Refresh what the agent sees and what RUN would need."""
    foresee(s, v)
    show_waiting(s, v)
    show_running(s, v)


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
    left_queue(v, r)


@inlined
def _do_preempt(s: Any, v: Any, position: int) -> None:
    r = running(s)[position]
    _touch(s, v, r, PREEMPTED)
    v.num_preempted += 1
    preempt(s, position)
    v.listed_preemptions += 1
    joined_queue(s, v, r)


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
    new_turn(s, v)


@compiled
def new_turn(s: Any, v: Any) -> None:
    """Forget whom the agent touched."""
    req = requests(s)
    touched = touched_of(v)
    for i in range(v.num_touched):
        req[touched[i]].touched = 0
    v.num_touched = 0
    v.num_admitted = 0
    v.num_preempted = 0
    v.num_turn_actions = 0


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
    for i in range(v.num_waiting_shown):
        if can_admit(s, v, i):
            return True
    return False


@inlined
def _ask(v: Any) -> None:
    """The agent is to decide, unless it has decided as often as it may."""
    v.status = TRUNCATED if v.num_decisions >= v.max_decisions else RUNNING_ON


@compiled
def go_on(s: Any, v: Any) -> None:
    """Run until the agent has something to decide, the episode ends or the log is full; sets `status`."""
    while True:
        arrive(s)
        if s.num_finished + s.num_rejected == s.num_requests + s.num_unsent:
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
        foresee(s, v)
        show_waiting(s, v)
        if _something_to_decide(s, v):
            _ask(v)
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


@compiled
def _run(s: Any, v: Any, level: int) -> None:
    """RUN, and on to the next decision."""
    v.level = level
    v.seen_arrivals = s.next_arrival
    v.seen_finishes = s.num_finished
    v.seen_prefills = s.num_running_prefills
    v.seen_spare = v.spare_tokens > 0
    _iterate(s, v, level)
    go_on(s, v)


@compiled
def _touch_one(s: Any, v: Any, action: int) -> None:
    """ADMIT or PREEMPT."""
    slots = slots_of(v)
    target = action - v.num_chunk_budgets
    if target < v.num_waiting_slots:
        _do_admit(s, v, slots[target])
    else:
        _do_preempt(s, v, slots[target])
    show(s, v)


@compiled
def _end_turn(s: Any, v: Any) -> None:
    """The turn has had as many actions as it may: preempt or admit what RUN at full budget needs, then RUN."""
    new_turn(s, v)
    show(s, v)
    full = v.num_chunk_budgets - 1
    for _ in range(s.num_running + 2):
        if can_run(s, v, full):
            _run(s, v, full)
            return
        action = fallback(s, v)
        if action < v.num_chunk_budgets:
            break
        _touch_one(s, v, action)
    _ask(v)


@compiled
def act(s: Any, v: Any, action: int) -> None:
    """Carry out one action; after RUN, go on to the next decision. An illegal action is counted and replaced."""
    v.num_decisions += 1
    if v.status != RUNNING_ON:
        return
    if not is_legal(s, v, action):
        v.num_illegal += 1
        action = fallback(s, v)
    if action < v.num_chunk_budgets:
        _run(s, v, action)
        return
    _touch_one(s, v, action)
    v.num_turn_actions += 1
    if v.num_turn_actions >= v.most_turn_actions:
        _end_turn(s, v)
    else:
        _ask(v)


@compiled
def take_components(s: Any, v: Any, out: Any) -> None:
    """(NUM_COMPONENTS,) what happened since the last call, see `infermax_gym.envs.rewards.Component`."""
    out[Component.ELAPSED_S] = s.clock_s - v.last_clock_s
    out[Component.SYSTEM_REQUEST_S] = s.system_seconds - v.last_system_seconds
    out[Component.UNSTARTED_REQUEST_S] = s.unstarted_seconds - v.last_unstarted_seconds
    out[Component.BUSY_S] = s.busy_s - v.last_busy_s
    out[Component.NUM_GOOD] = s.num_good - v.last_num_good
    out[Component.NUM_FINISHED] = s.num_finished - v.last_num_finished
    v.last_clock_s = s.clock_s
    v.last_system_seconds = s.system_seconds
    v.last_unstarted_seconds = s.unstarted_seconds
    v.last_busy_s = s.busy_s
    v.last_num_good = s.num_good
    v.last_num_finished = s.num_finished


@compiled
def finish_step(s: Any, v: Any, reward_components: Any, out: Any, mask: Any) -> Any:
    """After an action: what happened, and the next observation; returns the lane's status.

    A lane whose log is full, or whose rest is still to be served (HANDOVER), has neither yet.
    """
    if v.status == LOG_FULL:
        return LOG_FULL
    if v.status == TRUNCATED and v.handed_over == 0:
        return HANDOVER
    take_components(s, v, reward_components)
    observe(s, v, out, mask)
    return v.status


@compiled
def step_one(engines: Any, lanes: Any, action: int, reward_components: Any, out: Any, mask: Any) -> Any:
    """`step_all` for the one lane of a scalar environment; returns the lane's status.

    Takes arrays of one element each: Python hands an array over far faster than a record.
    """
    act(engines[0], lanes[0], action)
    return finish_step(engines[0], lanes[0], reward_components[0], out[0], mask[0])


@inlined
def _report(s: Any, v: Any, i: int, facts: Any) -> None:
    by_agent = v.num_by_agent if v.handed_over else s.num_finished
    facts[Fact.NUM_ILLEGAL, i] = v.num_illegal
    facts[Fact.FINISHED_BY_AGENT, i] = by_agent
    facts[Fact.FINISHED_BY_FALLBACK, i] = s.num_finished - by_agent


@compiled
def finish_one(
    engines: Any, lanes: Any, i: int, status: Any, reward_components: Any, clock_s: Any, facts: Any, out: Any, mask: Any
) -> None:
    """`finish_step` in lane i; arguments as in `step_all`."""
    s, v = engines[i], lanes[i]
    status[i] = finish_step(s, v, reward_components[i], out[i], mask[i])
    clock_s[i] = s.clock_s
    _report(s, v, i, facts)


@compiled
def step_all(
    engines: Any,
    lanes: Any,
    actions: Any,
    weights: Any,
    first: int,
    last: int,
    status: Any,
    reward_components: Any,
    rewards: Any,
    clock_s: Any,
    facts: Any,
    out: Any,
    mask: Any,
) -> Any:
    """One action on the lanes from `first` to before `last`; whether the agent is to decide in all of them.

    Args:
        engines: (n,) CORE.
        lanes: (n,) LANE.
        actions: (n,) int64.
        weights: (NUM_COMPONENTS,) float64, of the reward.
        first: lane.
        last: lane.
        status: (n,) int64, out.
        reward_components: (n, NUM_COMPONENTS) float64, out.
        rewards: (n,) float64, out, summed as `infermax_gym.envs.rewards.paid` does.
        clock_s: (n,) float64, out.
        facts: (NUM_FACTS, n) int64, out.
        out: (n, N) float32, out.
        mask: (n, num_actions) int8, out.
    """
    all_go_on = True
    for i in range(first, last):
        s, v = engines[i], lanes[i]
        act(s, v, actions[i])
        status[i] = finish_step(s, v, reward_components[i], out[i], mask[i])
        all_go_on = all_go_on and status[i] == RUNNING_ON
        total = 0.0
        for k in range(NUM_COMPONENTS):
            total += reward_components[i, k] * weights[k]
        rewards[i] = total
        clock_s[i] = s.clock_s
        _report(s, v, i, facts)
    return all_go_on
