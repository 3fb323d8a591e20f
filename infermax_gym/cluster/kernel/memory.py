"""The arrays of a fleet, reached through its record, as the engine's are through its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from infermax_gym.cluster.moves import MOVE
from infermax_gym.cluster.router import CONSTANTS, SIGNALS
from infermax_gym.compile import inlined
from infermax_gym.engine.kernel.memory import pointer
from infermax_gym.engine.layout import CORE, NUM_OUTPUT_BINS, REQUEST

NUM_SIGNALS = len(SIGNALS)
NUM_CONSTANTS = len(CONSTANTS)


@inlined
def cores_of(f: Any) -> Any:
    """(num_replicas,) CORE."""
    return carray(pointer(f.cores_address), (f.num_replicas,), CORE)


@inlined
def slots_of(f: Any) -> Any:
    """(num_replicas,) int64, requests that an engine has room for."""
    return carray(pointer(f.num_slots_address), (f.num_replicas,), np.int64)


@inlined
def signals_of(f: Any) -> Any:
    """(NUM_SIGNALS, num_replicas) float64, as of the replicas' own last boundaries."""
    return carray(pointer(f.signals_address), (NUM_SIGNALS, f.num_replicas), np.float64)


@inlined
def seen_by(f: Any) -> Any:
    """(NUM_SIGNALS, num_replicas) float64, what the router sees."""
    return carray(pointer(f.seen_address), (NUM_SIGNALS, f.num_replicas), np.float64)


@inlined
def constants_of(f: Any) -> Any:
    """(NUM_CONSTANTS, num_replicas) float64."""
    return carray(pointer(f.constants_address), (NUM_CONSTANTS, f.num_replicas), np.float64)


@inlined
def released_of(f: Any) -> Any:
    """(num_replicas,) float64, tokens of finished requests."""
    return carray(pointer(f.released_address), (f.num_replicas,), np.float64)


@inlined
def num_released_of(f: Any) -> Any:
    """(num_replicas,) int64, how many finished requests `released_of` counts."""
    return carray(pointer(f.num_released_address), (f.num_replicas,), np.int64)


@inlined
def events_of(f: Any) -> Any:
    """(2 * num_leaves,) float64, tournament over the next boundaries in seconds."""
    return carray(pointer(f.events_address), (2 * f.num_leaves,), np.float64)


@inlined
def kind_of(f: Any) -> Any:
    """(num_replicas,) int64, row of `predictions_of`."""
    return carray(pointer(f.kind_of_address), (f.num_replicas,), np.int64)


@inlined
def predictions_of(f: Any) -> Any:
    """(num_kinds, num_requests) float64; only with `has_predictions`."""
    return carray(pointer(f.predictions_address), (f.num_kinds, f.num_requests), np.float64)


@inlined
def replica_of(f: Any) -> Any:
    """(num_requests,) int32, where each request went."""
    return carray(pointer(f.replica_of_address), (f.num_requests,), np.int32)


@inlined
def session_of(f: Any) -> Any:
    """(num_requests,) int64, the session of each request; only where the router sticks."""
    return carray(pointer(f.session_of_address), (f.num_requests,), np.int64)


@inlined
def bound_of(f: Any) -> Any:
    """(num_requests, 2) float64, by session: its last arrival, and where that went; only where the router sticks."""
    return carray(pointer(f.bound_address), (f.num_requests, 2), np.float64)


@inlined
def routed_of(f: Any) -> Any:
    """(num_requests,) int64, the requests in the order in which they were routed."""
    return carray(pointer(f.routed_address), (f.num_requests,), np.int64)


@inlined
def arrivals_of(f: Any) -> Any:
    """(arrivals_size,) REQUEST, the requests from `first_arrival` on."""
    return carray(pointer(f.arrivals_address), (f.arrivals_size,), REQUEST)


@inlined
def draws_of(f: Any) -> Any:
    """(arrivals_size, num_choices) float64 in [0, 1)."""
    return carray(pointer(f.draws_address), (f.arrivals_size, f.num_choices), np.float64)


