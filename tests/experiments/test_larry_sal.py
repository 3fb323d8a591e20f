"""The study of LARRY and SAL."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.studies import larry_sal
from experiments.studies.larry_sal import Place


def test_a_ratio_is_geometric_over_engines_and_paired_by_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(larry_sal, "ENGINES", ("a", "b"))
    base = [[1.0, 5.0], [10.0, 5.0], [100.0, 5.0]]
    runs = {
        Place("engine", "a", "chat", 0.9).key: {"vllm": base, "larry": [[ttft * 0.5, 5.0] for ttft, _ in base]},
        Place("engine", "b", "chat", 0.9).key: {"vllm": base, "larry": [[ttft * 0.125, 5.0] for ttft, _ in base]},
    }
    ratio = larry_sal.against_base(runs, "engine", "larry", "chat", 0.9, "TTFT")
    np.testing.assert_allclose((ratio.value, ratio.low, ratio.high), 0.25)
    assert larry_sal.against_base(runs, "engine", "larry", "chat", 0.9, "latency").value == pytest.approx(1.0)


def test_a_fleet_gets_its_replicas_share_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(larry_sal, "REQUESTS", 40)
    monkeypatch.setattr(larry_sal, "capacity_per_s", lambda engine, traffic: 2.0)
    place = Place("fleet", "qwen3-8b@l40s", "chat", 0.9)
    workload = place.workload(0)
    assert len(workload) == 160
    assert 159 / workload.arrival_s[-1] == pytest.approx(0.9 * 4 * 2.0, rel=0.02)
    ttft_s, latency_s = larry_sal.contenders("fleet")["sal"](place, 0)
    assert 0.0 < ttft_s < latency_s
