"""Policies with knobs of one's own, as typed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cli.errors import InputError
from infermax_gym.cli.inputs import policy
from tests.cli.conftest import Command


def test_knobs_are_set() -> None:
    found = policy("vllm+watermark=0.02+max_running=8+hybrid=false")
    expected = replace(POLICIES["vllm"], name="vllm+watermark=0.02+max_running=8+hybrid=false")
    assert found == replace(expected, watermark=0.02, max_running=8, hybrid=False)
    assert policy("vllm-v1-full-isl+watermark=0.05") == replace(
        POLICIES["vllm-watermark"], name="vllm-v1-full-isl+watermark=0.05"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vllm+watermrk=0.1", "policy 'vllm+watermrk=0.1': unknown knob 'watermrk'; did you mean 'watermark'?"),
        ("vllm+queue_order=1", "unknown knob 'queue_order'; expected a number or a switch of docs/policies.md"),
        ("vllm+watermark", "watermark must be a number, got ''"),
        ("vllm+max_running=2.5", "max_running must be a whole number, got '2.5'"),
        ("vllm+hybrid=no", "hybrid must be true or false, got 'no'"),
        ("vllm+watermark=2", r"watermark must be in [0, 1), got 2.0"),
        ("rollout+watermark=0.1", "'rollout' has no knobs; it is no policy of the table"),
        ("vlm+watermark=0.1", "did you mean"),
    ],
)
def test_mistakes_have_a_line(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        policy(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_they_compare(command: Command, trace: Path) -> None:
    names = "vllm,vllm+watermark=0,vllm-watermark,vllm+watermark=0.05"
    out = command("bench", "--workload", trace, "--policies", names, "--kv-tokens", 1000, "--json").out
    rows = {name: row["makespan_s"] for name, row in json.loads(out)["policies"].items()}
    assert list(rows) == names.split(",")
    assert rows["vllm"] == rows["vllm+watermark=0"]
    assert rows["vllm-watermark"] == rows["vllm+watermark=0.05"]
