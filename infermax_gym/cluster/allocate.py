"""A fresh fleet before the first arrival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.fleet import Fleet, Replica
from infermax_gym.cluster.layout import FLEET
from infermax_gym.cluster.migration import Migration
from infermax_gym.cluster.moves import MOVE
from infermax_gym.cluster.router import CONSTANTS, KNOBS, MOST_CHOICES, SIGNALS, Router, Score
from infermax_gym.cluster.state import FleetState, with_log
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.layout import CORE, LOG_ARRAYS, REQUEST
from infermax_gym.engine.links import fresh_loop, no_loop
from infermax_gym.engine.prefix_tree import prefix_tree
from infermax_gym.engine.state import Engine, allocate, power_of_two_at_least
from infermax_gym.workload import Workload


def allocate_fleet(
    workload: Workload,
    fleet: Fleet,
    router: Router | None,
    predicted: NDArray[Any] | Mapping[str, NDArray[Any]] | None = None,
) -> FleetState:
    """A fresh fleet before the first arrival.

    Args:
        workload: the n requests.
        fleet: the replicas.
        router: who chooses; None: somebody outside.
        predicted: (n,) predicted output tokens for policies that use predictions, or such an array by policy name.

    Raises:
        ValueError: predictions are malformed.
    """
    count, n = fleet.num_replicas, len(workload)
    kinds, kind_of = fleet.kinds
    slots = power_of_two_at_least(max(16, n * 5 // (4 * count)))
    cores = np.zeros(count, CORE)
    predicted_lengths = [_predicted_for(kind, predicted) for kind in kinds]
    models = [
        allocate(workload, kind.config, kind.policy, p, num_slots=slots)
        for kind, p in zip(kinds, predicted_lengths, strict=True)
    ]
    log = {name: models[0].arrays[name] for name in LOG_ARRAYS}
    size = max(int(model.record["gaps_size"][0]) for model in models)
    log["gaps"], log["gap_counts"] = np.zeros(size), np.zeros(size, np.int64)
    for model in models:
        model.record["gaps_size"] = size
    engines = [with_log(models[kind], cores[i : i + 1], log) for i, kind in enumerate(kind_of)]
    constants = np.array([_constants(model) for model in models]).T
    signals = np.zeros((len(SIGNALS), count))
    signals[SIGNALS.index("free_kv_tokens")] = constants[CONSTANTS.index("kv_tokens"), kind_of]
    sticky_s = 0.0 if router is None else router.sticky_s
    arrays = {
        "cores": cores,
        "num_slots": np.full(count, slots),
        "signals": signals,
        "seen": signals if fleet.staleness_s == 0.0 else signals.copy(),
        "constants": np.ascontiguousarray(constants[:, kind_of]),
        "released": np.zeros(count),
        "num_released": np.zeros(count, np.int64),
        "events": np.full(2 * power_of_two_at_least(count), np.inf),
        "kind_of": np.array(kind_of),
        "predictions": _predictions(predicted_lengths, n),
        "replica_of": np.full(n, -1, np.int32),
        "session_of": _sessions(workload) if sticky_s > 0.0 else np.zeros(0, np.int64),
        "bound": np.full((n if sticky_s > 0.0 else 0, 2), -1.0),
        "arrivals": np.zeros(0, REQUEST),
        "draws": np.zeros((0, MOST_CHOICES)),
        **_prefix_map(workload, fleet, router is None or router.uses_prefixes),
        **_books(workload, count, router),
        "sandboxes": np.zeros(0, CORE),
        "beyond": np.zeros((2, 0), np.int64),
        **_moves(count if fleet.migration else 0, n if fleet.migration else 0),
        "routed": np.zeros(n, np.int64),
    }
    loop = fresh_loop(workload, no_loop()["unsent"]) if workload.is_closed_loop else no_loop()
    arrays |= {"loop": loop["loop"], "links": loop["links"]}
    record = _record(workload, fleet, router, cores)
    record["has_loop"], record["num_links"] = workload.is_closed_loop, len(arrays["links"])
    record["num_shared"] = len(arrays["ends"])
    record["sticky_s"] = sticky_s
    record["has_predictions"] = arrays["predictions"].shape[1] > 0
    record["num_recent"], record["num_tenants"] = len(arrays["new_tokens"]), len(arrays["charged"])
    state = FleetState(record, engines, workload, arrays)
    if router is not None and router.score == Score.AHEAD:
        state.look_ahead(kinds)
    return state


def _sessions(workload: Workload) -> NDArray[np.int64]:
    """(n,) the session of each request, counted from 0."""
    return np.unique(workload.session, return_inverse=True)[1].astype(np.int64)


def _prefix_map(workload: Workload, fleet: Fleet, wanted: bool) -> dict[str, NDArray[np.int64]]:
    """An empty map of prefixes; of no size if nobody wants it, no replica caches or no requests share anything."""
    n, count = len(workload), fleet.num_replicas
    caching = any(kind.config.prefix_caching for kind in fleet.kinds[0])
    parents = ends = np.zeros(0, np.int64)
    if wanted and caching and workload.prefix_block_size > 0:
        block_size = min(kind.config.block_size for kind in fleet.kinds[0])
        tree = prefix_tree(workload, block_size)
        parents, ends = tree.parent, tree.end[n:] * block_size
    return {
        "parents": parents,
        "ends": ends,
        "touched": np.zeros((len(ends), count), np.int64),
        "sent": np.zeros(count, np.int64),
        "matched": np.zeros(count, np.int64),
    }


def _books(workload: Workload, count: int, router: Router | None) -> dict[str, NDArray[Any]]:
    """Empty books of what goes where, by time and by tenant; of no size if nobody reads them."""
    n = len(workload) if router is None or router.score == Score.E2 else 0
    num_tenants = 0
    if router is None or router.score == Score.DEFICIT:  # tenants may be numbered without being named
        num_tenants = max(len(workload.tenant_names), int(workload.tenant.max(initial=-1)) + 1)
    return {
        "recent_tokens": np.zeros(count, np.int64),
        "num_forgotten": np.zeros(1, np.int64),
        "new_tokens": np.zeros(n, np.int64),
        "arrival_seconds": np.array(workload.arrival_s[:n], np.float64),
        "charged": np.zeros((num_tenants, count), np.int64),
    }


def _moves(count: int, n: int) -> dict[str, NDArray[Any]]:
    """Nobody moves yet."""
    return {
        "moves": np.zeros(count, MOVE),
        "partners": np.full(count, -1),
        "home": np.full(n, -1, np.int32),
        "slot": np.zeros(n, np.int64),
        "num_migrations": np.zeros(n, np.int64),
    }


def _record(workload: Workload, fleet: Fleet, router: Router | None, cores: Any) -> Any:
    record = np.zeros(1, FLEET)
    record["num_replicas"] = fleet.num_replicas
    record["num_requests"] = len(workload)
    record["last_chosen"] = fleet.num_replicas - 1
    record["chosen"] = record["next_number"] = -1
    record["next_landing_s"] = np.inf
    held = cores["num_blocks"] * cores["block_size"] + 1  # the last token's KV is never stored
    record["easy_tokens"] = np.minimum(held, cores["longest_allowed"]).min()
    record["needs_signals"] = True
    if router is not None:
        for name in KNOBS:
            record[name] = getattr(router, name)
    record["staleness_s"] = fleet.staleness_s
    record["counts_routed"] = fleet.counts_routed
    record["last_snapshot"] = -1.0
    if fleet.migration is not None:
        _migrate(record, fleet.migration)
    record["num_leaves"] = power_of_two_at_least(fleet.num_replicas)
    record["num_kinds"] = len(fleet.kinds[0])
    return record


def _migrate(record: Any, migration: Migration) -> None:
    record["migrates"] = record["needs_signals"] = True
    record["migration_period_s"] = migration.period_s
    record["migration_threshold"] = migration.threshold
    record["pairing"], record["mover"] = migration.pairing, migration.mover
    record["bytes_per_token"] = migration.transfer.bytes_per_token
    record["bytes_per_s"] = migration.transfer.bytes_per_s
    record["transfer_latency_s"] = migration.transfer.latency_s
    record["next_pairing"] = 1


def _constants(model: Engine) -> tuple[float, float]:
    """CONSTANTS of a replica."""
    core = model.record[0]
    budget = int(core["token_budget"])
    theta, ends = model.arrays["theta"], model.arrays["term_end"]
    seconds = batch_seconds.py_func(  # type: ignore[attr-defined]
        theta, ends, bool(core["floor_context"]), budget, budget * budget, 1, 0, 0, 0
    )
    return float(core["num_blocks"] * core["block_size"]), budget / float(seconds)


def _predicted_for(kind: Replica, predicted: Any) -> NDArray[np.float64] | None:
    if isinstance(predicted, Mapping):
        predicted = predicted.get(kind.policy.name)
    return None if predicted is None else np.asarray(predicted, np.float64)


def _predictions(predicted_lengths: list[NDArray[np.float64] | None], n: int) -> NDArray[np.float64]:
    if all(p is None for p in predicted_lengths):
        return np.zeros((len(predicted_lengths), 0))
    return np.array([np.zeros(n) if p is None else p for p in predicted_lengths])
