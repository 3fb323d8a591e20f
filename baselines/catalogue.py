"""Every scheduler by name: the policies of the table, and the players that are no policy."""

from __future__ import annotations

from typing import Any, Protocol

from infermax_gym.baselines.ewsjf import Ewsjf
from infermax_gym.baselines.fluid_gate import FluidGate
from infermax_gym.baselines.named import Named
from infermax_gym.baselines.nested_wait import NestedWait
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.prefix_aware import PREFIX_AWARE
from infermax_gym.baselines.proserve import SlideBatching
from infermax_gym.baselines.random_order import RandomOrder
from infermax_gym.baselines.rollout import Rollout
from infermax_gym.baselines.sorted_f import SortedF
from infermax_gym.baselines.table.infermax import SRF
from infermax_gym.baselines.table.sizes import FCFS_HEADROOM, LEAST_ATTAINED_SERVICE, SPF_HEADROOM
from infermax_gym.engine import Player, Policy


class Described(Player, Protocol):
    """A player that says of itself what a policy says."""

    @property
    def name(self) -> str:
        """Kebab-case."""
        ...

    @property
    def source(self) -> str:
        """Paper or code it follows."""
        ...

    @property
    def note(self) -> str:
        """One line, good and bad at."""
        ...


PLAYERS: dict[str, Described] = {
    player.name: player
    for player in (
        Rollout(
            "rollout",
            (SPF_HEADROOM, LEAST_ATTAINED_SERVICE, FCFS_HEADROOM, SRF),
            source="rollouts over four policies every 2 s, on copies of the engine with imagined output lengths",
            note="Finds the policy that suits the traffic without being told: close to its best candidate, or better.",
        ),
        SortedF(),
        Ewsjf(),
        SlideBatching(),
        FluidGate(),
        RandomOrder(),
    )
}
"""Schedulers with code of their own, which serve whole workloads."""

QUICK: Named[Policy | Described] = Named({**POLICIES, **PLAYERS}, POLICIES.aliases)
"""What `--policies all` runs: policies first, in the order of the table."""

NESTED_WAIT = NestedWait()

SCHEDULERS: Named[Any] = Named({**QUICK, NESTED_WAIT.name: NESTED_WAIT, **PREFIX_AWARE}, POLICIES.aliases)
"""All of them; the last ones decide in Python, some thousand times a second."""
