"""Wrappers that hand simulated time to libraries: steps differ in length, and so must their discounts.

A step of `dt_s` simulated seconds is discounted by exp(-dt_s / tau_s), not by a constant. Infos do not reach replay
buffers and many learners; observations do. So the discount of the step that led to an observation becomes part of it:
of a Dict the entry `discount`, of a vector the last number. A learner takes its gamma from the next observation.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray


def _with_discount(space: spaces.Space[Any]) -> spaces.Space[Any]:
    discount = spaces.Box(0.0, 1.0, (1,), np.float32)
    if isinstance(space, spaces.Dict):
        return spaces.Dict({**space.spaces, "discount": discount})
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"a discount joins observations that are a Dict or a vector, got {space}")
    low, high = np.append(space.low, 0.0).astype(np.float32), np.append(space.high, 1.0).astype(np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def _joined(observation: Any, discount: NDArray[np.float64]) -> Any:
    column = discount.astype(np.float32)[..., None]
    if isinstance(observation, dict):
        return {**observation, "discount": column}
    return np.concatenate([observation, column], axis=-1)


def _positive(tau_s: float) -> float:
    if not 0.0 < tau_s < math.inf:
        raise ValueError(f"tau_s must be a finite number above 0, got {tau_s!r}")
    return float(tau_s)


class TimeDiscount(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """The discount exp(-dt_s / tau_s) of a step in its observation and as `info["discount"]`.

    Args:
        env: any of the environments.
        tau_s: seconds after which a reward counts for 1 / e; 15 to 30 s teach well.

    Raises:
        ValueError: tau_s is not positive, or observations are neither a Dict nor a vector.

    Example:
        >>> import gymnasium as gym, infermax_gym
        >>> from infermax_gym.envs.wrappers import TimeDiscount
        >>> env = TimeDiscount(gym.make("InferMax-v0", num_requests=5), tau_s=20.0)
        >>> observation, _ = env.reset(seed=0)
        >>> observation["discount"].tolist()
        [1.0]
    """

    def __init__(self, env: gym.Env[Any, Any], tau_s: float = 20.0) -> None:
        RecordConstructorArgs.__init__(self, tau_s=tau_s)
        gym.Wrapper.__init__(self, env)
        self.tau_s = _positive(tau_s)
        self.observation_space = _with_discount(env.observation_space)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; the first observation has discount 1."""
        observation, info = self.env.reset(**arguments)
        return _joined(observation, np.array(1.0)), {**info, "discount": 1.0}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step and its discount."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        discount = math.exp(-info["dt_s"] / self.tau_s)
        joined = _joined(observation, np.array(discount))
        return joined, reward, terminated, truncated, {**info, "discount": discount}


class TimeDiscountVector(VectorWrapper):
    """`TimeDiscount` for a native vector environment; where an episode ended, its discount is in `final_obs`.

    Args:
        env: one of the native vector environments, in any autoreset mode.
        tau_s: as in `TimeDiscount`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], tau_s: float = 20.0) -> None:
        super().__init__(env)
        self.tau_s = _positive(tau_s)
        self.single_observation_space = _with_discount(env.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; the first observations have discount 1."""
        observation, info = self.env.reset(**arguments)
        discounts = np.ones(self.num_envs)
        return _joined(observation, discounts), {**info, "discount": discounts}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step in every lane and its discounts."""
        observation, rewards, terminated, truncated, info = self.env.step(actions)
        discounts = np.exp(-info["dt_s"] / self.tau_s)
        info = {**info, "discount": discounts}
        shown = discounts
        if "final_obs" in info:
            shown = np.where(info["_final_obs"], 1.0, discounts)
            final = np.empty(self.num_envs, object)
            for i in np.flatnonzero(info["_final_obs"]):
                final[i] = _joined(info["final_obs"][i], discounts[i])
            info["final_obs"] = final
        return _joined(observation, shown), rewards, terminated, truncated, info
