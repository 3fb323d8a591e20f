"""Queue keys, victim keys and length estimates: `infermax_gym.engine.kernel.keys` on vLLM's requests, bit for bit.

Sums keep the order of the compiled twin; a change there is a change here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from infermax_gym.engine.policy import QueueOrder
from infermax_gym.vllm.columns import (
    ARRIVAL_S,
    GENERATED,
    INDEX,
    KNOWN,
    LOG_KNOWN,
    NUMBER,
    PREDICTION,
    PREFILL_S,
    PROMPT,
    SLO_TTFT_S,
    Table,
)
from infermax_gym.vllm.seconds import prefill_seconds

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.vllm.requests import Seen

Weights = Sequence[float]


def _rest(entry: Seen, generated: int) -> float:
    """Predicted output tokens still to come, at least 0."""
    return max(entry.prediction - generated, 0.0)


def _kv_steps(entry: Seen, generated: int, known: int) -> float:
    """Predicted KV tokens times decode steps still to come."""
    rest = _rest(entry, generated)
    return rest * (known + 0.5 * rest)


def queue_score(entry: Seen, w: Weights, cost: CostModel | None) -> float:
    """queue_weights . queue features of a request, from its state now; nobody has a level, place is the arrival.

    Features without weight are left out: they would add 0.
    """
    generated, prompt = entry.generated, entry.prompt
    known = prompt + generated
    score = w[0] * entry.arrival_s + w[1] * prompt + w[2] * known
    if w[3] != 0.0:
        score += w[3] * math.log(known)
    score += w[4] * generated
    if w[5] != 0.0:
        score += w[5] * _rest(entry, generated)
    score = score + w[6] * entry.index + w[7] * entry.slo_ttft_s
    if w[8] != 0.0:
        score += w[8] * (known - (0 if entry.waits else entry.computed))
    if w[9] != 0.0:
        assert cost is not None
        score += w[9] * prefill_seconds(cost, known)
    if w[10] != 0.0:
        score += w[10] * _kv_steps(entry, generated, known)
    score += w[12] * entry.arrival_s
    if w[13] != 0.0:
        score += w[13] / (1.0 + prompt / 32768.0)
    if w[14] != 0.0:
        score += w[14] * _log_work(prompt, 0)
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


def queue_keys(table: Table, order: QueueOrder, w: Weights) -> tuple[Table, Table | float]:
    """`set_queue_key` for everybody who waits, bit for bit; for FIFO, the order of arrival.

    Args:
        table: of the queue.
        order: how the queue is sorted.
        w: queue_weights.

    Returns:
        (waiting,) keys, and slopes.
    """
    if order == QueueOrder.FIFO:
        return table[NUMBER], 0.0
    scores = _queue_scores(table, w)
    if order == QueueOrder.LINEAR:
        return scores, 0.0
    if order == QueueOrder.LOAD_ADAPTIVE:
        return scores, table[ARRIVAL_S]
    work = np.maximum(scores, 1.0)
    return table[ARRIVAL_S] / work, -1.0 / work


def _queue_scores(table: Table, w: Weights) -> Table:
    """`queue_score` for everybody who waits, in the same order of sums; logarithms are the C library's, as there."""
    arrival_s, prompt, known, generated = table[ARRIVAL_S], table[PROMPT], table[KNOWN], table[GENERATED]
    score: Table = w[0] * arrival_s + w[1] * prompt + w[2] * known
    if w[3] != 0.0:
        score += w[3] * table[LOG_KNOWN]
    score += w[4] * generated
    if w[5] != 0.0 or w[10] != 0.0:
        rest = np.maximum(table[PREDICTION] - generated, 0.0)
    if w[5] != 0.0:
        score += w[5] * rest
    score = score + w[6] * table[INDEX] + w[7] * table[SLO_TTFT_S]
    if w[8] != 0.0:
        score += w[8] * known
    if w[9] != 0.0:
        score += w[9] * table[PREFILL_S]
    if w[10] != 0.0:
        score += w[10] * (rest * (known + 0.5 * rest))
    score += w[12] * arrival_s
    if w[13] != 0.0:
        score += w[13] / (1.0 + prompt / 32768.0)
    for weight, tokens in ((w[14], prompt), (w[15], known)):
        if weight != 0.0:
            score += weight * each(math.log, 0.5 * (tokens * (tokens + 1.0)))
    return score


def each(function: Callable[[float], float], values: Table) -> Table:
    """A function of the C library for each value; numpy's own may differ in the last bit."""
    return np.fromiter(map(function, values.tolist()), np.float64, len(values))


def processed(entry: Seen) -> int:
    """KV tokens resident, plus one for a decode's emitted token."""
    return entry.computed if entry.in_prefill else entry.computed + 1


def victim_score(entry: Seen, w: Weights) -> float:
    """victim_weights . victim features of a running request."""
    done = processed(entry)
    generated = entry.generated
    score = w[0] * entry.arrival_s + w[1] * entry.prompt + w[2] * done
    if w[3] != 0.0:
        score += w[3] * math.log(max(done, 1))
    score += w[4] * generated
    if w[5] != 0.0:
        score += w[5] * _rest(entry, generated)
    score = score + w[6] * entry.index + (w[7] if entry.in_prefill else 0.0)
    if w[8] != 0.0:
        score += w[8] * _kv_steps(entry, generated, entry.prompt + generated)
    return score + w[10] * entry.arrival_s
