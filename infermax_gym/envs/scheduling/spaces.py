"""The spaces of `InferMax-v0`, scalar and flat."""

from __future__ import annotations

from typing import Any

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
        self.flat = np.zeros((num_lanes, flat_size(config)), np.float32)
        self.mask = np.zeros((num_lanes, config.layout.num_actions), np.int8)
        self.reward_components = np.zeros((num_lanes, NUM_COMPONENTS))
        self._num_waiting_slots = config.num_waiting_slots
        self._view()

    def _view(self) -> None:
        first, n = len(ENGINE_FEATURES), len(self.flat)
        last = first + self._num_waiting_slots * len(WAITING_FEATURES)
        self.engine = self.flat[:, :first]
        self.waiting = self.flat[:, first:last].reshape(n, -1, len(WAITING_FEATURES))
        self.running = self.flat[:, last:].reshape(n, -1, len(RUNNING_FEATURES))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._view()  # the copy of a view is none
