"""Compiled steps of `InferMaxKnobs-v0`: new knobs, and on to the end of the control interval.

Functions take arrays of one record each: Python hands an array over far faster than a record.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.advance import arrive
from infermax_gym.engine.kernel.run import jump_to_next_arrival
from infermax_gym.envs.knobs.observe import observe
from infermax_gym.envs.scheduling.step import take_components


@compiled
def start(engines: Any) -> None:
    """Bring a fresh engine to its first arrival that is not rejected."""
    s = engines[0]
    arrive(s)
    while s.num_waiting == 0 and s.num_rejected < s.num_requests + s.num_unsent:
        jump_to_next_arrival(s)
        arrive(s)


@compiled
def look(engines: Any, lanes: Any, reward_components: Any, out: Any) -> None:
    """What happened since the last look, and the observation now."""
    take_components(engines[0], lanes[0], reward_components)
    observe(engines[0], lanes[0], out)
