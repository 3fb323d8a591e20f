"""`simulate`: what it refuses."""

from __future__ import annotations

import pytest

from infermax_gym.baselines.table.shares import SPF_SHARE
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import Workload


def test_who_serves_whole_workloads_is_told_to_be_called() -> None:
    workload = Workload([0.0], [10], [2])
    with pytest.raises(TypeError, match=r"Shares has no decide\(view\); if it has play, call that"):
        simulate(workload, EngineConfig(), SPF_SHARE)  # type: ignore[arg-type]
    assert SPF_SHARE.play(workload, EngineConfig()).finished.all()
