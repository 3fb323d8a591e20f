"""An engine that is stopped now and then, looked at, turned at, and run on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Policy, SimulationResult
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.queue import rekey
from infermax_gym.engine.kernel.run import DONE, LIMIT, LOG_FULL, run
from infermax_gym.engine.layout import KNOBS, WAITING
from infermax_gym.engine.policy import NO_LIMIT, QueueOrder
from infermax_gym.engine.scheduler import SchedulerError
from infermax_gym.engine.simulate import Recorder, result_of
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload

FIXED_KEYS = (QueueOrder.FIFO, QueueOrder.LINEAR)


class Session:
    """A run that somebody outside steers between iterations.

    Args:
        workload: the requests.
        config: the replica.
        policy: the policy to begin with.
        predicted: as in `simulate`.
        record_schedule: as in `simulate`.
    """

    def __init__(
        self,
        workload: Workload,
        config: EngineConfig,
        policy: Policy,
        predicted: NDArray[np.float64] | None = None,
        *,
        record_schedule: bool = False,
    ) -> None:
        self.workload = workload
        self.engine = allocate(workload, config, policy, predicted, record_schedule=record_schedule)
        self.record_schedule = record_schedule
        self._recorder = Recorder()

    def run(self, until_s: float = math.inf) -> bool:
        """Run to the first iteration end at or after a moment; False once every request is finished or rejected.

        Raises:
            SchedulerError: requests wait and the policy starts none of them.
        """
        code = run_engine(self.engine, until_s, self._recorder)
        return code != DONE

    def result(self) -> SimulationResult:
        """What the run leaves behind, once it is over."""
        self._recorder.empty(self.engine)
        return result_of(self.engine, self.workload, self._recorder, self.record_schedule)


def run_engine(engine: Engine, until_s: float, recorder: Recorder) -> int:
    """`run` that empties the log as often as it is full."""
    code = int(run(engine.core, NO_LIMIT, until_s, True))
    while code == LOG_FULL:
        recorder.empty(engine)
        code = int(run(engine.core, NO_LIMIT, until_s, True))
    if code not in (DONE, LIMIT):
        raise SchedulerError(f"nothing can run at {engine.record['clock_s'][0]:.6g} s though requests wait")
    return code


def waiting(engine: Engine) -> NDArray[np.int64]:
    """Numbers of the requests that wait, in order of arrival."""
    arrived = engine.requests["place"][: engine.record["next_arrival"][0]]
    return np.flatnonzero(arrived == WAITING).astype(np.int64)


def adopt(engine: Engine, policy: Policy) -> None:
    """Put another policy in the place of an engine's own; its queue is keyed anew.

    Both must have queue keys that do not move and the engine's token budget.
    """
    core: Any = engine.record
    disband(engine.core)
    for knob in KNOBS:
        core[knob[0]] = getattr(policy, knob[0])
    core["watermark_blocks"] = math.floor(policy.watermark * int(core["num_blocks"][0]))
    most = int(core["list_size"][0]) - 1
    core["max_num_seqs"] = min(policy.max_running or most, most)
    core["run_unsorted"] = 1
    rekey(engine.core)
