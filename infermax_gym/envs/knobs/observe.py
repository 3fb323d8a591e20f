"""Observations of `InferMaxKnobs-v0`: the engine as a whole, as in `InferMax-v0`."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled
from infermax_gym.engine.kernel.group import decode_demand
from infermax_gym.envs.scheduling.observe import observe_engine


@compiled
def observe(s: Any, v: Any, out: Any) -> None:
    """Write one observation.

    Args:
        s: the engine's record.
        v: the lane's record.
        out: (len(ENGINE_FEATURES),) float32.
    """
    v.demand = decode_demand(s)
    observe_engine(s, v, out)
