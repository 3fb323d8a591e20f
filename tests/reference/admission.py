"""Admission of newcomers."""

from __future__ import annotations

from infermax_gym.engine.policy import OnMisfit
from tests.reference.fit import fits, reserved_blocks
from tests.reference.request import Request
from tests.reference.state import Decision, Engine


def wanted_tokens(decision: Decision, request: Request) -> int:
    """c: what a request asks for; 0 means that it idles."""
    if request.is_decode:
        return min(1, decision.tokens_left)
    missing = request.known - request.resident
    left = min(decision.tokens_left, decision.prefill_tokens_left)
    if decision.policy.chunking:
        return min(missing, decision.policy.max_chunk, left)
    return missing if missing <= left else 0


def _is_open(engine: Engine, decision: Decision) -> bool:
    """Whether newcomers may join in this call at all."""
    policy = decision.policy
    if not policy.admit_after_preemption and decision.preempted_in_serve:
        return False
    if policy.admit_when_empty_only and decision.something_ran:
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
    skipped: list[Request] = []
    while engine.seat_is_free and decision.tokens_left > 0:
        request = engine.queue.head(engine.clock_s, skipped)
        if request is None or request.on_host:
            return
        chunk = wanted_tokens(decision, request)
        if chunk == 0:
            return
        if fits(engine, request, chunk, engine.running, engine.free):
            engine.queue.remove(request)
            engine.join(request, reserved_blocks(engine, request, chunk))
            decision.grant(request, chunk)
            decision.num_admitted += 1
        elif decision.policy.on_misfit == OnMisfit.SKIP and len(skipped) < decision.policy.max_skips:
            skipped.append(request)
        else:
            return
