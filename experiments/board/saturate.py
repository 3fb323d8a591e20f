"""Where the time scales of `experiments.board.scenarios.SATURATED` come from: `python -m experiments.board.saturate`.

For each traffic, memory and model: six trace slices are served as one batch by the better of spf-headroom and
fcfs-headroom;
the time scale is that time over the time in which the trace slices arrive.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from experiments.board.scenarios import KV_TOKENS, MODELS, SATURATED, TRAFFICS
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import COSTS
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import make_workload

SEEDS = range(9_000, 9_006)
NUM_REQUESTS = {"mooncake": 200, "reasoning": 300}


def saturating_scale(traffic: str, num_kv_tokens: int, model: str) -> float:
    """The time scale at which trace slices arrive as fast as they are served."""
    engine = EngineConfig(cost=COSTS[MODELS[model]], num_kv_tokens=num_kv_tokens)
    arrived_s = served_s = 0.0
    for seed in SEEDS:
        trace_slice = make_workload(TRAFFICS[traffic], NUM_REQUESTS.get(traffic, 400), seed=seed)
        batch = replace(trace_slice, arrival_s=np.zeros(len(trace_slice)))
        served_s += min(simulate(batch, engine, POLICIES[p]).busy_s for p in ("spf-headroom", "fcfs-headroom"))
        arrived_s += float(trace_slice.arrival_s[-1])
    return served_s / arrived_s


def main() -> None:
    """Print the table."""
    for traffic in SATURATED:
        scales = [saturating_scale(traffic, tokens, model) for tokens in KV_TOKENS[traffic] for model in MODELS]
        print(f"{traffic}: {', '.join(f'{scale:.3g}' for scale in scales)}")


if __name__ == "__main__":
    main()
