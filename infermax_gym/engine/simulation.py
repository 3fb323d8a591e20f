"""`simulate`: a workload, an engine and a scheduler in; per-request records out."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.invariants import InvariantChecker
from infermax_gym.engine.kernel.advance import advance, arrive, has_room
from infermax_gym.engine.kernel.run import jump_to_next_arrival
from infermax_gym.engine.policy import Information, Policy
from infermax_gym.engine.recorder import Recorder, joined, result_of
from infermax_gym.engine.result import SimulationResult
from infermax_gym.engine.scheduler import Scheduler, SchedulerError, carry_out, view_of
from infermax_gym.engine.session import Session, run_to
from infermax_gym.workload.workload import Workload


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
        TypeError: `policy` neither is a policy of the table nor decides iteration by iteration.
        ValueError: the policy needs predictions and got none, or they are malformed; or a Python scheduler is to run
            an engine with `async_scheduling`.
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
    if not isinstance(policy, Policy) and not hasattr(policy, "decide"):
        raise TypeError(f"{type(policy).__name__} has no decide(view); if it has play, call that")
    information = policy.information
    if predicted is None and information in (Information.PREDICTED, Information.ORACLE) and isinstance(policy, Policy):
        raise ValueError(
            f"policy {policy.name!r} needs `predicted` output lengths (see infermax_gym.baselines.predict)"
        )
    table = policy if isinstance(policy, Policy) else Policy("python")
    session = Session(
        workload, config, table, predicted, record_schedule=record_schedule, asynchronous=isinstance(policy, Policy)
    )
    if isinstance(policy, Policy):
        _run_policy(session, fast_forward, debug)
    else:
        _run_python(session, policy, debug)
    return session.result()


def _run_policy(session: Session, fast_forward: bool, debug: bool) -> None:
    checker = InvariantChecker(session.engine) if debug else None
    run_to(session.engine, session.recorder, fast_forward=fast_forward, step=checker.run if checker else None)
    if checker:
        checker.check_now()


def _run_python(session: Session, policy: Scheduler, debug: bool) -> None:
    engine, workload = session.engine, session.workload
    checker = InvariantChecker(engine) if debug else None
    known = workload if policy.information == Information.ORACLE else None
    # Each of them computes a token, and a full cache emits: twice as many must throw most of their work away.
    most_stalled = 64 + 2 * engine.num_kv_tokens
    while True:
        arrive(engine.core)
        if engine.is_done:
            return
        if not has_room(engine.core):
            session.recorder.empty(engine)
        if engine.num_running + engine.num_waiting == 0:
            jump_to_next_arrival(engine.core)
            continue
        carry_out(engine, policy.decide(view_of(engine, known)), policy.name)
        if engine.core["num_tokens"] > 0:
            advance(engine.core)
            if checker:
                checker.after_iteration()
            if engine.core["stalled_iterations"] > most_stalled:
                raise SchedulerError(
                    f"scheduler {policy.name!r} made no token appear in {most_stalled} iterations up to "
                    f"{engine.clock_s:.6g} s; it preempts what it computes"
                )
        elif not engine.core["changed"] and not jump_to_next_arrival(engine.core):
            raise SchedulerError(
                f"scheduler {policy.name!r} returned nothing at {engine.clock_s:.6g} s though {engine.num_waiting} "
                f"requests wait, {engine.num_running} run and no arrival is to come"
            )


__all__ = ["Recorder", "joined", "result_of", "simulate"]
