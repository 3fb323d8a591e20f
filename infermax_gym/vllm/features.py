"""What a controller sees of a server: the twin of `look` in `infermax_gym.agents.controller_kernel`, bit for bit."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from infermax_gym.agents.controller_layout import (
    FEATURE_ARRIVALS_SHARE,
    FEATURE_BACKLOG,
    FEATURE_CONTEXT_COST,
    FEATURE_GOOD_SHARE,
    FEATURE_LOG_OUTPUT,
    FEATURE_LOG_OUTPUT_SPREAD,
    FEATURE_LONG_WAIT,
    FEATURE_MEAN_PROMPT,
    FEATURE_MISSED_SHARE,
    FEATURE_ONE,
    NUM_ENGINE_FEATURES,
    NUM_FEATURES,
)
from infermax_gym.cost import CostModel
from infermax_gym.envs.scheduling.layout import EngineFeature
from infermax_gym.vllm.columns import ARRIVAL_S, GENERATED, NUMBER, SLO_TTFT_S
from infermax_gym.vllm.order import RunningNumbers
from infermax_gym.vllm.seconds import batch_seconds

if TYPE_CHECKING:
    from infermax_gym.vllm.decisions import Decisions

_SMOOTHING_S = 30.0
_RECENT = 100


def squash(x: float, half: float) -> float:
    """Map 0 .. infinity to 0 .. 1: x / (x + half)."""
    return x / (x + half)


class Watch:
    """What is kept account of between two settings.

    Args:
        cost: what iterations cost.
    """

    def __init__(self, cost: CostModel) -> None:
        self._cost = cost
        self._prompts: deque[int] = deque(maxlen=_RECENT)
        self._arrival_rate = self._finish_rate = self._last_s = 0.0
        self._arrived = 0
        self.num_good = 0

    def arrived(self, num_prompt_tokens: int) -> None:
        """Count a request."""
        self._prompts.append(num_prompt_tokens)

    def look(
        self, decisions: Decisions, running: RunningNumbers, num_finished_now: int, mean: float, variance: float
    ) -> list[float]:
        """The features now.

        Args:
            decisions: whose requests and replica are looked at.
            running: its running list in numbers.
            num_finished_now: requests that have finished since the last look.
            mean: of ln(output) as estimated now.
            variance: of the same.
        """
        clock_s, arrived = decisions.clock_s, decisions.num_arrived
        decay = math.exp(-(clock_s - self._last_s) / _SMOOTHING_S)
        self._arrival_rate = self._arrival_rate * decay + (arrived - self._arrived)
        self._finish_rate = self._finish_rate * decay + num_finished_now
        self._arrived, self._last_s = arrived, clock_s
        out = [0.0] * NUM_FEATURES
        out[FEATURE_ONE] = 1.0
        for i, value in enumerate(self._engine(decisions, running)):
            out[1 + i] = min(max(float(np.float32(value)), -1.0), 1.0)
        waiting = decisions.queue.table
        oldest_s = float(waiting[ARRIVAL_S].min(initial=clock_s))
        limited = (waiting[SLO_TTFT_S] > 0.0) & (waiting[GENERATED] == 0.0)
        missed = int(np.count_nonzero(limited & (clock_s - waiting[ARRIVAL_S] > waiting[SLO_TTFT_S])))
        num_waiting = len(decisions.queue)
        mean_prompt = float(sum(self._prompts)) / max(min(arrived, _RECENT), 1)
        out[FEATURE_LOG_OUTPUT] = mean / 8.0
        out[FEATURE_LOG_OUTPUT_SPREAD] = math.sqrt(variance) / 2.0
        out[FEATURE_ARRIVALS_SHARE] = (self._arrival_rate + 1.0) / (self._arrival_rate + self._finish_rate + 2.0)
        out[FEATURE_MEAN_PROMPT] = squash(mean_prompt, 1000.0)
        out[FEATURE_BACKLOG] = squash(num_waiting, 100.0)
        out[FEATURE_LONG_WAIT] = squash(clock_s - oldest_s, 60.0)
        out[FEATURE_MISSED_SHARE] = missed / max(num_waiting, 1)
        out[FEATURE_GOOD_SHARE] = self.num_good / max(decisions.num_finished, 1)
        alone_s = batch_seconds(self._cost, 1, num_decodes=1)
        with_context_s = batch_seconds(self._cost, 1, decode_context=int(mean_prompt), num_decodes=1)
        out[FEATURE_CONTEXT_COST] = squash(with_context_s / alone_s - 1.0, 1.0)
        return out

    def _engine(self, decisions: Decisions, running: RunningNumbers) -> list[float]:
        """Numbers that describe the engine as a whole, in the order of `EngineFeature`."""
        limits, memory, queue = decisions.limits, decisions.memory, decisions.queue
        decodes = np.flatnonzero(~running.in_prefill)
        computed = running.computed[decodes]
        num_running, num_decodes, num_waiting = len(running.known), len(decodes), len(queue)
        free, budget, most = memory.free_blocks, decisions.token_budget, decisions.max_running
        entries = decisions.running.entries
        held = np.array([memory.held_tokens(entries[i]) for i in decodes.tolist()], np.int64)
        demand = int(np.count_nonzero(computed + 1 > held))
        context = int(computed.sum())
        capacity = float(limits.num_blocks * limits.block_size)
        unstarted = int(np.count_nonzero(running.generated == 0.0)) + queue.num_unstarted
        full_s = batch_seconds(self._cost, budget, budget * budget, 1)
        decode_s = batch_seconds(self._cost, num_decodes, decode_context=context, num_decodes=num_decodes)
        table = queue.table
        first_s = float(table[ARRIVAL_S, table[NUMBER].argmin()]) if num_waiting else decisions.clock_s
        out = [0.0] * NUM_ENGINE_FEATURES
        out[EngineFeature.FREE_BLOCKS] = free / limits.num_blocks
        out[EngineFeature.RUNNING] = num_running / most
        out[EngineFeature.DECODES] = num_decodes / most
        out[EngineFeature.PREFILLS] = squash(num_running - num_decodes, 2.0)
        out[EngineFeature.WAITING] = squash(num_waiting, 16.0)
        out[EngineFeature.WAITING_TOKENS] = squash(queue.known_tokens, capacity)
        out[EngineFeature.DECODE_DEMAND] = min(1.0, demand / max(free, 1))
        out[EngineFeature.DECODE_CONTEXT] = context / capacity
        out[EngineFeature.OLDEST_WAIT] = squash(decisions.clock_s - first_s, 10.0)
        out[EngineFeature.UNSTARTED] = squash(unstarted, 16.0)
        out[EngineFeature.DECODE_SECONDS] = squash(decode_s, 0.05) if num_decodes > 0 else 0.0
        out[EngineFeature.FULL_SECONDS] = squash(full_s, 0.05)
        out[EngineFeature.TOKEN_BUDGET] = squash(budget, 1000.0)
        out[EngineFeature.CAPACITY] = squash(capacity, 100_000.0)
        out[EngineFeature.MAX_NUM_SEQS] = squash(most, 64.0)
        out[EngineFeature.ARRIVAL_RATE] = squash(decisions.num_arrived / max(decisions.clock_s, 1.0), 5.0)
        out[EngineFeature.LEVEL] = 1.0
        out[EngineFeature.PREEMPTION_RATE] = squash(decisions.num_preemptions / max(decisions.num_finished, 1), 1.0)
        return out
