"""Every scheduler by name: the policies of the table, and the players that are no policy."""

from __future__ import annotations

from dataclasses import replace
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
from infermax_gym.baselines.table import shares
from infermax_gym.baselines.table.engines import VLLM_V0
from infermax_gym.baselines.table.sizes import LEAST_ATTAINED_SERVICE
from infermax_gym.baselines.table.vllm import VLLM
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
        *shares.TABLE,
        Rollout(
            "rollout",
            (
                shares.SPF_SHARE,
                *(replace(shares.SPF_SHARE, prefill_efficiency=share) for share in (0.7, None)),
                replace(shares.SPF_SHARE, prefill_efficiency=None, decode_efficiency=0.5),
                shares.SPF_AGING_SHARE,
                shares.SPF_HEADROOM_SHARE,
                replace(shares.SPF_HEADROOM_SHARE, decode_efficiency=0.67),
                shares.HRRN_SHARE,
                shares.FCFS_SHARE,
                LEAST_ATTAINED_SERVICE,
                VLLM,
                VLLM_V0,
            ),
            source="rollouts over twelve policies, on copies of the engine with imagined lengths and arrivals",
            note="Finds what suits engine and traffic without being told: close to its best candidate, or better.",
        ),
        Rollout(
            "rollout-goodput",
            (
                VLLM,
                VLLM_V0,
                *(replace(shares.SPF_SHARE, prefill_efficiency=share) for share in (None, 0.9, 0.7, 0.5)),
                *(
                    replace(shares.SPF_SHARE, prefill_efficiency=prefill, decode_efficiency=decode)
                    for prefill, decode in ((0.9, 0.67), (0.7, 0.33), (0.5, 0.33), (None, 0.33), (0.7, 0.1))
                ),
                shares.HRRN_SHARE,
                shares.NEWEST_SHARE,
                *(
                    replace(shares.NEWEST_SHARE, prefill_efficiency=prefill, decode_efficiency=decode)
                    for prefill, decode in ((0.5, None), (None, 0.33), (0.7, 0.33))
                ),
            ),
            goodput=True,
            source="the same over sixteen policies, by requests within their limits on first token and time per token",
            note="Keeps limits where rules made for latency lose them all; without limits it stays with vllm.",
        ),
        Rollout(
            "rollout-informed",
            (
                *(
                    shares.Shares(POLICIES[name], prefill_efficiency=share)
                    for name in ("srpt-work-noisy-0.6", "mc-sf-work-noisy-0.6")
                    for share in (None, 0.9, 0.7)
                ),
                *(replace(shares.SPF_SHARE, prefill_efficiency=share) for share in (None, 0.9, 0.7)),
                shares.SPF_HEADROOM_SHARE,
                LEAST_ATTAINED_SERVICE,
                VLLM,
                VLLM_V0,
            ),
            sigma=0.6,
            source="the same over thirteen policies, six of which weigh predicted lengths (log-normal, sigma 0.6)",
            note="Uses noisy lengths where they help, and what has ended already to correct them.",
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
