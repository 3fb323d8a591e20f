"""Training and held-out trace slices: where policies are fitted, and where they are compared.

A scenario is a kind of situation (traffic, load, memory, model). Its trace slices are requests drawn from one stream of
seeds for training and another for testing, so that nothing is ever compared on what it was fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.agents.agent import Agent, prediction_sigma_of
from infermax_gym.agents.controller import Controller
from infermax_gym.cost import COSTS
from infermax_gym.cost.engines.table import find_engine
from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.streams import stream
from infermax_gym.workload import Workload, load_workload
from infermax_gym.workload.predictions import noisy_lengths

TRAIN, TEST = 0, 1
_STRIDE = 1_000_003  # trace slices of a split lie this far apart in seeds


@dataclass(frozen=True)
class TrainingScenario:
    """A situation to schedule in.

    Attributes:
        workload: preset name, or path of a trace (its trace slices are cut from its first half for training and its
            second half for testing).
        num_requests: requests of a trace slice.
        time_scale: factor on arrival times; below 1 raises the load.
        num_kv_tokens: KV capacity.
        cost: name of a cost preset or of an engine of the table.
        max_num_batched_tokens: token budget.
        ttft_slo_s: TTFT limit of requests that have none of their own, in seconds; None: no limit.
        tpot_slo_s: likewise for the time per output token.
    """

    workload: str = "azure-conv"
    num_requests: int = 1500
    time_scale: float = 1.0
    num_kv_tokens: int = 20_000
    cost: str = "llama2-7b-a100"
    max_num_batched_tokens: int = 512
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None

    @property
    def engine(self) -> EngineConfig:
        """The replica of this scenario."""
        return EngineConfig(
            cost=COSTS[self.cost] if self.cost in COSTS else find_engine(self.cost).cost,
            num_kv_tokens=self.num_kv_tokens,
            max_num_batched_tokens=self.max_num_batched_tokens,
        )


DEFAULT_SCENARIO = TrainingScenario(
    "mooncake-conversation",
    num_requests=50,
    time_scale=0.05,
    num_kv_tokens=400_000,
    cost="llama-3.1-8b@h200",
    max_num_batched_tokens=8192,
)
"""What `train.py` trains on unless told otherwise: the traffic and the engine of `InferMaxLongContext-v0`.

Bursts of long conversations, and memory for all of them: each running request slows all others, so that how many to
serve at once is what there is to learn (docs/environments.md).
"""

SATURATED_CHAT = TrainingScenario(num_kv_tokens=100_000, time_scale=1.3)
"""Chat, saturated, with memory for so many requests that tokens cost.

With tight memory one rule, shortest prompt first with some memory kept free, leaves nothing to learn; here the question
how many requests to serve at once does, since every decode reads its context (docs/results.md has both).
"""


@dataclass(frozen=True, eq=False)
class TraceSlice:
    """Requests and the replica that serves them.

    Attributes:
        workload: the requests.
        engine: the replica.
        noise: (n,) standard normal errors for predicted lengths, the same for every policy.
    """

    workload: Workload
    engine: EngineConfig
    noise: NDArray[np.float64]

    def predicted(self, sigma: float | None) -> NDArray[np.float64] | None:
        """(n,) predicted output tokens with log-normal error sigma, the same for everybody; None for None."""
        return None if sigma is None else noisy_lengths(self.workload.num_output_tokens, sigma, self.noise)

    def serve(self, contender: Policy | Controller | Agent) -> SimulationResult:
        """Serve the requests under a contender, with the predicted lengths that it gets."""
        if isinstance(contender, Agent):
            return contender.serve(self.workload, self.engine, predicted=self.predicted(contender.prediction_sigma))
        if isinstance(contender, Controller):
            return contender.play(self.workload, self.engine, predicted=self.predicted(contender.sigma))
        predicted = self.predicted(prediction_sigma_of(contender))
        return simulate(self.workload, self.engine, contender, predicted=predicted)


def trace_slices(scenario: TrainingScenario, count: int, *, split: int, seed: int = 0) -> list[TraceSlice]:
    """`count` trace slices of a scenario.

    Args:
        scenario: the situation.
        count: how many trace slices.
        split: TRAIN or TEST.
        seed: of the draw; TRAIN and TEST of any seeds never share a trace slice of a preset or half of a trace.
    """
    from infermax_gym.workload import PRESETS

    result = []
    for k in range(count):
        number = 2 * (seed * _STRIDE + k) + split
        if scenario.workload in PRESETS:
            workload = load_workload(
                scenario.workload, num_requests=scenario.num_requests, time_scale=scenario.time_scale, seed=number
            )
        else:
            workload = _cut(scenario, k, split, seed)
        workload = workload.with_limits(scenario.ttft_slo_s, scenario.tpot_slo_s)
        noise = stream(number, "predictor").standard_normal(len(workload))
        result.append(TraceSlice(workload, scenario.engine, noise))
    return result


def _cut(scenario: TrainingScenario, k: int, split: int, seed: int) -> Workload:
    whole = load_workload(scenario.workload)
    half = len(whole) // 2
    room = half - scenario.num_requests
    if room < 0:
        raise ValueError(
            f"{scenario.workload}: half of its {len(whole)} requests hold no trace slice of {scenario.num_requests}"
        )
    offset = int(stream(seed * _STRIDE + k, "workload").integers(room + 1))
    return whole.trace_slice(split * half + offset, scenario.num_requests).scaled(scenario.time_scale)
