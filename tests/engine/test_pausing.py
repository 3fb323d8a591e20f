"""Paused prefills idle and keep their KV; where nobody else can run, they go on."""

from __future__ import annotations

import numpy as np

from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.kernel.evict import preempt
from infermax_gym.engine.kernel.run import DONE, LIMIT, run
from infermax_gym.engine.state import Engine, allocate
from infermax_gym.workload import Workload

CONFIG = EngineConfig(num_kv_tokens=4_000, max_num_batched_tokens=100)


def begun(workload: Workload, num_iterations: int) -> Engine:
    engine = allocate(workload, CONFIG, Policy("fcfs"), None)
    assert run(engine.core, num_iterations, np.inf, True) == LIMIT
    return engine


def test_another_prefill_overtakes_it() -> None:
    engine = begun(Workload([0.0, 0.0], [900, 250], [3, 3]), 2)
    assert engine.requests["computed"].tolist() == [200, 0]
    held = engine.requests["held"][0]
    engine.requests["paused"][0] = 1
    assert run(engine.core, 3, np.inf, True) == LIMIT
    assert engine.requests["computed"][0] == 200 and engine.requests["held"][0] == held > 0
    assert engine.requests["generated"][1] == 1
    engine.requests["paused"][0] = 0
    assert run(engine.core, 1, np.inf, True) == LIMIT
    assert engine.requests["computed"][0] > 200


def test_it_goes_on_where_nobody_else_can_run() -> None:
    engine = begun(Workload([0.0, 500.0], [900, 250], [3, 3]), 2)
    engine.requests["paused"][0] = 1
    assert run(engine.core, 1_000, np.inf, True) == DONE
    assert engine.requests["paused"][0] == 0 and engine.requests["finish_s"][0] < 500.0


def test_who_is_preempted_does_not_come_back_paused() -> None:
    engine = begun(Workload([0.0], [900], [3]), 2)
    engine.requests["paused"][0] = 1
    preempt(engine.core, 0)
    assert engine.requests["paused"][0] == 0
    assert run(engine.core, 1_000, np.inf, True) == DONE
