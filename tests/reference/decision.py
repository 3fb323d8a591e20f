"""One decision: what the next iteration computes, and who has to leave for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infermax_gym.engine.policy import PhaseOrder, Policy, Reserve, RunOrder
from tests.reference.admission import admit, wanted_tokens
from tests.reference.fit import fits, reserved_blocks
from tests.reference.keys import is_pinned, processed, queue_key, queue_value, token_deadline
from tests.reference.levels import lift_starving
from tests.reference.preemption import bring_back, choose_victim, preempt, worst
from tests.reference.request import Request
from tests.reference.state import Decision, Engine


def decide(engine: Engine) -> Decision:
    """All paragraphs of "One decision", in order."""
    policy = engine.policy_now
    decision = Decision(policy, something_ran=bool(engine.running), tokens_left=engine.C)
    lift_starving(engine)
    resume(engine, decision)
    if policy.preempt_for_waiting:
        displace(engine, decision)
    order(engine, policy)
    limit_prefills(engine, decision)
    serve(engine, decision)
    note_backlog(engine, decision)
    rearrange(engine, decision)
    return decision


def resume(engine: Engine, decision: Decision) -> None:
    """The paragraph "Resume"."""
    while engine.seat_is_free:
        head = engine.queue.head(engine.keys_at_s)
        if head is None or not head.on_host or (engine.running and engine.guard_holds):
            return
        if channel_is_busy(engine, decision):
            return
        free = engine.free + engine.found(head)[1]
        if free - engine.blocks(head.resident + 1) < (engine.watermark_blocks if engine.running else 0):
            return
        engine.queue.remove(head)
        engine.join(head, engine.blocks(head.resident))
        bring_back(engine, decision, head)


def channel_is_busy(engine: Engine, decision: Decision) -> bool:
    """Whether so many transfers are pending that none is begun without need."""
    if engine.policy.swap_lag_tokens == 0 or not engine.running:
        return False
    swapped = engine.swapped_tokens + decision.swapped_tokens
    return engine.pending_swap_tokens + swapped > engine.policy.swap_lag_tokens


def displace(engine: Engine, decision: Decision) -> None:
    """The paragraph "Displace"."""
    while engine.queue:
        head = engine.queue.head(engine.keys_at_s)
        assert head is not None
        chunk = head.known if engine.policy.reserve == Reserve.CHUNK else 0
        if engine.seat_is_free and fits(engine, head, chunk, engine.running, engine.free + engine.found(head)[1]):
            return
        if head.num_preemptions > 0 and head.waiting_since_s == engine.clock_s:
            return
        if channel_is_busy(engine, decision):
            return
        victims = _displaced(engine, head, chunk)
        if not victims:
            return
        engine.queue.remove(head)
        for victim in victims:
            preempt(engine, decision, victim)
        engine.join(head, reserved_blocks(engine, head, chunk))
        if head.on_host:
            bring_back(engine, decision, head)


def _displaced(engine: Engine, head: Request, chunk: int) -> list[Request]:
    """As few running requests with larger keys as give the head a sequence and a fit; nobody if all do not."""
    head_key = queue_key(engine.policy, head, engine.keys_at_s)
    later_first = list(reversed(engine.running))
    values = {r: queue_value(engine.policy, r, engine.duration) for r in later_first}
    larger = [r for r in later_first if values[r] > head_key and not is_pinned(engine.policy, r)]
    larger.sort(key=lambda r: -values[r])
    for count in range(1, len(larger) + 1):
        victims = larger[:count]
        others = [r for r in engine.running if r not in victims]
        free = engine.free + sum(engine.blocks_alone(r) for r in victims)
        if engine.has_place_beside(len(others)) and fits(engine, head, chunk, others, free):
            return victims
    return []


def order(engine: Engine, policy: Policy) -> None:
    """The paragraph "Order"; Python's sort is stable."""
    if policy.run_order == RunOrder.ARRIVAL:
        engine.running.sort(key=lambda request: request.order)
    elif policy.run_order == RunOrder.PROCESSED_DESC:
        engine.running.sort(key=lambda request: -processed(request))
    elif policy.run_order == RunOrder.QUEUE_KEY:
        engine.running.sort(key=lambda request: queue_value(engine.policy, request, engine.duration))
    elif policy.run_order == RunOrder.TOKEN_DEADLINE:
        engine.running.sort(key=lambda r: token_deadline(policy, r) if r.is_decode else r.arrival_s)


