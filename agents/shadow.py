"""The shadow of an episode: how a fixed row fares with the same requests, on the same clock.

Returns differ far more with the traffic than with the decisions. Whatever a row of the table does with the same
requests does not depend on the learner's actions, so it may be subtracted from rewards and shown to the critic without
biasing the policy gradient: an input-dependent baseline (Mao et al., "Variance Reduction for Reinforcement Learning in
Input-Driven Environments", 2018). Relative to the shadow, a second in which the learner holds as many requests as the
row is worth nothing, however many that is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Policy, simulate
from infermax_gym.envs.episode import Episode

SHADOW_FEATURES = ("behind", "shadow_requests", "soon")
"""What the critic sees besides the observation, of lane i at its clock: how many requests more the learner has in its
system than the shadow, over 20; how many the shadow has, over 20; how many arrive in the next 20 s, over 50."""

_SOON_S = 20.0

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shadow:
    """What a row did with an episode's requests.

    Attributes:
        arrival_s: (n,) of the requests it served, ascending.
        finish_s: (n,) of the same, ascending on their own.
        arrivals_until: (n + 1,) sums of the first arrivals.
        finishes_until: (n + 1,) sums of the first finishes.
    """

    arrival_s: Array
    finish_s: Array
    arrivals_until: Array
    finishes_until: Array

    @classmethod
    def of(cls, episode: Episode, row: Policy) -> Shadow:
        """Let a row serve an episode."""
        result = simulate(episode.workload, episode.engine, row, predicted=episode.predicted)
        arrival_s = np.sort(episode.workload.arrival_s[result.finished])
        finish_s = np.sort(result.finish_s[result.finished])
        return cls(
            arrival_s, finish_s, np.concatenate(([0.0], arrival_s.cumsum())), np.concatenate(([0.0], finish_s.cumsum()))
        )

    def num_requests(self, clock_s: float) -> int:
        """In the row's system at a time."""
        return int(np.searchsorted(self.arrival_s, clock_s, "right") - np.searchsorted(self.finish_s, clock_s, "right"))

    def num_arrivals(self, clock_s: float) -> int:
        """Requests that arrive in the 20 s after a time."""
        first, last = np.searchsorted(self.arrival_s, (clock_s, clock_s + _SOON_S), "right")
        return int(last - first)

    def features(self, clock_s: float, num_requests: int) -> tuple[float, float, float]:
        """`SHADOW_FEATURES` where the learner has so many requests in its system."""
        there = self.num_requests(clock_s)
        return (num_requests - there) / 20.0, there / 20.0, self.num_arrivals(clock_s) / 50.0

    def request_seconds(self, until_s: float) -> float:
        """Integral of the number of requests in the row's system from 0 to a time (inf: the sum of its latencies)."""
        if until_s == np.inf:
            return float(self.finishes_until[-1] - self.arrivals_until[-1])
        come, gone = np.searchsorted(self.arrival_s, until_s), np.searchsorted(self.finish_s, until_s)
        return float((come - gone) * until_s - self.arrivals_until[come] + self.finishes_until[gone])
