"""The scheduler of ten lines that docs/engine.md shows, against the policy of the table that does the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.engine import BatchBuilder, EngineConfig, Policy, simulate
from infermax_gym.engine.kernel.advance import arrive
from infermax_gym.engine.policy import PhaseOrder, Reserve
from infermax_gym.engine.scheduler import OnlineView, view_of
from infermax_gym.engine.state import allocate
from infermax_gym.workload import Workload
from tests.engine.same import same_result
from tests.engine.strategies import examples, workloads

DOCS = Path(__file__).parents[2] / "docs" / "engine.md"
SAME = Policy("same", phase_order=PhaseOrder.ONE_LIST, reserve=Reserve.CHUNK, admit_after_preemption=False)


def documented() -> Any:
    """The class `MyFcfs` as the page has it."""
    block = re.search(r"```python\n((?:(?!```).)*?class MyFcfs.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    return names["MyFcfs"]()


@examples(300)
@given(
    workload=workloads(),
    blocks=st.integers(1, 60),
    block_size=st.sampled_from([1, 4, 16]),
    budget=st.sampled_from([1, 3, 16, 64]),
    seqs=st.sampled_from([1, 2, 5, 64]),
)
def test_ten_lines_do_what_the_policy_does(
    workload: Workload, blocks: int, block_size: int, budget: int, seqs: int
) -> None:
    config = EngineConfig(
        num_kv_tokens=blocks * block_size, block_size=block_size, max_num_batched_tokens=budget, max_num_seqs=seqs
    )
    ours = simulate(workload, config, documented(), record_schedule=True)
    table = simulate(workload, config, SAME, record_schedule=True)
    assert ours.schedule == table.schedule
    same_result(ours, table)


def view() -> OnlineView:
    """Two requests that wait, room for one."""
    config = EngineConfig(num_kv_tokens=64, block_size=16, max_num_batched_tokens=20, max_num_seqs=2)
    workload = Workload(np.zeros(2), [30, 50], [4, 4])
    engine = allocate(workload, config, SAME)
    arrive(engine.core)
    return view_of(engine)


def test_the_budget_runs_out() -> None:
    batch = BatchBuilder(view())
    assert batch.admit(0)
    assert (batch.tokens_left, batch.free_blocks, batch.num_running) == (0, 2, 1)
    assert not batch.admit(1)
    assert batch.decision().batch == [(0, 20)]


def test_nobody_is_preempted_who_does_not_run() -> None:
    batch = BatchBuilder(view())
    with pytest.raises(ValueError, match="request 1 cannot be preempted: it must run"):
        batch.preempt(1)
