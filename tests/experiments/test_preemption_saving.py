"""The study of what preemption saves: its tables on a few numbers, and one problem of each cheap kind."""

from __future__ import annotations

import pytest

from experiments.studies import preemption_saving
from experiments.studies.preemption_saving import Certified, Today


def test_memory_is_a_multiple_of_the_longest_request() -> None:
    instance = Certified("llama-3.1-8b@h100", "short prompts, equal outputs", 2.0, 0).instance()
    assert {request.peak_tokens for request in instance.requests} == {64 + 512 - 1}
    assert instance.kv_tokens == 2 * 575
    assert len(instance) == 24


def test_what_was_found_lies_between_what_is_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(preemption_saving.MIXES, "tiny", ((4, 0.0), (12, 0.5)))
    found = Certified("llama-3.1-8b@h100", "tiny", 1.1, 0).run(30)
    assert 0.0 <= found["at_least"] <= found["found"] <= found["at_most"] < 1.0


def test_a_backlog_of_today_is_served_by_all_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption_saving, "TODAY_REQUESTS", 60)
    found = Today("qwen3-8b@l40s", "reasoning", 0.05, 0).run(0)
    assert list(found) == list(preemption_saving.TODAY_POLICIES)
    assert found["vllm"][1] > 0
    assert all(found[name][1] == 0 for name in found if name != "vllm")
    assert found["vllm"][0] < found["trt-no-evict"][0]
