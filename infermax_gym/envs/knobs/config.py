"""What `InferMaxKnobs-v0` draws its episodes from: an `EnvConfig`; slots, levels, `decide` and `base` play no part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from infermax_gym.engine import Policy
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights
from infermax_gym.envs import settings as read
from infermax_gym.envs.scheduling.config import EnvConfig

BASE = Policy(
    "knobs",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    victim=Victim.KEY,
    victim_weights=victim_weights(num_processed_tokens=-1.0),
)
"""The kind of policy that the knobs belong to."""

INTERVAL_S = 5.0
"""Control interval in simulated seconds, unless another is chosen."""

_interval = read.number("a finite number above 0", lambda value: 0.0 < value < math.inf)


def interval_of(value: Any) -> float:
    """A control interval as it was typed.

    Raises:
        SettingError: it is none.
    """
    return float(_interval("interval_s", value))


def config_of(config: EnvConfig | None, settings: Mapping[str, Any]) -> EnvConfig:
    """The configuration of an environment, with some settings changed.

    Raises:
        SettingError: a setting is unknown or out of range.
    """
    return (config or EnvConfig()).changed(**settings).changed(base=BASE)
