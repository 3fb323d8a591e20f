"""A controller at work: every few seconds it looks at the server and sets the policy's knobs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infermax_gym.agents.controller_layout import (
    KNOB_AGING,
    KNOB_CLASS_TTFT,
    KNOB_GENERATED_TOKENS,
    KNOB_HEADROOM,
    KNOB_KNOWN_TOKENS,
    KNOB_LOG_KNOWN_TOKENS,
    KNOB_MAX_RUNNING,
    KNOB_PREDICTED_REMAINING,
    KNOB_PREFILL_SHARE,
    KNOB_VICTIM_ARRIVAL,
    KNOB_VICTIM_GENERATED,
    KNOB_VICTIM_INDEX,
    KNOB_VICTIM_PROCESSED,
    KNOB_VICTIM_REMAINING,
)
from infermax_gym.engine.policy import queue_weights, victim_weights
from infermax_gym.vllm.features import Watch
from infermax_gym.vllm.knobs import KnobWeights
from infermax_gym.vllm.lengths import Lengths
from infermax_gym.vllm.requests import Seen

if TYPE_CHECKING:
    from infermax_gym.cost import CostModel
    from infermax_gym.vllm.decisions import Decisions


class Controlling:
    """Sets the knobs of `Decisions`.

    Args:
        weights: the controller.
        cost: what iterations cost.
    """

    def __init__(self, weights: KnobWeights, cost: CostModel) -> None:
        self._weights = weights
        self._watch = Watch(cost)
        self._lengths = Lengths(weights)
        self._finished: list[tuple[int, int, int]] = []
        self._next_s = -math.inf
        self.num_settings = 0
        self.last_knobs: Sequence[float] = ()

    def arrived(self, entry: Seen) -> None:
        """A request has arrived; its queue key comes next."""
        self._watch.arrived(entry.prompt)
        entry.group = self._lengths.group(entry)
        if self._weights.sigma == 0.0:
            entry.first_prediction = entry.prediction = 0.0
        if self._weights.estimates_lengths:
            self._lengths.estimate(entry)

    def left_alone(self, decisions: Decisions) -> None:
        """Nobody is left."""
        self.set_if_due(decisions)

    def finished(self, entry: Seen, clock_s: float) -> None:
        """A request has emitted its last token."""
        outputs = entry.request.num_output_tokens
        tpot_s = (clock_s - entry.first_token_s) / max(outputs - 1, 1)
        late = entry.slo_ttft_s > 0.0 and entry.first_token_s - entry.arrival_s > entry.slo_ttft_s
        slow = entry.slo_tpot_s > 0.0 and tpot_s > entry.slo_tpot_s
        self._watch.num_good += not (late or slow)
        self._finished.append((entry.number, entry.group, outputs))

    def set_if_due(self, decisions: Decisions) -> None:
        """Set the knobs if it is time to."""
        if decisions.clock_s < self._next_s:
            return
        finished = sorted(self._finished)
        self._finished.clear()
        self._lengths.learn((group, outputs) for _, group, outputs in finished)
        mean, variance = self._lengths.overall()
        running = decisions.running.numbers()
        features = self._watch.look(decisions, running, len(finished), mean, variance)
        knobs = self._weights.choose(self._weights.pick(features), features)
        if not all(map(math.isfinite, knobs)):
            raise FloatingPointError(f"agent {self._weights.name}: a knob is not a number")
        self._set(decisions, knobs)
        if self._weights.estimates_lengths:
            self._lengths.set(knobs, decisions.clock_s)
            self._lengths.estimate_running(decisions.running.entries, running.known, running.generated)
            self._lengths.estimate_waiting(decisions.queue.table)
        decisions.set_keys_anew()
        self.last_knobs = knobs
        self.num_settings += 1
        self._next_s = decisions.clock_s + self._weights.interval_s

    def _set(self, decisions: Decisions, a: Sequence[float]) -> None:
        """Knobs into the policy: the twin of `set_knobs` in `infermax_gym.agents.controller_kernel`."""
        estimates = self._weights.estimates_lengths
        decisions.queue_weights = queue_weights(
            arrival_s=a[KNOB_AGING] / 10.0,
            num_known_tokens=a[KNOB_KNOWN_TOKENS] / 1000.0,
            log_known_tokens=a[KNOB_LOG_KNOWN_TOKENS] / 7.0,
            num_generated_tokens=a[KNOB_GENERATED_TOKENS] / 100.0,
            predicted_remaining_tokens=a[KNOB_PREDICTED_REMAINING] / 100.0,
            priority=1.0 if estimates else 0.0,
            slo_ttft_s=a[KNOB_CLASS_TTFT] / 2.0,
        )
        decisions.running.victim_weights = victim_weights(
            num_processed_tokens=a[KNOB_VICTIM_PROCESSED] / 1000.0,
            num_generated_tokens=a[KNOB_VICTIM_GENERATED] / 100.0,
            arrival_s=a[KNOB_VICTIM_ARRIVAL] / 10.0,
            predicted_remaining_tokens=a[KNOB_VICTIM_REMAINING] / 100.0,
            priority=a[KNOB_VICTIM_INDEX] if estimates else 0.0,
        )
        headroom = (a[KNOB_HEADROOM] + 1.0) / 2.0
        decisions.admission.headroom_tokens = 1000.0 * (headroom * (headroom * headroom))
        limits = decisions.limits
        most = int(round(float(limits.max_num_seqs) ** ((a[KNOB_MAX_RUNNING] + 1.0) / 2.0)))
        decisions.max_running = min(max(1, most), limits.max_num_seqs, limits.num_blocks)
        decisions.prefill_share = 0.05 + 0.95 * ((a[KNOB_PREFILL_SHARE] + 1.0) / 2.0)
