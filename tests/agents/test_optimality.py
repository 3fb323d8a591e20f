"""Ratios to proven optima."""

from __future__ import annotations

from agents.optimality import GOALS, draw, proven, ratio_to_optimum
from baselines.policies import POLICIES


def test_nobody_beats_a_proven_optimum() -> None:
    for goal in GOALS:
        instances = proven(goal, 3, 2.0)
        assert instances
        for name in ("sarathi", "vllm-v1", "spf-headroom", "least-attained-service"):
            mean, worst, share = ratio_to_optimum(POLICIES[name], goal, instances)
            assert 1.0 - 1e-9 <= mean <= worst and 0.0 <= share <= 1.0


def test_instances_are_the_same_every_time() -> None:
    first, second = draw(3), draw(3)
    assert first[0].num_prompt_tokens.tolist() == second[0].num_prompt_tokens.tolist()
    assert first[1].num_kv_tokens == second[1].num_kv_tokens
    assert draw(4)[0].arrival_s.max() == 0.0 < draw(5)[0].arrival_s.max()
