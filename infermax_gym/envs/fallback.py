"""Who serves the rest of an episode that reaches a limit, so that every episode is paid in full.

However an episode ends, its rewards hold what all its requests cost: behind a limit this policy serves whatever is
left, inside the kernel, and its bill is part of the last step's reward. An agent that leaves requests to it has, at
most, the return that the policy alone would have had: what lies above, a matter of luck, is charged to the last step.
So nothing pays but serving.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.session import install_policy, run_to
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload

FALLBACK = Policy(
    "spf-headroom",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    headroom_tokens=50.0,
    max_running=64,
    victim=Victim.KEY,
    victim_weights=victim_weights(num_processed_tokens=-1.0),
)
"""Shortest known tokens first, 50 tokens of headroom per running request, at most 64 sequences, the fewest cached
tokens preempted first: the table's `spf-headroom`, which needs no predictions."""


def serve_rest(engine: Engine, recorder: Recorder, policy: Policy = FALLBACK) -> None:
    """Serve all that is left and all that is to come.

    Args:
        engine: between two iterations.
        recorder: gets what its log holds when it is full.
        policy: who serves.

    Raises:
        SchedulerError: the policy starts nobody though requests wait; it cannot be one of a fixed queue order.
    """
    install_policy(engine, policy)
    run_to(engine, recorder)


def totals_of(record: Any) -> NDArray[np.float64]:
    """(NUM_COMPONENTS,) components since the beginning of an engine's run, from its record (1,) CORE."""
    names = ("clock_s", "system_seconds", "unstarted_seconds", "busy_s", "num_good", "num_finished")
    return np.array([float(record[name][0]) for name in names])


def alone(workload: Workload, config: EngineConfig) -> NDArray[np.float64]:
    """(NUM_COMPONENTS,) what the fallback policy alone makes of an episode."""
    engine = allocate(workload, config, FALLBACK)
    serve_rest(engine, Recorder())
    return totals_of(engine.record)


def charge(weights: NDArray[np.float64], actual: NDArray[np.float64], of_fallback: NDArray[np.float64]) -> float:
    """What the last reward of an episode that was handed over loses, so that its return is at most the fallback's.

    Args:
        weights: of the reward.
        actual: totals of the episode.
        of_fallback: totals of the fallback alone.
    """
    return max(0.0, float(weights.dot(actual)) - float(weights.dot(of_fallback)))
