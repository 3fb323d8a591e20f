"""The state of a fleet as plain memory: its engines, and one record with the addresses of everything.

The engines of a fleet are ordinary ones (`infermax_gym.engine.state`) with room for the requests that are routed to
them; room is made as it is needed. They share one log of the gaps between tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.fleet import Fleet, Replica
from infermax_gym.cluster.migration import Migration
from infermax_gym.cluster.moves import MOVE
from infermax_gym.cluster.router import CONSTANTS, KNOBS, MOST_CHOICES, SIGNALS, Router, Score
from infermax_gym.cluster.sandbox import make_sandboxes, widen
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.cache import more_holds
from infermax_gym.engine.prefix_tree import prefix_tree
from infermax_gym.engine.state import (
    ARRAYS,
    CORE,
    LOG_ARRAYS,
    NUM_OUTPUT_BINS,
    REQUEST,
    Engine,
    allocate,
    fresh_requests,
    power_of_two_at_least,
)
from infermax_gym.workload import Workload

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
    "arrivals",
    "draws",
    "parents",
    "ends",
    "touched",
    "sent",
    "matched",
    "window_tokens",
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
)

FLEET = np.dtype(
    [
        ("num_replicas", "i8"),
        ("num_requests", "i8"),
        ("next_request", "i8"),  # the first that is not routed
        ("num_rejected", "i8"),  # that no replica can ever hold
        ("last_chosen", "i8"),
        ("chosen", "i8"),  # where the next request goes, while room is made for it there
        ("easy_tokens", "i8"),  # prompt + output up to this fits every replica
        # the router
        ("score", "i8"),
        ("weights", "f8", (len(SIGNALS),)),
        ("num_choices", "i8"),
        ("uses_prefixes", "i8"),
        ("least_match", "f8"),
        ("most_difference", "f8"),
        ("most_ratio", "f8"),
        ("share_weights", "f8", (3,)),
        ("window_s", "f8"),
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
        # sizes
        ("has_predictions", "i8"),
        ("num_leaves", "i8"),
        ("num_kinds", "i8"),
        ("num_gaps", "i8"),  # in the log that all engines share
        ("first_arrival", "i8"),  # the request in the first row of `arrivals`
        ("arrivals_size", "i8"),
        ("num_shared", "i8"),  # runs of prefix blocks that several requests share; 0: no map of prefixes
        ("num_windowed", "i8"),  # num_requests, or 0: no window
        ("num_tenants", "i8"),  # 0: no books of tenants
        *[(f"{name}_address", "i8") for name in FLEET_ARRAYS],
    ],
    align=True,
)

ARRIVALS_AT_ONCE = 4096
"""Requests laid out at a time for the compiled loop; between two such chunks Python has its turn."""


class FleetState:
    """A fleet in the middle of a run.

    Attributes:
        record: (1,) FLEET; what compiled steps get is its element 0.
        engines: one per replica; their records are rows of `cores`.
        workload: the n requests.
        sandboxes: one engine per kind of replica where a router looks ahead, else none.
        arrays: by name:
            cores (num_replicas,) CORE, the records of the engines;
            num_slots (num_replicas,) int64, requests that an engine has room for;
            signals (len(SIGNALS), num_replicas) float64, as of each replica's last iteration boundary, plus what was
            routed to it since; seen, the same shape, what the router gets to see (the same memory at staleness 0);
            constants (len(CONSTANTS), num_replicas) float64;
            released (num_replicas,) float64, tokens of the first num_released (num_replicas,) int64 finished requests;
            events (2 * leaves,) float64, tournament over the next iteration boundary of each replica, inf for none;
            kind_of (num_replicas,) int64, row of predictions (num_kinds, n or 0) float64;
            replica_of (n,) int32, where each request went, -1 for rejected ones;
            parents (num_shared + n,), ends (num_shared,) int64: the runs of blocks that requests share, as in
            `infermax_gym.engine.prefix_tree`, first those of the requests' leaves; ends in tokens;
            touched (num_shared, num_replicas) int64, the value of sent (num_replicas,) int64, new prompt tokens sent
            there, after the last request through that run, 0 for none; matched (num_replicas,) int64, for the next
            request;
            window_tokens (num_replicas,) int64, new prompt tokens of the requests from num_forgotten (1,) int64 on,
            of which each brought new_tokens (n or 0,) int64 at arrival_seconds (n or 0,) float64;
            charged (num_tenants or 0, num_replicas) int64, new prompt tokens of each tenant sent there;
            moves (num_replicas,) MOVE and partners (num_replicas,) int64, the migrations under way;
            home (n,) int32 and slot (n,) int64, the replica and the place in its engine of each request's record, and
            num_migrations (n,) int64; all five of no size without migration;
            sandboxes (num_kinds,) CORE, the records of the engines that routers look ahead with, and beyond
            (2, NUM_OUTPUT_BINS + 1) int64, both of no size where nobody does;
            arrivals (k,) REQUEST and draws (k, MOST_CHOICES) float64: the requests that come next, and the random
            numbers for their choices.
    """

    def __init__(
        self,
        record: Any,
        engines: list[Engine],
        workload: Workload,
        arrays: dict[str, NDArray[Any]],
        sandboxes: Sequence[Engine] = (),
    ) -> None:
        self.record = record
        self.engines = engines
        self.workload = workload
        self.arrays = arrays
        self.sandboxes = list(sandboxes)
        self._address()

    def _address(self) -> None:
        for kind, sandbox in enumerate(self.sandboxes):
            self.arrays["sandboxes"][kind] = sandbox.record[0]
        for name in FLEET_ARRAYS:
            self.record[f"{name}_address"] = self.arrays[name].ctypes.data

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.record, self.engines, self.workload, self.arrays, self.sandboxes)

    @property
    def now(self) -> Any:
        """The record as compiled steps take it."""
        return self.record[0]

    def copy(self) -> FleetState:
        """An independent copy; the workload, which nobody writes, is shared."""
        arrays = {name: array.copy() for name, array in self.arrays.items()}
        return _rebuild(self.record.copy(), self.engines, self.workload, arrays, self.sandboxes)

    def lay_out(
        self,
        draws: NDArray[np.float64],
        predicted: NDArray[np.float64] | None = None,
        prefilled_s: NDArray[np.float64] | None = None,
    ) -> None:
        """Put the next requests, and their random numbers, where the compiled loop finds them.

        Args:
            draws: (k, num_choices) float64 in [0, 1), for the next k requests.
            predicted: (n,) predicted output tokens of all requests, where replicas have no predictions of their own.
            prefilled_s: (n,) when another fleet emitted each request's first token, having computed its prompt; its
                KV is there when it arrives. None: requests come without KV.
        """
        first = int(self.record["next_request"][0])
        rows = slice(first, first + len(draws))
        arrivals = fresh_requests(self.workload, predicted, rows)
        if prefilled_s is not None:
            arrivals["computed"] = arrivals["prompt"]
            arrivals["generated"] = 1
            arrivals["first_token_s"] = arrivals["last_token_s"] = prefilled_s[rows]
            arrivals["in_prefill"] = 0
            arrivals["on_host"] = 1
        self.arrays["arrivals"] = arrivals
        self.arrays["draws"] = np.ascontiguousarray(draws)
        self.record["first_arrival"] = first
        self.record["arrivals_size"] = len(draws)
        self._address()

    def homes(self) -> tuple[NDArray[np.int32], NDArray[np.int64] | None]:
        """(n,) whose engine has each request's record, -1 for nobody's, and (n,) its place there.

        None: places are the order of arrival there.
        """
        if not self.record["migrates"][0]:
            return self.arrays["replica_of"], None
        return self.arrays["home"], self.arrays["slot"]

    def make_room(self, i: int) -> None:
        """Double the room of replica i, keeping everything where it is."""
        engine, slots = self.engines[i], int(self.arrays["num_slots"][i])
        req = np.zeros(2 * slots, REQUEST)
        req[:slots] = engine.arrays["req"]
        engine.arrays["req"] = req
        engine.arrays["holds"] = more_holds(engine.record, engine.arrays["holds"], 2 * slots)
        leaves = int(engine.record["num_leaves"][0])
        if 2 * slots > leaves:
            tree, valid = engine.arrays["tree"], engine.arrays["valid"]
            engine.arrays["tree"] = _wider(tree, -1)
            if engine.record["kinetic"][0]:
                engine.arrays["valid"] = np.stack([_wider(valid[0], -np.inf), _wider(valid[1], np.inf)])
            engine.record["num_leaves"] = 2 * leaves
        for name in ("req", "holds", "tree", "valid"):
            engine.record[f"{name}_address"] = engine.arrays[name].ctypes.data
        self.arrays["num_slots"][i] = 2 * slots
        if self.sandboxes:
            widen(self.sandboxes[self.arrays["kind_of"][i]], 2 * slots)
            self._address()

    def look_ahead(self, kinds: Sequence[Replica]) -> None:
        """Provide what a router needs to run copies of the replicas, which are of these kinds; once is enough."""
        if not self.sandboxes:
            self.sandboxes = make_sandboxes(self.workload, kinds, int(self.arrays["num_slots"].max()))
            self.arrays["sandboxes"] = np.zeros(len(kinds), CORE)
            self.arrays["beyond"] = np.zeros((2, NUM_OUTPUT_BINS + 1), np.int64)
            self._address()


def _wider(tree: NDArray[Any], fill: float) -> NDArray[Any]:
    """A tournament tree with twice the leaves, the old ones to the left."""
    wider = np.full(2 * len(tree), fill, tree.dtype)
    start = 1
    while start < len(tree):
        wider[2 * start : 3 * start] = tree[start : 2 * start]
        start *= 2
    wider[1] = tree[1]
    return wider


def _rebuild(
    record: Any,
    engines: list[Engine],
    workload: Workload,
    arrays: dict[str, NDArray[Any]],
    sandboxes: Sequence[Engine],
) -> FleetState:
    """A state with memory of its own for the engines; the record and the arrays are taken as they are."""
    if record["staleness_s"][0] == 0.0:
        arrays["seen"] = arrays["signals"]
    log = {name: engines[0].arrays[name].copy() for name in LOG_ARRAYS}
    copies = [_with_log(engine, arrays["cores"][i : i + 1], log) for i, engine in enumerate(engines)]
    return FleetState(record, copies, workload, arrays, sandboxes)


def _with_log(engine: Engine, record: Any, log: dict[str, NDArray[Any]]) -> Engine:
    """A copy of an engine that lives in `record` and writes into a log that it shares."""
    record[0] = engine.record[0]
    own = {name: engine.arrays[name].copy() for name in ARRAYS if name not in log}
    return Engine(record, {**own, **log})


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
    told = [_predicted_for(kind, predicted) for kind in kinds]
    models = [
        allocate(workload, kind.config, kind.policy, p, num_slots=slots) for kind, p in zip(kinds, told, strict=True)
    ]
    log = {name: models[0].arrays[name] for name in LOG_ARRAYS}
    size = max(int(model.record["gaps_size"][0]) for model in models)
    log["gaps"], log["gap_counts"] = np.zeros(size), np.zeros(size, np.int64)
    for model in models:
        model.record["gaps_size"] = size
    engines = [_with_log(models[kind], cores[i : i + 1], log) for i, kind in enumerate(kind_of)]
    constants = np.array([_constants(model) for model in models]).T
    signals = np.zeros((len(SIGNALS), count))
    signals[SIGNALS.index("free_kv_tokens")] = constants[CONSTANTS.index("kv_tokens"), kind_of]
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
        "predictions": _predictions(told, n),
        "replica_of": np.full(n, -1, np.int32),
        "arrivals": np.zeros(0, REQUEST),
        "draws": np.zeros((0, MOST_CHOICES)),
        **_prefix_map(workload, fleet, router is None or router.uses_prefixes),
        **_books(workload, count, router),
        "sandboxes": np.zeros(0, CORE),
        "beyond": np.zeros((2, 0), np.int64),
        **_moves(count if fleet.migration else 0, n if fleet.migration else 0),
    }
    record = _record(workload, fleet, router, cores)
    record["num_shared"] = len(arrays["ends"])
    record["has_predictions"] = arrays["predictions"].shape[1] > 0
    record["num_windowed"], record["num_tenants"] = len(arrays["new_tokens"]), len(arrays["charged"])
    state = FleetState(record, engines, workload, arrays)
    if router is not None and router.score == Score.AHEAD:
        state.look_ahead(kinds)
    return state


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
    num_tenants = len(workload.tenant_names) if router is None or router.score == Score.DEFICIT else 0
    return {
        "window_tokens": np.zeros(count, np.int64),
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
    record["chosen"] = -1
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
    record["next_landing_s"] = np.inf


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


def _predictions(told: list[NDArray[np.float64] | None], n: int) -> NDArray[np.float64]:
    if all(p is None for p in told):
        return np.zeros((len(told), 0))
    return np.array([np.zeros(n) if p is None else p for p in told])
