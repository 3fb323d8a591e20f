"""`simulate_fleet`: a workload, a fleet and a router in; per-request records out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.cluster.allocate import allocate_fleet
from infermax_gym.cluster.fleet import Fleet
from infermax_gym.cluster.kernel.events import NO_SLOT
from infermax_gym.cluster.kernel.run import finish, route, send, show
from infermax_gym.cluster.result import FleetResult
from infermax_gym.cluster.router import Arrival, PythonRouter, Router
from infermax_gym.cluster.state import ARRIVALS_AT_ONCE, FleetState
from infermax_gym.engine import Information, SchedulerError, SimulationResult
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.run import DONE, LOG_FULL
from infermax_gym.engine.recorder import Recorder, joined
from infermax_gym.engine.result import statuses
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

Predicted = NDArray[Any] | Mapping[str, NDArray[Any]]


class RouterError(RuntimeError):
    """A router written in Python chose a replica that does not exist or can never hold the request."""


class FleetRun:
    """A fleet under way, one arrival after another: what `simulate_fleet` and the environments drive.

    Args:
        workload: the n requests.
        fleet: the replicas.
        router: a router of the table, or None where somebody outside chooses by `show` and `send`.
        predicted: as in `simulate_fleet`.
    """

    def __init__(
        self, workload: Workload, fleet: Fleet, router: Router | None, predicted: Predicted | None = None
    ) -> None:
        self.workload = workload
        self.fleet = fleet
        self.state: FleetState = allocate_fleet(workload, fleet, router, predicted)
        self.recorder = Recorder()

    @property
    def next_request(self) -> int:
        """How many requests are routed, which is the number of the next one where traffic is open."""
        return int(self.state.record["next_request"][0])

    def empty_log(self) -> None:
        """Take what the log of the engines holds."""
        record, first = self.state.record, self.state.engines[0]
        first.record["num_gaps"] = record["num_gaps"]
        self.recorder.empty(first)
        record["num_gaps"] = 0

    def settle(self, code: int) -> None:
        """Do what the compiled loop stopped for."""
        if code == LOG_FULL:
            if self.state.record["num_gaps"][0] == 0:
                self._check_progress()
            self.empty_log()
        elif code == NO_SLOT:
            self.state.make_room(int(self.state.record["chosen"][0]))

    def route(
        self,
        draws: NDArray[np.float64],
        prefilled_s: NDArray[np.float64] | None = None,
        predicted: NDArray[np.float64] | None = None,
    ) -> None:
        """Let the router choose for the next requests.

        Args:
            draws: (k, num_choices) float64 in [0, 1), one row for each of the next k requests.
            prefilled_s: as in `simulate_fleet`.
            predicted: (n,) predicted output tokens, for a router that uses them.
        """
        self.state.lay_out(draws, predicted, prefilled_s)
        while (code := route(self.state.core)) != DONE:
            self.settle(code)

    def show(self, candidates: NDArray[np.bool_]) -> None:
        """Advance to the next arrival, which must be laid out, and say who can hold it."""
        while (code := show(self.state.core, candidates)) != DONE:
            self.settle(code)

    def send(self, replica: int) -> None:
        """Send the next request, which must be laid out, to a replica that can hold it; -1 rejects it."""
        while (code := send(self.state.core, replica)) != DONE:
            self.settle(code)

    def finish(self) -> None:
        """Serve everything that was routed to its end.

        Raises:
            SchedulerError: a policy leaves requests waiting though nothing runs.
        """
        done = 0
        while (done := finish(self.state.core, done)) < self.fleet.num_replicas:
            self.settle(NO_SLOT if self.state.record["chosen"][0] >= 0 else LOG_FULL)
        self._check_progress()

    def _check_progress(self) -> None:
        """Raise if requests wait though nothing runs and nobody comes."""
        cores = self.state.arrays["cores"]
        left = cores["num_requests"] - cores["num_finished"] - cores["num_rejected"] - cores["num_moved"]
        if left.any():
            i = int(left.argmax())
            raise SchedulerError(
                f"policy {self.fleet.replicas[i].policy.name!r} lets {left[i]} requests of replica {i} wait for ever"
            )

    def copy(self) -> FleetRun:
        """An independent copy."""
        twin = FleetRun.__new__(FleetRun)
        twin.workload, twin.fleet = self.workload, self.fleet
        twin.state = self.state.copy()
        twin.recorder = self.recorder.copy()
        return twin

    def result(self, *, keep: bool = False) -> FleetResult:
        """What is known of every request now.

        Args:
            keep: whether the run goes on, or is asked again; otherwise its gaps move into the result, which saves
                memory.
        """
        self.empty_log()
        return _result_of(self, self.recorder.copy() if keep else self.recorder)


def simulate_fleet(
    workload: Workload,
    fleet: Fleet,
    router: Router | PythonRouter,
    *,
    seed: int = 0,
    predicted: Predicted | None = None,
    prefilled_s: NDArray[np.float64] | None = None,
) -> FleetResult:
    """Serve a workload to its end with several engines behind a router.

    Args:
        workload: the n requests.
        fleet: the replicas, and how fresh the router's signals are.
        router: a router of the table, or one written in Python.
        seed: of the router's random choices (stream "router").
        predicted: (n,) predicted output tokens for policies and routers that use predictions, or such an array by their
            names.
        prefilled_s: (n,) when another fleet emitted each request's first token: requests arrive with the KV of their
            prompts, which comes onto the device like swapped KV (`infermax_gym.cluster.disaggregated`).

    Raises:
        ValueError: a policy or the router needs predictions and got none, or they are malformed.
        RouterError: a Python router chose badly.

    Example:
        >>> from infermax_gym.cluster import Fleet, Router, simulate_fleet
        >>> from infermax_gym.workload import Workload
        >>> result = simulate_fleet(Workload([0.0, 0.0], [100, 50], [2, 1]), Fleet.uniform(2), Router("round-robin"))
        >>> result.replica_of.tolist()
        [0, 1]
    """
    _check_predictions(fleet, predicted)
    predicted_lengths = _predicted_for_router(router, predicted)
    run = FleetRun(workload, fleet, router if isinstance(router, Router) else None, predicted)
    if isinstance(router, Router):
        rng = stream(seed, "router")
        while run.next_request < len(workload):
            count = len(workload) if workload.is_closed_loop else ARRIVALS_AT_ONCE
            count = min(count, len(workload) - run.next_request)
            run.route(rng.random((count, router.num_choices)), prefilled_s, predicted_lengths)
    else:
        _route_in_python(run, router, prefilled_s)
    run.finish()
    return run.result()


def _check_predictions(fleet: Fleet, predicted: Predicted | None) -> None:
    for replica in fleet.kinds[0]:
        policy = replica.policy
        predicted_lengths = predicted.get(policy.name) if isinstance(predicted, Mapping) else predicted
        if predicted_lengths is None and policy.information in (Information.PREDICTED, Information.ORACLE):
            raise ValueError(
                f"policy {policy.name!r} needs `predicted` output lengths (see infermax_gym.baselines.predict)"
            )


def _predicted_for_router(router: Router | PythonRouter, predicted: Predicted | None) -> NDArray[np.float64] | None:
    """(n,) what a router learns of output lengths, None for all but those that use predictions."""
    if not isinstance(router, Router) or not router.uses_predictions:
        return None
    predicted_lengths = predicted.get(router.name) if isinstance(predicted, Mapping) else predicted
    if predicted_lengths is None:
        raise ValueError(
            f"router {router.name!r} needs `predicted` output lengths (see infermax_gym.baselines.predict)"
        )
    return np.asarray(predicted_lengths, np.float64)


def _route_in_python(run: FleetRun, router: PythonRouter, prefilled_s: NDArray[np.float64] | None) -> None:
    workload, arrays = run.workload, run.state.arrays
    candidates = np.zeros(run.fleet.num_replicas, bool)
    at_once = len(workload) if workload.is_closed_loop else ARRIVALS_AT_ONCE
    for k in range(len(workload)):
        if k % at_once == 0:
            run.state.lay_out(np.zeros((min(at_once, len(workload) - k), 0)), prefilled_s=prefilled_s)
        run.show(candidates)
        if not candidates.any():
            run.send(-1)
            continue
        record = run.state.record
        r = int(record["next_number"][0]) if workload.is_closed_loop else k
        arrival = Arrival(
            request=r,
            arrival_s=float(arrays["arrivals"]["arrival_s"][r - int(record["first_arrival"][0])]),
            num_prompt_tokens=int(workload.num_prompt_tokens[r]),
            priority=int(workload.priority[r]),
            signals=arrays["seen"],
            constants=arrays["constants"],
            candidates=candidates,
            matched_tokens=arrays["matched"],
        )
        chosen = int(router.choose(arrival))
        if not 0 <= chosen < run.fleet.num_replicas:
            raise RouterError(f"router {router.name!r} chose replica {chosen} of {run.fleet.num_replicas}")
        if not candidates[chosen]:
            raise RouterError(f"router {router.name!r} sent request {r} to replica {chosen}, which can never hold it")
        run.send(chosen)


def _arrival_s(run: FleetRun, routed: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) when each request was sent; nan for those never sent."""
    if not run.workload.is_closed_loop:
        return run.workload.arrival_s
    arrival_s = np.full(len(run.workload), np.nan)
    arrival_s[routed] = run.state.arrays["links"]["due_s"][routed]
    return arrival_s


