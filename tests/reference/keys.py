"""Keys: what the waiting queue, the running list and the choice of a victim are ordered by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infermax_gym.engine.policy import NO_LIMIT, Policy, QueueOrder
from tests.reference.duration import Duration
from tests.reference.request import Request


def _dot(weights: Sequence[float], features: Sequence[float]) -> float:
    """Sum of products, from the first to the last."""
    total = 0.0
    for weight, feature in zip(weights, features, strict=True):
        total += weight * feature
    return total


def queue_value(policy: Policy, request: Request, duration: Duration) -> float:
    """queue_weights . features, from the request's state now; the key itself where the order is LINEAR."""
    features = (
        request.arrival_s,
        request.num_prompt_tokens,
        request.known,
        math.log(request.known),
        request.generated,
        max(request.prediction - request.generated, 0.0),
        request.priority,
        request.slo_ttft_s,
        request.known - request.resident,
        duration.of_prefill(request.known),
        kv_steps(request),
        request.level,
        request.level_place_s,
        1.0 / (1.0 + request.num_prompt_tokens / 32768),
        log_work(request.num_prompt_tokens, 0),
        log_work(request.known, request.resident),
    )
    return _dot(policy.queue_weights, features)


def log_work(known: int, resident: int) -> float:
    """Logarithm of the attention work of the tokens from `resident` to `known`."""
    return math.log((known * (known + 1) - resident * (resident + 1)) / 2)


def kv_steps(request: Request) -> float:
    """Predicted KV tokens times decode steps still to come."""
    rest = max(request.prediction - request.generated, 0.0)
    return rest * (request.known + 0.5 * rest)


def is_pinned(policy: Policy, request: Request) -> bool:
    """Whether it has generated too much to be displaced."""
    return policy.pin_after < NO_LIMIT and request.generated >= policy.pin_after * request.first_prediction


def token_deadline(policy: Policy, request: Request) -> float:
    """When the next token of a decode is due."""
    return request.last_token_s + (request.slo_tpot_s or policy.hold_tpot_s)


def queue_key(policy: Policy, request: Request, clock_s: float, num_waiting: int = 0) -> float:
    """The key of a waiting request: features from when it entered the queue, clock and load as they are now."""
    if policy.queue_order == QueueOrder.LOAD_ADAPTIVE:
        return request.queue_value + request.arrival_s * (policy.load_aging * num_waiting)
    if policy.queue_order == QueueOrder.RESPONSE_RATIO:
        work = max(request.queue_value, 1.0)
        return request.arrival_s / work + clock_s * (-1.0 / work)
    return request.queue_value


def processed(request: Request) -> int:
    """Processed tokens: those resident, and a decode's emitted one."""
    return request.resident + 1 if request.is_decode else request.resident


def victim_key(policy: Policy, request: Request, num_freed: int, max_output_tokens: int) -> float:
    """victim_weights . features, from the request's state now; preempting it frees so many blocks."""
    features = (
        request.arrival_s,
        request.num_prompt_tokens,
        processed(request),
        math.log(max(processed(request), 1)),
        request.generated,
        max(request.prediction - request.generated, 0.0),
        request.priority,
        0.0 if request.is_decode else 1.0,
        kv_steps(request),
        request.level,
        request.level_place_s,
        num_freed / request.known * (1.0 - request.generated / max_output_tokens),
    )
    return _dot(policy.victim_weights, features)
