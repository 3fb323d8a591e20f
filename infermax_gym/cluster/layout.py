"""The layout of a fleet's memory: one record with its scalars, its router, and the addresses of everything.

`infermax_gym.cluster.state` holds it, `infermax_gym.cluster.allocate` makes it; compiled steps read and write it.
"""

from __future__ import annotations

import numpy as np

from infermax_gym.cluster.router import SIGNALS

FLEET_ARRAYS = (
    "cores",
    "num_slots",
    "signals",
    "seen",
    "constants",
    "released",
    "num_released",
    "events",
    "kind_of",
    "predictions",
    "replica_of",
    "session_of",
    "bound",
    "arrivals",
    "draws",
    "parents",
    "ends",
    "touched",
    "sent",
    "matched",
    "recent_tokens",
    "num_forgotten",
    "new_tokens",
    "arrival_seconds",
    "charged",
    "moves",
    "partners",
    "home",
    "slot",
    "num_migrations",
    "sandboxes",
    "beyond",
    "routed",
    "loop",
    "links",
)

FLEET = np.dtype(
    [
        ("num_replicas", "i8"),
        ("num_requests", "i8"),
        ("next_request", "i8"),  # how many are routed
        ("next_number", "i8"),  # the next one to be routed, -1 while nobody knows
        ("num_rejected", "i8"),  # that no replica can ever hold
        ("last_chosen", "i8"),
        ("chosen", "i8"),  # where the next request goes, while room is made for it there
        ("easy_tokens", "i8"),  # prompt + output up to this fits every replica
        # the router
        ("score", "i8"),
        ("weights", "f8", (len(SIGNALS),)),
        ("num_choices", "i8"),
        ("uses_prefixes", "i8"),
        ("sticky_s", "f8"),  # so long a request follows the last one of its session, 0 for never
        ("least_match", "f8"),
        ("most_difference", "f8"),
        ("most_ratio", "f8"),
        ("share_weights", "f8", (3,)),
        ("recent_s", "f8"),
        ("quantum_tokens", "i8"),
        ("horizon_s", "f8"),
        ("first_guess_tokens", "i8"),
        ("uses_predictions", "i8"),
        ("needs_signals", "i8"),
        # how fresh its signals are
        ("staleness_s", "f8"),
        ("counts_routed", "i8"),
        ("last_snapshot", "f8"),  # number of the last one
        # requests that move
        ("migrates", "i8"),
        ("migration_period_s", "f8"),
        ("migration_threshold", "f8"),
        ("pairing", "i8"),
        ("mover", "i8"),
        ("bytes_per_token", "f8"),
        ("bytes_per_s", "f8"),
        ("transfer_latency_s", "f8"),
        ("next_pairing", "i8"),  # number of the next one
        ("next_landing_s", "f8"),  # inf for none
        ("num_aborted", "i8"),  # copies that came to nothing
        # closed-loop traffic (engine.kernel.closed_loop)
        ("has_loop", "i8"),
        ("num_links", "i8"),
        # sizes
        ("has_predictions", "i8"),
        ("num_leaves", "i8"),
        ("num_kinds", "i8"),
        ("num_gaps", "i8"),  # in the log that all engines share
        ("first_arrival", "i8"),  # the request in the first row of `arrivals`
        ("arrivals_size", "i8"),
        ("num_shared", "i8"),  # runs of prefix blocks that several requests share; 0: no map of prefixes
        ("num_recent", "i8"),  # num_requests, or 0: nobody asks for the recent load
        ("num_tenants", "i8"),  # 0: no books of tenants
        *[(f"{name}_address", "i8") for name in FLEET_ARRAYS],
    ],
    align=True,
)
