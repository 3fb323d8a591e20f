"""Every scheduler by name: the rows of the table, and the players that are no row."""

from __future__ import annotations

from typing import Any

from baselines.nested_wait import NestedWait
from baselines.policies import FCFS_HEADROOM, LEAST_ATTAINED_SERVICE, POLICIES, SPF_HEADROOM, SRF
from baselines.prefix_aware import PREFIX_AWARE
from baselines.rollout import Rollout
from baselines.sorted_f import SortedF
from infermax_gym.engine import Policy

Player = Rollout | SortedF | NestedWait

PLAYERS: dict[str, Player] = {
    player.name: player
    for player in (
        Rollout(
            "rollout",
            (SPF_HEADROOM, LEAST_ATTAINED_SERVICE, FCFS_HEADROOM, SRF),
            source="rollouts over four rows every 2 s, on copies of the engine with imagined output lengths",
            note="Finds the row that suits the traffic without being told: close to its best candidate, or better.",
        ),
        SortedF(),
    )
}
"""Schedulers with code of their own, which serve whole workloads."""

QUICK: dict[str, Policy | Player] = {**POLICIES, **PLAYERS}
"""What `--policies all` runs: rows first, in the order of the table."""

NESTED_WAIT = NestedWait()

SCHEDULERS: dict[str, Any] = {**QUICK, NESTED_WAIT.name: NESTED_WAIT, **PREFIX_AWARE}
"""All of them; the last ones decide in Python, some thousand times a second."""
