"""`infermax bound`: below every policy, and more than any of them has in time."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Command

ENGINE = ("--kv-tokens", 1000, "--max-num-batched-tokens", 128, "--slo", "ttft=0.2")


def test_no_policy_beats_it(command: Command, trace: Path) -> None:
    runs = json.loads(
        command("bench", "--workload", trace, *ENGINE, "--policies", "vllm-v1,spf-headroom", "--json").out
    )
    for objective, figure in (("makespan", "makespan_s"), ("latency", "latency_s")):
        found = json.loads(command("bound", "--workload", trace, *ENGINE, "--objective", objective, "--json").out)
        assert found["objective"] == objective and 0 <= found["most_in_time"] <= found["num_requests"]
        for run in runs["policies"].values():
            value = run[figure] if objective == "makespan" else run[figure]["mean"]
            assert found["lower_bound_s"] <= value
            assert found["busy_s"] <= run["busy_s"]


def test_text(command: Command, trace: Path) -> None:
    plain = command("bound", "--workload", trace, *ENGINE[:4])
    limited = command("bound", "--workload", trace, *ENGINE)
    assert plain.code == limited.code == 0
    assert "no schedule has a makespan below" in plain.out and "in time" not in plain.out
    assert "requests their first token in time" in limited.out


def test_a_limit_on_the_first_token_is_needed(command: Command, trace: Path) -> None:
    result = command("bound", "--workload", trace, "--slo", "tpot=0.1")
    assert result.code == 2 and "add ttft=S" in result.err and len(result.err.strip().splitlines()) == 1
