"""The spaces of `InferMaxKnobs-v0`."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from infermax_gym.envs.knobs.layout import KNOB_NAMES
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES


def action_space() -> spaces.Box:
    """Box (len(KNOB_NAMES),): the knobs, in order."""
    return spaces.Box(-1.0, 1.0, (len(KNOB_NAMES),), np.float32)


def observation_space() -> spaces.Box:
    """Box (len(ENGINE_FEATURES),): the engine as a whole."""
    return spaces.Box(-1.0, 1.0, (len(ENGINE_FEATURES),), np.float32)
