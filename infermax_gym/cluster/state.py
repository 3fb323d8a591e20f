"""The state of a fleet as plain memory: its engines, and one record (`cluster.records`) with all addresses.

The engines of a fleet are ordinary ones (`infermax_gym.engine.state`) with room for the requests that are routed to
them; room is made as it is needed. They share one log of the gaps between tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.fleet import Replica
from infermax_gym.cluster.layout import FLEET_ARRAYS
from infermax_gym.cluster.sandbox import make_sandboxes, widen
from infermax_gym.engine.cache import more_holds
from infermax_gym.engine.layout import ARRAYS, CORE, LOG_ARRAYS, NUM_OUTPUT_BINS, REQUEST
from infermax_gym.engine.state import Engine, fresh_requests
from infermax_gym.workload import Workload

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
            session_of (n or 0,) int64, and bound (n or 0, 2) float64, by session: when its last request arrived, and
            where that went, -1 for nowhere;
            parents (num_shared + n,), ends (num_shared,) int64: the runs of blocks that requests share, as in
            `infermax_gym.engine.prefix_tree`, first those of the requests' leaves; ends in tokens;
            touched (num_shared, num_replicas) int64, the value of sent (num_replicas,) int64, new prompt tokens sent
            there, after the last request through that run, 0 for none; matched (num_replicas,) int64, for the next
            request;
            recent_tokens (num_replicas,) int64, new prompt tokens of the routed requests but the first num_forgotten
            (1,) int64, of which each brought new_tokens (n or 0,) int64 at arrival_seconds (n or 0,) float64, in the
            order in which they were routed;
            charged (num_tenants or 0, num_replicas) int64, new prompt tokens of each tenant sent there;
            moves (num_replicas,) MOVE and partners (num_replicas,) int64, the migrations under way;
            home (n,) int32 and slot (n,) int64, the replica and the place in its engine of each request's record, and
            num_migrations (n,) int64; all five of no size without migration;
            sandboxes (num_kinds,) CORE, the records of the engines that routers look ahead with, and beyond
            (2, NUM_OUTPUT_BINS + 1) int64, both of no size where nobody does;
            routed (n,) int64, the requests in the order in which they were routed, and loop, links as in an engine: the
            closed-loop traffic, which all engines write and whose next request comes to the router;
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
        for engine in self.engines if self.record["has_loop"][0] else ():
            engine.record["has_loop"], engine.record["num_links"] = 1, len(self.workload)
            for name in ("loop", "links"):
                engine.replace(name, self.arrays[name])
        for name in FLEET_ARRAYS:
            self.record[f"{name}_address"] = self.arrays[name].ctypes.data

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.record, self.engines, self.workload, self.arrays, self.sandboxes)

    @property
    def core(self) -> Any:
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
    copies = [with_log(engine, arrays["cores"][i : i + 1], log) for i, engine in enumerate(engines)]
    return FleetState(record, copies, workload, arrays, sandboxes)


def with_log(engine: Engine, record: Any, log: dict[str, NDArray[Any]]) -> Engine:
    """A copy of an engine that lives in `record` and writes into a log that it shares."""
    record[0] = engine.record[0]
    own = {name: engine.arrays[name].copy() for name in ARRAYS if name not in log}
    return Engine(record, {**own, **log})
