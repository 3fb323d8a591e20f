"""The spaces of `InferMax-v0`, scalar and flat."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from infermax_gym.envs.rewards import NUM_COMPONENTS
from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES, RUNNING_FEATURES, WAITING_FEATURES


def _box(*shape: int) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, shape, np.float32)


Observation = dict[str, NDArray[np.generic]]


def observation_space(config: EnvConfig) -> spaces.Dict:
    """Dict {waiting (W, F), running (R, F), engine (G,), action_mask (A,)}."""
    return spaces.Dict(
        {
            "waiting": _box(config.num_waiting_slots, len(WAITING_FEATURES)),
            "running": _box(config.num_running_slots, len(RUNNING_FEATURES)),
            "engine": _box(len(ENGINE_FEATURES)),
            "action_mask": spaces.Box(0, 1, (config.layout.num_actions,), np.int8),
        }
    )


def flat_size(config: EnvConfig) -> int:
    """Length of the flat observation."""
    slots = config.num_waiting_slots * len(WAITING_FEATURES) + config.num_running_slots * len(RUNNING_FEATURES)
    return len(ENGINE_FEATURES) + slots


def flat_space(config: EnvConfig) -> spaces.Box:
    """Box (N,): engine features, waiting slots, running slots, one after another; the mask is not part of it."""
    return spaces.Box(-1.0, 1.0, (flat_size(config),), np.float32)


class Buffers:
    """Memory for observations of n lanes; the flat block and its parts are views of one another.

    Attributes:
        flat: (n, N) float32.
        waiting: (n, W, F) float32, running: (n, R, F) float32, engine: (n, G) float32: views of `flat`.
        mask: (n, A) int8.
        reward_components: (n, NUM_COMPONENTS) float64.
    """

    def __init__(self, config: EnvConfig, num_lanes: int) -> None:
        g, w, r = len(ENGINE_FEATURES), config.num_waiting_slots, config.num_running_slots
        fw, fr = len(WAITING_FEATURES), len(RUNNING_FEATURES)
        self.flat = np.zeros((num_lanes, flat_size(config)), np.float32)
        self.engine = self.flat[:, :g]
        self.waiting = self.flat[:, g : g + w * fw].reshape(num_lanes, w, fw)
        self.running = self.flat[:, g + w * fw :].reshape(num_lanes, r, fr)
        self.mask = np.zeros((num_lanes, config.layout.num_actions), np.int8)
        self.reward_components = np.zeros((num_lanes, NUM_COMPONENTS))
        assert np.shares_memory(self.flat, self.waiting) and np.shares_memory(self.flat, self.running)
