"""The pictures of the concepts: drawn, and what one of them shows."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from experiments.studies import draw_concepts


def test_all_are_drawn(tmp_path: Path) -> None:
    draw_concepts.main(["--out", str(tmp_path)])
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(draw_concepts.PICTURES)
    assert all("</svg>" in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_the_preempted_request_is_computed_again() -> None:
    requests = [(0.0, 64, 70), (0.05, 80, 60), (0.1, 48, 40), (0.15, 96, 30)]
    run = draw_concepts._run("vllm-0.13", requests, num_kv_tokens=352, max_num_batched_tokens=512, max_model_len=256)
    assert {stay[0] for stay in draw_concepts._stays(run) if stay[3] == draw_concepts.REFILL} == {2}
    assert run.num_preemptions_of.tolist() == [0, 0, 1, 0]