def serve(engine: Engine, decision: Decision) -> None:
    """The paragraph "Serve"."""
    policy = decision.policy
    if policy.phase_order == PhaseOrder.DECODE_FIRST:
        if policy.hold_iterations > 0.0:
            serve_running(engine, decision, _due(engine, policy))
        else:
            serve_running(engine, decision, _decodes(engine))
        if not policy.hybrid and decision.batch:
            return
        serve_running(engine, decision, _prefills(engine))
        admit(engine, decision)
        if policy.hold_iterations > 0.0:
            serve_running(engine, decision, [r for r in _decodes(engine) if r not in decision.batch])
    elif policy.phase_order == PhaseOrder.PREFILL_FIRST:
        serve_running(engine, decision, _prefills(engine))
        admit(engine, decision)
        if not policy.hybrid and decision.batch:
            return
        serve_running(engine, decision, _decodes(engine))
    else:
        serve_running(engine, decision, list(engine.running))
        admit(engine, decision)


def _due(engine: Engine, policy: Policy) -> list[Request]:
    """Decodes whose next token is due soon."""
    mean_s = engine.busy_s / engine.num_iterations if engine.num_iterations else 0.0
    nearly_full = 25 * (engine.N - engine.free) >= 24 * engine.N
    factor = 2.0 * policy.hold_iterations if nearly_full else policy.hold_iterations
    return [r for r in _decodes(engine) if token_deadline(policy, r) <= engine.clock_s + factor * mean_s]


def _decodes(engine: Engine) -> list[Request]:
    return [request for request in engine.running if request.is_decode]


def _prefills(engine: Engine) -> list[Request]:
    return [request for request in engine.running if not request.is_decode]


def limit_prefills(engine: Engine, decision: Decision) -> None:
    """The paragraph "Limits of prefills"."""
    policy = decision.policy
    decision.prefill_tokens_left = engine.C
    decision.decodes_run = bool(_decodes(engine))
    decision.is_alone = len(engine.running) + len(engine.queue) == 1
    if decision.decodes_run:
        if len(_prefills(engine)) + len(engine.queue) >= policy.prefill_share_from:
            decision.prefill_tokens_left = max(1, math.floor(engine.C * policy.prefill_share))
        since = engine.num_iterations + 1 - engine.last_prefill_iteration
        decision.prefills_held = since < policy.prefill_interval and not engine.prefills_backed_up


def note_backlog(engine: Engine, decision: Decision) -> None:
    """Whether somebody still waits although prefills were not held."""
    if not decision.prefills_held and (decision.policy.admit_after_preemption or not decision.preempted_in_serve):
        engine.prefills_backed_up = bool(engine.queue)


def serve_running(engine: Engine, decision: Decision, requests: Sequence[Request]) -> None:
    """Grant tokens to running requests in turn, preempting others where blocks are short."""
    for request in requests:
        if decision.serving_ended:
            return
        if not request.is_running:
            continue  # preempted for one before it
        tokens = wanted_tokens(engine, decision, request, request.resident)
        if tokens > 0 and make_room(engine, decision, request, tokens):
            decision.grant(request, tokens)


def make_room(engine: Engine, decision: Decision, request: Request, tokens: int) -> bool:
    """Give a running request the blocks for its tokens; False if it had to preempt itself."""
    needed = max(0, engine.blocks(request.resident + tokens) - request.held)
    if needed > engine.free and decision.policy.evict_share > 0.0 and not decision.share_cleared:
        clear_share(engine, decision)
        if not request.is_running:
            decision.serving_ended = decision.policy.self_preemption_ends
            return False
    while needed > engine.free:
        victim = choose_victim(engine, decision, request)
        preempt(engine, decision, victim)
        decision.preempted_in_serve = True
        if victim is request:
            decision.serving_ended = decision.policy.self_preemption_ends
            return False
    engine.take(request, needed)
    return True


def clear_share(engine: Engine, decision: Decision) -> None:
    """Preempt `evict_share` of all running requests."""
    decision.share_cleared = True
    for _ in range(math.ceil(decision.policy.evict_share * len(engine.running))):
        preempt(engine, decision, worst(engine, decision.policy, engine.running))
        decision.preempted_in_serve = True


def rearrange(engine: Engine, decision: Decision) -> None:
    """The paragraph "Afterwards"."""
    if decision.policy.run_order in (RunOrder.BATCH, RunOrder.PROCESSED_DESC):
        left_out = [request for request in engine.running if request not in decision.batch]
        left_out.sort(key=lambda request: request.order)
        engine.running = left_out + list(decision.batch)
