"""Ratios to proven optima."""

from __future__ import annotations

from experiments.board.optimality import GOALS, proven, ratio_to_optimum
from infermax_gym.baselines.policies import POLICIES


def test_nobody_beats_a_proven_optimum() -> None:
    for goal in GOALS:
        instances = proven(goal)
        assert len(instances) >= 20
        for name in ("sarathi", "vllm-v1", "spf-headroom", "least-attained-service", "srpt-work-oracle"):
            mean, worst, share = ratio_to_optimum(POLICIES[name], goal, instances)
            assert 1.0 - 1e-9 <= mean <= worst and 0.0 <= share < 1.0
