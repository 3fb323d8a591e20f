"""`simulate`: a workload, an engine and a scheduler in; per-request records out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.invariants import InvariantChecker
from infermax_gym.engine.kernel.advance import advance, arrive, has_room
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.run import DONE, LOG_FULL, jump_to_next_arrival, run
from infermax_gym.engine.policy import NO_LIMIT, Information, Policy
from infermax_gym.engine.result import Iteration, SimulationResult, statuses
from infermax_gym.engine.scheduler import Scheduler, SchedulerError, carry_out, view_of
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload.workload import Workload

# So many small parts become a large one, whose memory goes back to the system when it is freed.
_MANY = 128
_LARGE = 1 << 20


@dataclass
class Recorder:
    """Collects what an engine's log holds each time it is emptied."""

    gaps: list[NDArray[np.float64]] = field(default_factory=list)
    gap_counts: list[NDArray[np.int32]] = field(default_factory=list)
    schedule: list[Iteration] = field(default_factory=list)

    def copy(self) -> Recorder:
        """A recorder of the same contents, for whoever takes them out."""
        return Recorder(list(self.gaps), list(self.gap_counts), list(self.schedule))

    def empty(self, engine: Engine) -> None:
        """Take everything out of the engine's log."""
        core, arrays = engine.record, engine.arrays
        count = int(core["num_gaps"][0])
        self.gaps.append(arrays["gaps"][:count].copy())
        self.gap_counts.append(arrays["gap_counts"][:count].astype(np.int32))
        if len(self.gaps) >= _MANY and len(self.gaps[-_MANY]) < _LARGE:
            self.gaps[-_MANY:] = [np.concatenate(self.gaps[-_MANY:])]
            self.gap_counts[-_MANY:] = [np.concatenate(self.gap_counts[-_MANY:])]
        num_spans = int(core["num_spans"][0])
        requests, tokens = arrays["members"][: int(core["num_members"][0])].T.tolist()
        members = list(zip(requests, tokens, strict=True))
        victims = arrays["victims"][: int(core["num_victims"][0])].tolist()
        first_member = first_victim = 0
        ends = arrays["ends"][:num_spans].tolist()
        for (start_s, end_s), (last_member, last_victim) in zip(
            arrays["spans"][:num_spans].tolist(), ends, strict=True
        ):
            batch = tuple(members[first_member:last_member])
            self.schedule.append(Iteration(start_s, end_s, batch, tuple(victims[first_victim:last_victim])))
            first_member, first_victim = last_member, last_victim
        for name in ("num_gaps", "num_spans", "num_members", "num_victims"):
            core[name] = 0


def simulate(
    workload: Workload,
    config: EngineConfig,
    policy: Policy | Scheduler,
    *,
    predicted: NDArray[Any] | None = None,
    record_schedule: bool = False,
    fast_forward: bool = True,
    debug: bool = False,
) -> SimulationResult:
    """Serve a workload to its end.

    Args:
        workload: the requests.
        config: the replica.
        policy: a policy of the table, or a scheduler written in Python.
        predicted: (n,) predicted output tokens, for policies that use predictions.
        record_schedule: keep every iteration (memory: about 100 bytes per request and iteration).
        fast_forward: skip decisions that must repeat; results are the same bit for bit.
        debug: check the engine's invariants after every iteration (slow).

    Raises:
        ValueError: the policy needs predictions and got none, or they are malformed.
        SchedulerError: a Python scheduler broke a rule of the engine, left requests waiting for ever, or preempted
            what it computed again and again.
        InvariantError: `debug` found a bug in the engine.

    Example:
        >>> from infermax_gym.engine import EngineConfig, Policy, simulate
        >>> from infermax_gym.workload import Workload
        >>> result = simulate(Workload([0.0, 0.0], [100, 50], [2, 1]), EngineConfig(), Policy("fcfs"))
        >>> result.num_iterations
        2
    """
    row = policy if isinstance(policy, Policy) else Policy("python")
    information = policy.information
    if predicted is None and information in (Information.PREDICTED, Information.ORACLE) and isinstance(policy, Policy):
        raise ValueError(
            f"policy {policy.name!r} needs `predicted` output lengths (see infermax_gym.baselines.predict)"
        )
    engine = allocate(workload, config, row, predicted, record_schedule=record_schedule)
    recorder = Recorder()
    if isinstance(policy, Policy):
        _run_policy(engine, recorder, fast_forward, debug)
    else:
        _run_python(engine, recorder, policy, workload, debug)
    recorder.empty(engine)
    return result_of(engine, workload, recorder, record_schedule)


