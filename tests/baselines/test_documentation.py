"""The page of all policies says what the table says."""

from __future__ import annotations

import re

import pytest

from experiments.facts import document_policies
from experiments.studies import compare_schedulers
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Policy


def test_the_page_is_up_to_date() -> None:
    assert document_policies.main(["--check"]) == 0, "run python -m experiments.facts.document_policies"


def test_settings_name_what_differs() -> None:
    assert document_policies.settings_of(Policy("plain")) == []
    assert document_policies.settings_of(Policy("x", hybrid=False, watermark=0.25, max_running=3)) == [
        "no hybrid",
        "watermark 0.25",
        "B 3",
    ]
    aging = document_policies.settings_of(POLICIES["spf-aging-headroom"])
    assert "queue key 20 arrival_s + num_known_tokens" in aging
    assert "victim key -1 num_processed_tokens" in aging


def test_the_comparison_has_everybody() -> None:
    pytest.importorskip("safetensors", reason="needs the extra agents")
    text = compare_schedulers.page((0,), 12)
    assert all(f"| `{name}` |" in text for name in compare_schedulers.compared())
    assert not re.search(r"\{[A-Z]+\}| nan \|", text)
