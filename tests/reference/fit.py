"""Fit: what must be free before a waiting request joins."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infermax_gym.engine.policy import AdmissionCheck, LengthEstimate, Reserve
from tests.reference.request import Request
from tests.reference.state import Engine


def estimate(engine: Engine, request: Request) -> int:
    """The output length that the policy reckons with."""
    kind = engine.policy.estimate
    if kind == LengthEstimate.BOUND:
        return engine.max_output_tokens
    if kind == LengthEstimate.OPTIMISTIC_BOUND:
        return _optimistic(engine, request.generated)
    if kind == LengthEstimate.HISTORY:
        return _history_estimate(engine, request.generated)
    assert kind == LengthEstimate.PREDICTED
    return math.ceil(request.prediction)


def _optimistic(engine: Engine, generated: int) -> int:
    return math.ceil(min(engine.max_output_tokens, max(1.1 * generated, 1024)))


def _history_estimate(engine: Engine, generated: int) -> int:
    """The quantile of the finished outputs in the bin of the next token and beyond."""
    width = -(-engine.max_output_tokens // 1024)
    bins = sorted(min((output - 1) // width, 1023) for output in engine.finished_outputs)
    beyond = [b for b in bins if b >= min(generated // width, 1023)]
    if not beyond:
        return _optimistic(engine, generated)
    wanted = engine.policy.history_quantile * len(beyond)
    learned = next((b + 1) * width for count, b in enumerate(beyond, start=1) if count >= wanted)
    return min(engine.max_output_tokens, max(learned, generated + 1))


def reserved_blocks(engine: Engine, request: Request, stored: int) -> int:
    """R: the blocks a waiting request gets when it joins and will store so many tokens after its first pass."""
    reserve = engine.policy.reserve
    if reserve == Reserve.CHUNK:
        tokens = stored
    elif reserve == Reserve.KNOWN:
        tokens = request.known
    elif reserve == Reserve.TOTAL_ESTIMATE:
        tokens = max(request.known, request.num_prompt_tokens + estimate(engine, request) - 1)
    else:
        tokens = max(request.known, engine.max_model_len)
    return min(engine.blocks(tokens), engine.N)


def bucket(request: Request) -> int:
    """The request's place in the histogram: floor(log2 I)."""
    return request.num_prompt_tokens.bit_length() - 1


def _asked_blocks(engine: Engine, request: Request, stored: int) -> int:
    """A: the reserved blocks, or more where the admission check asks for more."""
    asked = reserved_blocks(engine, request, stored)
    check = engine.policy.admission_check
    if check == AdmissionCheck.KNOWN:
        asked = max(asked, engine.blocks(request.known))
    elif check == AdmissionCheck.HISTOGRAM:
        count, total = engine.histogram_count[bucket(request)], engine.histogram_sum[bucket(request)]
        mean = math.ceil(total / count) if count else 0
        asked = max(asked, engine.blocks(max(request.known, mean)))
    return min(asked, engine.N)


def future_peak(engine: Engine, requests: Sequence[Request]) -> int:
    """Most KV tokens that these requests will need at one time, were nobody else to join."""
    needs = [(max(estimate(engine, r) - r.generated - 1, 0), r.known + engine.b - 1) for r in requests]
    needs.sort(reverse=True)
    peak = 0
    total_now = 0
    for k, (rest, now) in enumerate(needs, start=1):
        total_now += now
        peak = max(peak, rest * k + total_now)
    return peak


def fits(engine: Engine, request: Request, stored: int, running: Sequence[Request], free: int) -> bool:
    """Whether a waiting request fits beside `running` where so many blocks are free."""
    policy = engine.policy
    if not running:
        return reserved_blocks(engine, request, stored) <= free
    left = free - _asked_blocks(engine, request, stored)
    if left < engine.watermark_blocks:
        return False
    if left * engine.b < policy.headroom_tokens * len(running):
        return False
    if policy.admission_check == AdmissionCheck.FUTURE_PEAK:
        return future_peak(engine, [*running, request]) <= (1.0 - policy.peak_margin) * engine.N * engine.b
    return True
