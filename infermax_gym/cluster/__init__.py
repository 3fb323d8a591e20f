"""Several engines behind a router.

Reading order: `fleet` (the replicas, how fresh the signals are), `router` (a router as data, what it sees), `simulate`
(the entry point), `result`, `migration` (requests that move), `disaggregated` (prefill and decode apart), then `state`
and `kernel/` (the compiled steps); `door` and `gateway` (a router outside the simulator). docs/cluster.md states the
semantics. The table of routers is `infermax_gym.baselines.routers`.

Names here are loaded when they are used: `router`, `door` and `gateway` need numpy and no compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infermax_gym.cluster.disaggregated import (
        DisaggregatedFleet,
        DisaggregatedResult,
        simulate_disaggregated,
        summarize_disaggregated,
    )
    from infermax_gym.cluster.door import Asked, Door
    from infermax_gym.cluster.fleet import Fleet, Replica
    from infermax_gym.cluster.gateway import Endpoint, Gateway, Metrics
    from infermax_gym.cluster.migration import Migration, Mover, Pairing
    from infermax_gym.cluster.result import FleetResult, summarize_fleet
    from infermax_gym.cluster.router import CONSTANTS, SIGNALS, Arrival, PythonRouter, Router, Score, signal_weights
    from infermax_gym.cluster.simulate import FleetRun, RouterError, simulate_fleet
    from infermax_gym.cluster.transfer import KvTransfer

_NAMES = {
    "disaggregated": (
        "DisaggregatedFleet",
        "DisaggregatedResult",
        "simulate_disaggregated",
        "summarize_disaggregated",
    ),
    "door": (
        "Asked",
        "Door",
    ),
    "fleet": (
        "Fleet",
        "Replica",
    ),
    "gateway": (
        "Endpoint",
        "Gateway",
        "Metrics",
    ),
    "migration": (
        "Migration",
        "Mover",
        "Pairing",
    ),
    "result": (
        "FleetResult",
        "summarize_fleet",
    ),
    "router": (
        "CONSTANTS",
        "SIGNALS",
        "Arrival",
        "PythonRouter",
        "Router",
        "Score",
        "signal_weights",
    ),
    "simulate": (
        "FleetRun",
        "RouterError",
        "simulate_fleet",
    ),
    "transfer": ("KvTransfer",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CONSTANTS",
    "SIGNALS",
    "Arrival",
    "Asked",
    "DisaggregatedFleet",
    "DisaggregatedResult",
    "Door",
    "Endpoint",
    "Fleet",
    "FleetResult",
    "FleetRun",
    "Gateway",
    "KvTransfer",
    "Metrics",
    "Migration",
    "Mover",
    "Pairing",
    "PythonRouter",
    "Replica",
    "Router",
    "RouterError",
    "Score",
    "signal_weights",
    "simulate_disaggregated",
    "simulate_fleet",
    "summarize_disaggregated",
    "summarize_fleet",
]


if not TYPE_CHECKING:  # type checkers shall know the names above and no others

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
