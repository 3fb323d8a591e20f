"""Several engines behind a router.

Reading order: `fleet` (the replicas, how fresh the signals are), `router` (a router as data, what it sees), `simulate`
(the entry point), `result`, `migration` (requests that move), `disaggregated` (prefill and decode apart), then `state`
and `kernel/` (the compiled steps). docs/cluster.md states the semantics. The table of routers is
`infermax_gym.baselines.routers`.
"""

from infermax_gym.cluster.disaggregated import (
    DisaggregatedFleet,
    DisaggregatedResult,
    simulate_disaggregated,
    summarize_disaggregated,
)
from infermax_gym.cluster.fleet import Fleet, Replica
from infermax_gym.cluster.migration import Migration, Mover, Pairing
from infermax_gym.cluster.result import FleetResult, summarize_fleet
from infermax_gym.cluster.router import (
    CONSTANTS,
    SIGNALS,
    Arrival,
    PythonRouter,
    Router,
    Score,
    signal_weights,
)
from infermax_gym.cluster.simulate import FleetRun, RouterError, simulate_fleet
from infermax_gym.cluster.transfer import KvTransfer

__all__ = [
    "CONSTANTS",
    "SIGNALS",
    "Arrival",
    "DisaggregatedFleet",
    "DisaggregatedResult",
    "Fleet",
    "FleetResult",
    "FleetRun",
    "KvTransfer",
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
