"""Admission of waiting requests."""

from __future__ import annotations

from infermax_gym.engine.policy import OnMisfit
from tests.reference.fairness import charge
from tests.reference.fit import fits, reserved_blocks
from tests.reference.request import Request
from tests.reference.state import Decision, Engine


def wanted_tokens(engine: Engine, decision: Decision, request: Request, resident: int) -> int:
    """c: what a request asks for that has so many tokens; 0 means that it idles."""
    if request.is_decode:
        return min(1, decision.tokens_left)
    if decision.prefills_held:
        return 0
    missing = request.known - resident
    left = min(decision.tokens_left, decision.prefill_tokens_left)
    if decision.policy.chunking:
        if not (decision.is_alone and decision.policy.uncapped_when_alone):
            missing = min(missing, decision.policy.max_chunk)
        if decision.decodes_run and left < min(missing, decision.policy.min_chunk):
            return 0
        missing = min(missing, left)
    elif missing > left:
        return 0
    if decision.policy.max_iteration_s == 0.0 or missing == 0:
        return missing
    in_time = _tokens_in_time(engine, decision, resident, missing)
    if in_time == 0 and not decision.batch:
        return 1 if decision.policy.chunking else missing
    return in_time


def _tokens_in_time(engine: Engine, decision: Decision, resident: int, most: int) -> int:
    """Most tokens that keep the iteration within its time limit; all or nothing without chunking."""
    for tokens in range(most, 0, -1) if decision.policy.chunking else [most]:
        if engine.duration.of(decision.batch, (tokens, resident)) <= decision.policy.max_iteration_s:
            return tokens
    return 0


def _is_open(engine: Engine, decision: Decision) -> bool:
    """Whether waiting requests may join in this call at all."""
    policy = decision.policy
    if not policy.admit_after_preemption and decision.preempted_in_serve:
        return False
    if policy.admit_when_empty_only and decision.something_ran:
        return False
    if len(engine.queue) < policy.min_waiting and engine.more_to_come:
        return False
    if not engine.running or not engine.queue:
        return True
    if engine.guard_holds:
        return False
    passed = engine.iterations_since_admission
    if passed is not None and passed < policy.min_decodes_between_prefills:
        return False
    if policy.delay_factor > 0.0:
        waited = engine.clock_s - min(request.arrival_s for request in engine.queue)
        return waited > policy.delay_factor * engine.last_prefill_duration_s
    return True


def admit(engine: Engine, decision: Decision) -> None:
    """The paragraph "Admission"."""
    if not _is_open(engine, decision):
        return
    if engine.queue and engine.batch_is_certain:
        for request, tokens in decision.batch.items():
            engine.publish(request, request.resident + tokens)
    skipped: list[Request] = []
    while engine.seat_is_free and decision.tokens_left > 0:
        if sum(not request.is_decode for request in engine.running) >= decision.policy.max_prefills:
            return
        request = engine.queue.head(engine.keys_at_s, skipped)
        if request is None or request.on_host:
            return
        num_found, num_found_held = engine.found(request)
        chunk = wanted_tokens(engine, decision, request, num_found * engine.b)
        if chunk == 0:
            return
        stored = num_found * engine.b + chunk
        if fits(engine, request, stored, engine.running, engine.free + num_found_held):
            engine.queue.remove(request)
            engine.join(request, reserved_blocks(engine, request, stored))
            if request.num_preemptions == 0:
                charge(engine, request, engine.policy.prompt_charge * request.num_prompt_tokens)
            decision.grant(request, chunk)
            decision.num_admitted += 1
            if engine.batch_is_certain:
                engine.publish(request, stored)
        elif decision.policy.on_misfit == OnMisfit.SKIP and len(skipped) < decision.policy.max_skips:
            skipped.append(request)
        else:
            return
