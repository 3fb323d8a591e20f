"""The fleet options of `bench` and `capacity`: from what was typed to contenders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infermax_gym.cli import own
from infermax_gym.cli.errors import InputError
from infermax_gym.cli.inputs import contenders, names_in

if TYPE_CHECKING:
    from infermax_gym.cluster import KvTransfer, Migration, PythonRouter, Router
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation import Contender, FleetContender, FleetPart, PrefillPool
    from infermax_gym.evaluation.fleets import Sized

_MIGRATIONS = ("none", "defrag", "balanced")


@dataclass(frozen=True)
class FleetOptions:
    """Fleet options as typed, but for how many replicas there are."""

    policies: str | None = None
    routers: str | None = None
    staleness_s: float = 0.0
    forget_routed: bool = False
    migrate: str = "none"
    migrate_period_s: float = 0.05
    prefill_replicas: int | None = None
    prefill_router: str = "queued-tokens"
    kv_bytes_per_token: float = 524_288.0
    kv_gb_per_s: float = 25.0

    @property
    def are_given(self) -> bool:
        """Whether any option was typed that only fleets have."""
        return replace(self, policies=None) != FleetOptions()

    def contenders(self, num_replicas: int) -> dict[str, FleetContender]:
        """Equal replicas, by name: each policy, `vllm` if none was named, with each router."""
        return self._contenders(self._policies(), num_replicas)

    def mixed(self, parts: tuple[FleetPart, ...], label: str) -> dict[str, FleetContender]:
        """The replicas of a fleet file, by name."""
        if self.prefill_replicas is not None:
            raise InputError(
                "--prefill-replicas needs --replicas N: the replicas of a --fleet file do not decode alone"
            )
        count = sum(part.count for part in parts)
        given = [part.policy for part in parts if part.policy is not None]
        if len(given) < len(parts):
            return self._contenders(self._policies(), count, parts)
        if self.policies is not None:
            raise InputError(f"--policies: every entry of the fleet {label!r} names its policy; leave one of them out")
        return self._contenders(given[:1], count, parts, label)

    def _contenders(
        self, policies: Sequence[Policy | Sized], count: int, parts: tuple[FleetPart, ...] = (), label: str = ""
    ) -> dict[str, FleetContender]:
        from infermax_gym.evaluation import FleetContender

        if not (math.isfinite(self.staleness_s) and self.staleness_s >= 0.0):
            raise InputError(f"--staleness must be a time in seconds of at least 0, got {self.staleness_s:g}")
        prefill, migrations, counts = self._prefill(), self._migrations(), not self.forget_routed
        fleets = [
            FleetContender(policy, router, count, self.staleness_s, counts, prefill, migration, parts, label)
            for policy in policies
            for router in routers(self.routers)
            for migration in migrations
        ]
        named = {fleet.name: fleet for fleet in fleets}
        if len(named) < len(fleets):
            names = [fleet.name for fleet in fleets]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two of the fleets are called {twice!r}; give routers of your own other names")
        return named

    def _policies(self) -> list[Policy | Sized]:
        """Policies that replicas can run; a name that they cannot is an error, `all` leaves it out."""
        from infermax_gym.engine import Policy
        from infermax_gym.engine.policy import PreemptMode
        from infermax_gym.evaluation.fleets import Sized

        apart = self.prefill_replicas is not None
        chosen = contenders(self.policies or "vllm", None)
        if names_in(self.policies or "") != ["all"]:
            for name, row in chosen.items():
                check_replica(name, row)
                if apart and isinstance(row, Policy) and row.preempt_mode == PreemptMode.SWAP:
                    raise InputError(
                        f"policy {name!r} swaps; behind --prefill-replicas, decoding replicas must recompute"
                    )
        return [
            row
            for row in chosen.values()
            if isinstance(row, Sized)
            or (
                (isinstance(row, Policy) and row.min_waiting == 0)
                and (not apart or row.preempt_mode == PreemptMode.RECOMPUTE)
            )
        ]

    def _transfer(self) -> KvTransfer:
        from infermax_gym.cluster import KvTransfer

        try:
            return KvTransfer(self.kv_bytes_per_token, 1e9 * self.kv_gb_per_s)
        except ValueError as error:
            raise InputError(str(error).replace("KvTransfer: ", "--kv-bytes-per-token, --kv-gb-per-s: ")) from None

    def _prefill(self) -> PrefillPool | None:
        """The replicas that compute prompts apart, if there are any."""
        from infermax_gym.evaluation import PrefillPool

        if self.prefill_replicas is None:
            return None
        if "," in self.prefill_router or self.prefill_router == "all":
            raise InputError(f"--prefill-router {self.prefill_router!r}: expected one router")
        return PrefillPool(self.prefill_replicas, routers(self.prefill_router)[0], self._transfer())

    def _migrations(self) -> list[Migration | None]:
        from infermax_gym.cluster import Migration, Pairing

        names = list(dict.fromkeys(names_in(self.migrate)))
        if not names or not set(names) <= set(_MIGRATIONS):
            raise InputError(f"--migrate {self.migrate!r}: expected none, defrag, balanced, or several, with commas")
        try:
            return [
                None
                if name == "none"
                else Migration(self.migrate_period_s, Pairing[name.upper()], transfer=self._transfer())
                for name in names
            ]
        except ValueError as error:
            raise InputError(str(error).replace("Migration: period_s", "--migrate-period")) from None

    def echo(self, fleets: dict[str, FleetContender]) -> dict[str, Any]:
        """The options as they were understood, for the report."""
        echoed: dict[str, Any] = {
            "policies": list(dict.fromkeys(policy.name for each in fleets.values() for policy in each.policies)),
            "routers": list(dict.fromkeys(each.router.name for each in fleets.values())),
            "staleness_s": self.staleness_s,
            "counts_routed": not self.forget_routed,
        }
        moves = names_in(self.migrate) != ["none"]
        if moves:
            echoed |= {"migrate": names_in(self.migrate), "migrate_period_s": self.migrate_period_s}
        if self.prefill_replicas is not None:
            echoed |= {"prefill_replicas": self.prefill_replicas, "prefill_router": self.prefill_router}
        if moves or self.prefill_replicas is not None:
            echoed |= {"kv_bytes_per_token": self.kv_bytes_per_token, "kv_gb_per_s": self.kv_gb_per_s}
        return echoed


def routers(text: str | None) -> list[Router | PythonRouter]:
    """Routers by name, or `module:name`; every one of ours if none was asked for."""
    from infermax_gym.baselines.routers import ROUTERS

    names = names_in("all" if text is None else text)
    if names == ["all"]:
        return list(ROUTERS.values())
    if not names:
        raise InputError("--routers names no router; expected all, or names separated by commas")
    return [own.look_up("routers", name, ROUTERS) for name in dict.fromkeys(names)]


def check_replica(name: str, row: Contender) -> None:
    """Whether a scheduler can run on a replica.

    Raises:
        InputError: it is written in Python, or waits for requests that may not come.
    """
    from infermax_gym.engine import Policy
    from infermax_gym.evaluation.fleets import Sized

    if isinstance(row, Sized):
        return
    if not isinstance(row, Policy):
        raise InputError(f"{name} is written in Python; the replicas of a fleet run policies of the table")
    if row.min_waiting > 0:
        raise InputError(
            f"policy {name!r} cannot run in a fleet: it waits for more requests, and a replica behind a router does "
            "not know whether any will come"
        )
