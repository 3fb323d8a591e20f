"""The map of schedulers: whom it names, and when a gain counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.studies import scheduler_map
from experiments.studies.scheduler_map import Place


def _figures(**latencies: list[float]) -> scheduler_map.Figures:
    """Figures of policies by mean latency; goodput is its inverse."""
    named = {name.replace("_", "-"): values for name, values in latencies.items()}
    return {"mean latency": named, "goodput": {name: [1.0 / v for v in values] for name, values in named.items()}}


def test_of_two_that_are_level_the_one_that_is_there_already_is_named() -> None:
    figures = _figures(vllm=[10.0] * 6, sarathi=[8.04] * 6, spf_share=[8.0] * 6, hrrn=[9.0] * 6)
    for objective in scheduler_map.OBJECTIVES:
        assert scheduler_map.winner(objective, figures, 2).name == "sarathi"


def test_a_lucky_policy_is_measured_on_other_draws() -> None:
    figures = _figures(vllm=[10.0, 10.0, 9.0, 10.0, 11.0], spf_share=[2.0, 2.0, 9.9, 10.1, 10.0])
    found = scheduler_map.winner("mean latency", figures, 2)
    assert found.name == "spf-share"
    assert not found.clear
    assert found.ratio.value == pytest.approx((9.9 / 9.0 * 10.1 / 10.0 * 10.0 / 11.0) ** (1 / 3))


def test_goodput_is_a_gain_over_the_default() -> None:
    found = scheduler_map.winner("goodput", _figures(vllm=[4.0, 4.0, 6.0, 8.0], hrrn=[2.0, 2.0, 3.0, 4.0]), 2)
    assert (found.name, found.kind, found.clear) == ("hrrn", "published", True)
    assert found.ratio.value == pytest.approx(2.0)


def test_a_gpu_that_the_table_lacks_is_estimated_and_a_scenario_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("llama-3.1-8b@rtx-4090", "code", 1.2)
    who = {name: scheduler_map.QUICK[name] for name in ("vllm", "spf-share")}
    found = scheduler_map.measure(place, who, 1)
    assert found["mean latency"]["spf-share"] < found["mean latency"]["vllm"]
    ttft_s, tpot_s = scheduler_map.limits_s("llama-3.1-8b@rtx-4090", "code")
    assert 0.0 < tpot_s < ttft_s


def test_the_map_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = _figures(vllm=[4.0, 4.0, 6.0, 8.0], hrrn=[2.0, 2.0, 3.0, 4.0])
    tile = scheduler_map.winner("goodput", figures, 2)
    path = tmp_path / "map.svg"
    scheduler_map.draw(path, {"goodput": [[tile]]}, [("chat", 0.9)], ["qwen3-8b@l40s"])
    assert "</svg>" in path.read_text(encoding="utf-8")