def _run_policy(engine: Engine, recorder: Recorder, fast_forward: bool, debug: bool) -> None:
    checker = InvariantChecker(engine) if debug else None
    while True:
        code = checker.run() if checker else run(engine.core, NO_LIMIT, np.inf, fast_forward)
        if code == DONE:
            break
        if code == LOG_FULL:
            recorder.empty(engine)
        else:
            raise SchedulerError(f"nothing can run at {engine.record['clock_s'][0]:.6g} s though requests wait")
    if checker:
        checker.check_now()


def _run_python(engine: Engine, recorder: Recorder, policy: Scheduler, workload: Workload, debug: bool) -> None:
    checker = InvariantChecker(engine) if debug else None
    core = engine.record
    known = workload if policy.information == Information.ORACLE else None
    # Each of them computes a token, and a full cache emits: twice as many must throw most of their work away.
    most_stalled = 64 + 2 * int(core["num_blocks"][0] * core["block_size"][0])
    while True:
        arrive(engine.core)
        if core["num_finished"][0] + core["num_rejected"][0] == len(workload):
            return
        if not has_room(engine.core):
            recorder.empty(engine)
        if core["num_running"][0] + core["num_waiting"][0] == 0:
            jump_to_next_arrival(engine.core)
            continue
        carry_out(engine, policy.decide(view_of(engine, known)), policy.name)
        if core["num_tokens"][0] > 0:
            advance(engine.core)
            if checker:
                checker.after_iteration()
            if core["stalled_iterations"][0] > most_stalled:
                raise SchedulerError(
                    f"scheduler {policy.name!r} made no token appear in {most_stalled} iterations up to "
                    f"{core['clock_s'][0]:.6g} s; it preempts what it computes"
                )
        elif not core["changed"][0] and not jump_to_next_arrival(engine.core):
            waiting, running = int(core["num_waiting"][0]), int(core["num_running"][0])
            raise SchedulerError(
                f"scheduler {policy.name!r} returned nothing at {core['clock_s'][0]:.6g} s though {waiting} requests "
                f"wait, {running} run and no arrival is to come"
            )


def joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """All parts one after another. The list is emptied on the way, so that memory does not hold them twice."""
    whole = np.empty(sum(map(len, parts)), parts[0].dtype)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def result_of(engine: Engine, workload: Workload, recorder: Recorder, with_schedule: bool) -> SimulationResult:
    """The result of an engine that has run, its log already emptied into `recorder`."""
    disband(engine.core)
    core, req = engine.record[0], engine.requests
    finish_s = req["finish_s"].copy()
    makespan_s = float(np.nanmax(finish_s)) if core["num_finished"] else 0.0
    capacity = makespan_s * float(core["num_blocks"])
    return SimulationResult(
        workload=workload,
        first_scheduled_s=req["first_scheduled_s"].copy(),
        first_token_s=req["first_token_s"].copy(),
        finish_s=finish_s,
        num_preemptions_of=req["preemptions"].copy(),
        num_recomputed_tokens_of=req["recomputed"].copy(),
        num_generated_tokens=req["generated"].copy(),
        status=statuses(req),
        gap_s=joined(recorder.gaps),
        gap_counts=joined(recorder.gap_counts),
        makespan_s=makespan_s,
        busy_s=float(core["busy_s"]),
        num_iterations=int(core["num_iterations"]),
        num_decisions=int(core["num_decisions"]),
        num_preemptions=int(core["num_preemptions"]),
        num_recomputed_tokens=int(core["num_recomputed"]),
        kv_utilization=float(core["kv_block_seconds"]) / capacity if capacity > 0.0 else 0.0,
        schedule=tuple(recorder.schedule) if with_schedule else None,
        num_cached_tokens_of=engine.arrays["holds"]["cached"].copy(),
    )
