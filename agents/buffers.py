"""A rollout buffer that discounts in simulated time, for decisions of any duration (a semi-Markov process).

A constant discount per decision makes cheap decisions attractive: tiny batches push the bill beyond the horizon, and
the policy stops admitting. Here a decision of dt seconds discounts what follows by exp(-dt / tau), and one that takes
no time (ADMIT, PREEMPT) by 1.

The lambda of generalised advantage estimation (Schulman et al., 2016) counts time as well: its factor is
exp(-dt / lambda_tau). So an admission has exactly the advantage that the turn has from there on, plus what the critic
changes its mind by, however many decisions the turn is made of; and the estimate does not depend on how finely the
environment cuts time into decisions (the critic replaces what lies much further than lambda_tau ahead).

Rewards may hold all that follows already, as gains over a base-policy rollout do (`infermax_gym.agents.base_rollout`).
Then nothing that follows is to count once more (`tau_s` 0), and the critic is a mere baseline. Such gains have heavy
tails, since two runs that differ once drift apart by chance; so they are squashed beyond twice their deviation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer

Array = NDArray[np.float32]

_DEVIATIONS = 2.0


def advantages_in_time(
    rewards: Array,
    values: Array,
    last_values: Array,
    ends: NDArray[np.bool_],
    discounts: Array,
    traces: Array,
) -> Array:
    """Generalised advantage estimates with a discount of their own for every decision.

    delta_t = r_t + D_t V_{t+1} - V_t and A_t = delta_t + D_t L_t A_{t+1}; both stop at the end of an episode.

    Args:
        rewards: (T, n) of each decision.
        values: (T, n) critic before each decision.
        last_values: (n,) critic after the last one.
        ends: (T, n) whether the episode ended with the decision.
        discounts: (T, n) D, 1 for decisions that take no time.
        traces: (T, n) L, likewise.

    Returns:
        (T, n) advantages.
    """
    advantages = np.zeros_like(values)
    following = np.zeros_like(last_values)
    next_values = last_values
    for t in reversed(range(len(values))):
        alive = discounts[t] * ~ends[t]
        delta = rewards[t] + alive * next_values - values[t]
        following = delta + alive * traces[t] * following
        advantages[t] = following
        next_values = values[t]
    return advantages


def squashed(gains: Array) -> Array:
    """Gains within plus and minus twice their deviation: nearly as they are if small, never beyond."""
    limit = max(_DEVIATIONS * float(gains.std()), 1e-12)
    return np.asarray(limit * np.tanh(gains / limit), gains.dtype)


class TimeDiscountBuffer(MaskableRolloutBuffer):  # type: ignore[misc]
    """MaskablePPO's rollout buffer, discounting in time.

    Args:
        *arguments: of the base class.
        tau_s: horizon in simulated seconds; 0: rewards hold what follows already; None falls back to the constant
            `gamma` and `gae_lambda` per decision.
        lambda_tau_s: how far observed rewards are trusted over the critic, in simulated seconds.
        **settings: of the base class.
    """

    def __init__(self, *arguments: Any, tau_s: float | None = 20.0, lambda_tau_s: float = 5.0, **settings: Any) -> None:
        self.tau_s = tau_s
        self.lambda_tau_s = lambda_tau_s
        super().__init__(*arguments, **settings)

    def reset(self) -> None:
        """Empty the buffer."""
        self.dt_s: Array = np.zeros((self.buffer_size, self.n_envs), np.float32)
        super().reset()

    def add_timed(self, *arguments: Any, dt_s: NDArray[np.float64], **settings: Any) -> None:
        """`add` with the seconds (n,) that the decisions took."""
        self.dt_s[self.pos] = dt_s
        self.add(*arguments, **settings)

    def discount(self, dt_s: Any) -> Any:
        """What the future counts after decisions of dt_s seconds."""
        if self.tau_s is None:
            return np.full_like(dt_s, self.gamma)
        return np.exp(-dt_s / self.tau_s) if self.tau_s > 0.0 else np.zeros_like(dt_s)

    def compute_returns_and_advantage(self, last_values: Any, dones: NDArray[np.bool_]) -> None:
        """Fill `advantages` and `returns`; arguments as in the base class."""
        if self.tau_s is None:
            traces = np.full_like(self.dt_s, self.gae_lambda)
        else:
            traces = np.exp(-self.dt_s / self.lambda_tau_s)
        ends = np.concatenate((self.episode_starts[1:] > 0.5, np.asarray(dones, bool)[None]))
        last = last_values.clone().cpu().numpy().flatten()
        rewards = squashed(self.rewards) if self.tau_s == 0.0 else self.rewards
        self.advantages = advantages_in_time(
            rewards, self.values, last, ends, self.discount(self.dt_s).astype(np.float32), traces
        )
        self.returns = self.advantages + self.values
