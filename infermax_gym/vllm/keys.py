"""Queue keys, victim keys and length estimates: `infermax_gym.engine.kernel.keys` on vLLM's requests, bit for bit.

Sums keep the order of the compiled twin; a change there is a change here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infermax_gym.engine.policy import QueueOrder
from infermax_gym.vllm.seconds import prefill_seconds

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.vllm.requests import Seen

Weights = Sequence[float]


def remaining_prediction(entry: Seen) -> float:
    """Predicted output tokens still to come, at least 0."""
    return max(entry.prediction - entry.generated, 0.0)


def kv_steps(entry: Seen) -> float:
    """Predicted KV tokens times decode steps still to come."""
    rest = remaining_prediction(entry)
    return rest * (entry.known + 0.5 * rest)


def queue_score(entry: Seen, w: Weights, cost: CostModel | None) -> float:
    """queue_weights . queue features of a request, from its state now; nobody has a level, place is the arrival."""
    generated = entry.generated
    known = entry.known
    score = w[0] * entry.arrival_s + w[1] * entry.prompt + w[2] * known
    if w[3] != 0.0:
        score += w[3] * math.log(known)
    score += w[4] * generated
    score += w[5] * remaining_prediction(entry)
    score = score + w[6] * entry.index + w[7] * entry.slo_ttft_s
    score += w[8] * (known - (0 if entry.waits else entry.computed))
    if w[9] != 0.0:
        assert cost is not None
        score += w[9] * prefill_seconds(cost, known)
    score = score + w[10] * kv_steps(entry) + w[11] * 0 + w[12] * entry.arrival_s
    score += w[13] / (1.0 + entry.prompt / 32768.0)
    if w[14] != 0.0:
        score += w[14] * _log_work(entry.prompt, 0)
    if w[15] != 0.0:
        score += w[15] * _log_work(known, 0 if entry.waits else entry.computed)
    return score


def _log_work(known: int, computed: int) -> float:
    """Natural logarithm of the attention work from `computed` to `known` tokens, fewer."""
    return math.log(0.5 * (known * (known + 1) - computed * (computed + 1)))


def set_queue_key(entry: Seen, order: QueueOrder, w: Weights, cost: CostModel | None) -> None:
    """Set the key with which a request enters the queue; for FIFO, the place behind everybody."""
    entry.slope = 0.0
    if order == QueueOrder.FIFO:
        entry.key = float(entry.number)
        return
    score = queue_score(entry, w, cost)
    if order == QueueOrder.LINEAR:
        entry.key = score
    elif order == QueueOrder.LOAD_ADAPTIVE:
        entry.key = score
        entry.slope = entry.arrival_s
    else:
        work = max(score, 1.0)
        entry.key = entry.arrival_s / work
        entry.slope = -1.0 / work


def processed(entry: Seen) -> int:
    """KV tokens resident, plus one for a decode's emitted token."""
    return entry.computed if entry.in_prefill else entry.computed + 1


def victim_score(entry: Seen, w: Weights) -> float:
    """victim_weights . victim features of a running request."""
    done = processed(entry)
    score = w[0] * entry.arrival_s + w[1] * entry.prompt + w[2] * done
    if w[3] != 0.0:
        score += w[3] * math.log(max(done, 1))
    score += w[4] * entry.generated
    score += w[5] * remaining_prediction(entry)
    score = score + w[6] * entry.index + (w[7] if entry.in_prefill else 0.0)
    return score + w[8] * kv_steps(entry) + w[9] * 0 + w[10] * entry.arrival_s
