"""An engine that is stopped now and then, looked at, given another policy, and run on.

The one place that puts a policy on an engine under way, and that goes on when the engine's log is full.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.queue import rekey
from infermax_gym.engine.kernel.run import DONE, LIMIT, LOG_FULL, run
from infermax_gym.engine.policy import NO_LIMIT, Policy, QueueOrder
from infermax_gym.engine.recorder import Recorder, result_of
from infermax_gym.engine.result import SimulationResult
from infermax_gym.engine.scheduler import SchedulerError
from infermax_gym.engine.state import Engine, allocate, write_policy
from infermax_gym.engine.tenants import set_weights
from infermax_gym.workload.workload import Workload


def install_policy(engine: Engine, policy: Policy) -> None:
    """Put a policy in the place of an engine's own, between two iterations.

    Sets its knobs, its share of blocks to leave free, its cap on running requests and its token budget, and keys the
    queue anew. Requests keep their levels and predictions. A queue that is and stays FIFO keeps its order; another
    that becomes FIFO is in order of arrival.

    Args:
        engine: stands where it likes; with more requests running than the policy allows, none joins until some left.
        policy: any policy of the table.
    """
    disband(engine.core)
    was_fifo = engine.core["queue_order"] == QueueOrder.FIFO
    write_policy(engine.record, policy)
    nodes = len(engine.arrays["tree"])
    if engine.core["kinetic"] and engine.arrays["valid"].shape[1] < nodes:
        engine.replace("valid", np.empty((2, nodes)))
    if len(engine.arrays["skipped"]) <= policy.max_skips:
        engine.replace("skipped", np.zeros(policy.max_skips + 1, np.int64))
    set_weights(engine.arrays["tenants"], policy)
    core = engine.core
    core["run_unsorted"] = core["quantiles_stale"] = 1
    core["next_starving_s"], core["next_starving_iteration"] = -np.inf, 0
    if not (was_fifo and policy.queue_order == QueueOrder.FIFO):
        rekey(core)


def drain(engine: Engine, recorder: Recorder, step: Callable[[], int], log_full: int = LOG_FULL) -> int:
    """Call `step` until it stops for another reason than a full log; returns that reason.

    Args:
        engine: whose log is emptied each time it is full.
        recorder: gets what the log holds.
        step: runs the engine on and says why it stopped.
        log_full: what `step` returns when the log is full.
    """
    code = step()
    while code == log_full:
        recorder.empty(engine)
        code = step()
    return code


def run_to(
    engine: Engine,
    recorder: Recorder,
    until_s: float = math.inf,
    *,
    fast_forward: bool = True,
    step: Callable[[], int] | None = None,
) -> bool:
    """Run to the first iteration end at or after a moment; False once every request is finished or rejected.

    Args:
        engine: the engine.
        recorder: gets what its log holds when it is full.
        until_s: clock, seconds.
        fast_forward: skip decisions that must repeat; results are the same bit for bit.
        step: what runs the engine on instead of the kernel, as in `drain`.

    Raises:
        SchedulerError: requests wait and the policy starts none of them.
    """
    code = drain(engine, recorder, step or (lambda: int(run(engine.core, NO_LIMIT, until_s, fast_forward))))
    if code not in (DONE, LIMIT):
        raise SchedulerError(f"nothing can run at {engine.clock_s:.6g} s though requests wait")
    return code != DONE


class Session:
    """A run that somebody outside steers between iterations.

    Args:
        workload: the requests.
        config: the replica.
        policy: the policy to begin with.
        predicted: as in `simulate`.
        record_schedule: as in `simulate`.
        asynchronous: as in `allocate`.
    """

    def __init__(
        self,
        workload: Workload,
        config: EngineConfig,
        policy: Policy,
        predicted: NDArray[np.float64] | None = None,
        *,
        record_schedule: bool = False,
        asynchronous: bool = False,
    ) -> None:
        self.workload = workload
        self.engine = allocate(
            workload, config, policy, predicted, record_schedule=record_schedule, asynchronous=asynchronous
        )
        self.record_schedule = record_schedule
        self.recorder = Recorder()

    @property
    def clock_s(self) -> float:
        """Where the engine's clock stands, seconds."""
        return self.engine.clock_s

    def run(self, until_s: float = math.inf) -> bool:
        """`run_to` of this run's engine."""
        return run_to(self.engine, self.recorder, until_s)

    def install(self, policy: Policy) -> None:
        """`install_policy` on this run's engine."""
        install_policy(self.engine, policy)

    def rekey(self) -> None:
        """Key the queue anew, after what its keys weigh has been changed from outside."""
        rekey(self.engine.core)

    def result(self) -> SimulationResult:
        """What the run leaves behind, once it is over."""
        self.recorder.empty(self.engine)
        return result_of(self.engine, self.workload, self.recorder, self.record_schedule)