def _result_of(run: FleetRun, recorder: Recorder) -> FleetResult:
    state, workload = run.state, run.workload
    n = len(workload)
    replica_of = state.arrays["replica_of"]
    columns: dict[str, NDArray[Any]] = {
        "first_scheduled_s": np.full(n, np.nan),
        "first_token_s": np.full(n, np.nan),
        "finish_s": np.full(n, np.nan),
        "preemptions": np.zeros(n, np.int64),
        "recomputed": np.zeros(n, np.int64),
        "generated": np.zeros(n, np.int64),
    }
    status = np.full(n, 2, np.int8)
    routed = state.arrays["routed"][: run.next_request]
    status[routed[replica_of[routed] < 0]] = 1
    homes, slots = state.homes()
    order = routed[np.argsort(homes[routed], kind="stable")]
    caching = any(replica.config.prefix_caching for replica in run.fleet.replicas)
    cached_tokens = np.zeros(n if caching else 0, np.int64)
    cores = state.arrays["cores"].copy()
    edges = np.searchsorted(homes[order], np.arange(run.fleet.num_replicas + 1))
    for i, engine in enumerate(state.engines):
        disband(engine.core)
        mine = order[edges[i] : edges[i + 1]]
        here = slice(len(mine)) if slots is None else slots[mine]
        req = engine.requests[here]
        for name, column in columns.items():
            column[mine] = req[name]
        status[mine] = statuses(req)
        if engine.record["prefix_caching"][0]:
            cached_tokens[mine] = engine.arrays["holds"]["cached"][here]
    finish_s = columns["finish_s"]
    makespan_s = float(np.nanmax(finish_s)) if bool((status == 0).any()) else 0.0
    capacity = makespan_s * float(cores["num_blocks"].sum())
    pooled = SimulationResult(
        workload=workload,
        first_scheduled_s=columns["first_scheduled_s"],
        first_token_s=columns["first_token_s"],
        finish_s=finish_s,
        num_preemptions_of=columns["preemptions"],
        num_recomputed_tokens_of=columns["recomputed"],
        num_generated_tokens=columns["generated"],
        status=status,
        gap_s=joined(recorder.gaps),
        gap_counts=joined(recorder.gap_counts),
        makespan_s=makespan_s,
        busy_s=float(cores["busy_s"].sum()),
        num_iterations=int(cores["num_iterations"].sum()),
        num_decisions=int(cores["num_decisions"].sum()),
        num_preemptions=int(cores["num_preemptions"].sum()),
        num_recomputed_tokens=int(cores["num_recomputed"].sum()),
        num_guarded_iterations=int(cores["num_guarded"].sum()),
        kv_utilization=float(cores["kv_block_seconds"].sum()) / capacity if capacity > 0.0 else 0.0,
        num_cached_tokens_of=cached_tokens,
        arrival_s=_arrival_s(run, routed),
    )
    return FleetResult(
        fleet=run.fleet,
        pooled=pooled,
        replica_of=replica_of.copy(),
        num_requests_of=np.bincount(replica_of[replica_of >= 0], minlength=run.fleet.num_replicas),
        busy_s_of=cores["busy_s"],
        num_iterations_of=cores["num_iterations"],
        num_preemptions_of=cores["num_preemptions"],
        num_migrations_of=state.arrays["num_migrations"].copy(),
        num_aborted_migrations=int(state.record["num_aborted"][0]),
    )
