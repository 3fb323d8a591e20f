"""Queue keys, victim keys and length estimates of a request, from what the policy may know."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.group import emitted, resident
from infermax_gym.engine.kernel.memory import requests
from infermax_gym.engine.policy import LengthEstimate, QueueOrder


@inlined
def remaining_prediction(s: Any, r: int) -> Any:
    """Predicted output tokens still to come, at least 0."""
    req = requests(s)
    q = req[r]
    return max(q.prediction - emitted(s, q), 0.0)


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
    return score + w[6] * q.priority + w[7] * q.slo_ttft_s


@compiled
def set_queue_key(s: Any, r: int) -> None:
    """Set the key with which request r enters the queue; for FIFO, the place behind everybody."""
    req = requests(s)
    q = req[r]
    order = s.queue_order
    q.slope = 0.0
    if order == QueueOrder.FIFO:
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
def processed(s: Any, r: int) -> Any:
    """KV tokens resident, plus one for a decode's emitted token."""
    req = requests(s)
    q = req[r]
    return q.computed if q.in_prefill else resident(s, q) + 1


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
    return score + w[6] * q.priority + (w[7] if q.in_prefill else 0.0)


@compiled
def output_estimate(s: Any, r: int) -> Any:
    """Output tokens that the policy counts on, whole."""
    req = requests(s)
    kind = s.estimate
    bound = s.max_output_tokens
    if kind == LengthEstimate.BOUND:
        return bound
    if kind == LengthEstimate.OPTIMISTIC_BOUND:
        grown = math.ceil(1.1 * emitted(s, req[r]))
        return min(bound, max(int(grown), 1024))
    return int(math.ceil(req[r].prediction))