@inlined
def parents_of(f: Any) -> Any:
    """(num_requests + num_shared,) int64, the run above; -1 at a root. Requests come first. Only with a map."""
    return carray(pointer(f.parents_address), (f.num_requests + f.num_shared,), np.int64)


@inlined
def ends_of(f: Any) -> Any:
    """(num_shared,) int64, tokens from the beginning of a prompt to the end of a shared run."""
    return carray(pointer(f.ends_address), (f.num_shared,), np.int64)


@inlined
def touched_of(f: Any) -> Any:
    """(num_shared, num_replicas) int64, `sent_to` after the last request through a run; 0 for none."""
    return carray(pointer(f.touched_address), (f.num_shared, f.num_replicas), np.int64)


@inlined
def sent_to(f: Any) -> Any:
    """(num_replicas,) int64, prompt tokens sent there that matched nothing."""
    return carray(pointer(f.sent_address), (f.num_replicas,), np.int64)


@inlined
def matched_of(f: Any) -> Any:
    """(num_replicas,) int64, tokens of the next request that match there."""
    return carray(pointer(f.matched_address), (f.num_replicas,), np.int64)


@inlined
def recent_tokens_of(f: Any) -> Any:
    """(num_replicas,) int64, new prompt tokens sent there by requests that are not forgotten. Only where it counts."""
    return carray(pointer(f.recent_tokens_address), (f.num_replicas,), np.int64)


@inlined
def num_forgotten_of(f: Any) -> Any:
    """(1,) int64, how many of the routed requests are forgotten."""
    return carray(pointer(f.num_forgotten_address), (1,), np.int64)


@inlined
def new_tokens_of(f: Any) -> Any:
    """(num_recent,) int64, new prompt tokens of each routed request, in the order in which they were routed."""
    return carray(pointer(f.new_tokens_address), (f.num_recent,), np.int64)


@inlined
def arrival_seconds_of(f: Any) -> Any:
    """(num_recent,) float64, when each routed request arrived, in the same order."""
    return carray(pointer(f.arrival_seconds_address), (f.num_recent,), np.float64)


@inlined
def charged_to(f: Any) -> Any:
    """(num_tenants, num_replicas) int64, new prompt tokens of each tenant sent there."""
    return carray(pointer(f.charged_address), (f.num_tenants, f.num_replicas), np.int64)


@inlined
def moves_of(f: Any) -> Any:
    """(num_replicas,) MOVE, of the request that each replica gives away. Only with migration, as what follows."""
    return carray(pointer(f.moves_address), (f.num_replicas,), MOVE)


@inlined
def partners_of(f: Any) -> Any:
    """(num_replicas,) int64, the other side of a migration under way, -1 for none."""
    return carray(pointer(f.partners_address), (f.num_replicas,), np.int64)


@inlined
def home_of(f: Any) -> Any:
    """(num_requests,) int32, the replica that has a request's record ..."""
    return carray(pointer(f.home_address), (f.num_requests,), np.int32)


@inlined
def slot_of(f: Any) -> Any:
    """(num_requests,) int64, ... and where in its engine."""
    return carray(pointer(f.slot_address), (f.num_requests,), np.int64)


@inlined
def num_migrations_of(f: Any) -> Any:
    """(num_requests,) int64, how often each request has landed somewhere."""
    return carray(pointer(f.num_migrations_address), (f.num_requests,), np.int64)


@inlined
def sandboxes_of(f: Any) -> Any:
    """(num_kinds,) CORE, engines without contents to copy replicas into. Only for routers that look ahead."""
    return carray(pointer(f.sandboxes_address), (f.num_kinds,), CORE)


@inlined
def beyond_of(f: Any) -> Any:
    """(2, NUM_OUTPUT_BINS + 1) int64, scratch: finished outputs from a bin on, and twice their tokens."""
    return carray(pointer(f.beyond_address), (2, NUM_OUTPUT_BINS + 1), np.int64)
