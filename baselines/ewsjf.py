"""EWSJF (arXiv 2601.21758): queues by prompt length, the next request from the one whose head scores highest.

A request of I prompt tokens joins queue k = I // `step_tokens`, whose head, of L tokens, scores
wait x (1 + `length_weight` x ln(L + 1)) / (k + 1): short prompts first, but whoever waits catches up. That is the rule
of the authors' vLLM scheduler (`ewsjf_scheduler/scoring.py`, steps of 200 tokens, weight 0.5), on vLLM V1's batches.

What differs: L is the middle of the queue's lengths, so that queues stay in order of arrival; a preempted request
returns to its place by arrival. The paper's clustering of lengths and its Bayesian tuning of the weights are left out:
queues are of equal width, as in the code without a configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.table.vllm import VLLM_0_13
from infermax_gym.engine import EngineConfig, Information, Policy, SimulationResult
from infermax_gym.engine.policy import QueueOrder, queue_weights
from infermax_gym.engine.session import Session
from infermax_gym.workload import Workload

_SCALE = 1e6
"""Response ratios take work of at least 1; only its proportions count."""


@dataclass(frozen=True)
class Ewsjf:
    """A player of EWSJF: highest response ratio next, with a work per queue of prompt lengths.

    Attributes:
        step_tokens: width of a queue.
        length_weight: how much longer prompts are made up for.
        batches: the policy whose batches and memory it uses.
    """

    name: str = "ewsjf"
    step_tokens: int = 200
    length_weight: float = 0.5
    batches: Policy = VLLM_0_13
    information: Information = Information.NONE
    source: str = "EWSJF (2601.21758), scores of its vLLM code: 200-token queues, weight 0.5; no clustering, no tuning"
    note: str = "Short prompts first, and nobody waits for ever; V1's batches and V1's evictions."

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; nothing is random."""
        row = replace(
            self.batches,
            name=self.name,
            queue_order=QueueOrder.RESPONSE_RATIO,
            queue_weights=queue_weights(priority=1.0),
        )
        session = Session(workload, engine, row, record_schedule=record_schedule)
        session.engine.requests["priority"] = _SCALE * self.work(workload.num_prompt_tokens)
        session.run()
        return session.result()

    def work(self, num_prompt_tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) what a request's wait is divided by, of (n,) prompt lengths."""
        queue = num_prompt_tokens // self.step_tokens
        middle = (queue + 0.5) * self.step_tokens
        return np.asarray((queue + 1) / (1.0 + self.length_weight * np.log(middle + 1.0)))
