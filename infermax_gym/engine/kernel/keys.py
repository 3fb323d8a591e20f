"""Queue keys, victim keys and length estimates of a request, from what the policy may know."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.group import emitted, resident
from infermax_gym.engine.kernel.history import history_estimate
from infermax_gym.engine.kernel.memory import requests
from infermax_gym.engine.kernel.prefix import freed_by
from infermax_gym.engine.kernel.seconds import prefill_seconds
from infermax_gym.engine.policy import NO_LIMIT, LengthEstimate, QueueOrder


@inlined
def remaining_prediction(s: Any, r: int) -> Any:
    """Predicted output tokens still to come, at least 0."""
    req = requests(s)
    q = req[r]
    return max(q.prediction - emitted(s, q), 0.0)


@inlined
def kv_steps(s: Any, r: int) -> Any:
    """Predicted KV tokens times decode steps still to come."""
    q = requests(s)[r]
    rest = remaining_prediction(s, r)
    return rest * (q.prompt + emitted(s, q) + 0.5 * rest)


@inlined
def log_work(known: int, computed: int) -> Any:
    """Natural logarithm of the attention work from `computed` to `known` tokens, fewer."""
    return math.log(0.5 * (known * (known + 1) - computed * (computed + 1)))


@compiled
def queue_score(s: Any, r: int) -> Any:
    """queue_weights . queue features of request r, from its state now."""
    req = requests(s)
    w = s.queue_weights
    q = req[r]
    generated = emitted(s, q)
    known = q.prompt + generated
    score = w[0] * q.arrival_s + w[1] * q.prompt + w[2] * known
    if w[3] != 0.0:
        score += w[3] * math.log(known)
    score += w[4] * generated
    score += w[5] * remaining_prediction(s, r)
    score = score + w[6] * q.priority + w[7] * q.slo_ttft_s
    score += w[8] * (known - resident(s, q))
    if w[9] != 0.0:
        score += w[9] * prefill_seconds(s, known)
    score = score + w[10] * kv_steps(s, r) + w[11] * q.level + w[12] * q.level_place_s
    score += w[13] / (1.0 + q.prompt / 32768.0)
    if w[14] != 0.0:
        score += w[14] * log_work(q.prompt, 0)
    if w[15] != 0.0:
        score += w[15] * log_work(known, resident(s, q))
    return score


@compiled
def set_queue_key(s: Any, r: int) -> None:
    """Set the key with which request r enters the queue; for FIFO, the place behind everybody."""
    req = requests(s)
    q = req[r]
    order = s.queue_order
    q.slope = 0.0
    if order == QueueOrder.FIFO or order == QueueOrder.FAIR:
        q.key = float(r)
    elif order == QueueOrder.LINEAR:
        q.key = queue_score(s, r)
    elif order == QueueOrder.LOAD_ADAPTIVE:
        q.key = queue_score(s, r)
        q.slope = q.arrival_s
    else:
        work = max(queue_score(s, r), 1.0)
        q.key = q.arrival_s / work
        q.slope = -1.0 / work


@inlined
def token_deadline(s: Any, q: Any) -> Any:
    """When the next token of a decode is due."""
    return q.last_token_s + (q.slo_tpot_s if q.slo_tpot_s > 0.0 else s.hold_tpot_s)


@inlined
def is_pinned(s: Any, r: int) -> Any:
    """Whether running request r has generated too much of its first prediction to be displaced."""
    q = requests(s)[r]
    return s.pin_after < NO_LIMIT and emitted(s, q) >= s.pin_after * q.first_prediction


@inlined
def processed(s: Any, r: int) -> Any:
    """KV tokens resident, plus one for a decode's emitted token."""
    req = requests(s)
    q = req[r]
    return q.computed if q.in_prefill else resident(s, q) + 1


@inlined
def _reclaim_value(s: Any, r: int) -> Any:
    """Blocks that preempting r frees, for each known token, times the share of its outputs that may still come."""
    q = requests(s)[r]
    generated = emitted(s, q)
    return freed_by(s, r) / (q.prompt + generated) * (1.0 - generated / s.max_output_tokens)


@compiled
def victim_score(s: Any, r: int) -> Any:
    """victim_weights . victim features of running request r."""
    req = requests(s)
    w = s.victim_weights
    q = req[r]
    done = processed(s, r)
    score = w[0] * q.arrival_s + w[1] * q.prompt + w[2] * done
    if w[3] != 0.0:
        score += w[3] * math.log(max(done, 1))
    score += w[4] * emitted(s, q)
    score += w[5] * remaining_prediction(s, r)
    score = score + w[6] * q.priority + (w[7] if q.in_prefill else 0.0)
    score = score + w[8] * kv_steps(s, r) + w[9] * q.level + w[10] * q.level_place_s
    if w[11] != 0.0:
        score += w[11] * _reclaim_value(s, r)
    return score


@inlined
def _optimistic(bound: int, generated: int) -> Any:
    grown = math.ceil(1.1 * generated)
    return min(bound, max(int(grown), 1024))


@compiled
def output_estimate(s: Any, r: int) -> Any:
    """Output tokens that the policy counts on, whole."""
    req = requests(s)
    kind = s.estimate
    bound = s.max_output_tokens
    if kind == LengthEstimate.BOUND:
        return bound
    if kind == LengthEstimate.OPTIMISTIC_BOUND:
        return _optimistic(bound, emitted(s, req[r]))
    if kind == LengthEstimate.HISTORY:
        generated = emitted(s, req[r])
        learned = history_estimate(s, generated)
        return min(bound, max(learned, generated + 1)) if learned > 0 else _optimistic(bound, generated)
    return int(math.ceil(req[r].prediction))
