"""Waiting slots that are kept up to date are those that a search of the whole queue gives, ties included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.engine.policy import LengthEstimate, QueueOrder, Reserve
from infermax_gym.envs.scheduling.config import BASE
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.waiting import show_waiting
from infermax_gym.testing import random_legal

BASES = {
    "default": BASE,
    "first come": replace(BASE, queue_order=QueueOrder.FIFO),
    "whole lengths": replace(BASE, reserve=Reserve.TOTAL_ESTIMATE, estimate=LengthEstimate.BOUND),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("lengths", "num_slots"), [("uniform:4,8,1", 5), ("azure-conv", 2), ("azure-conv", 16)])
def test_slots_kept_up_to_date_are_those_of_a_search(base: str, lengths: str, num_slots: int) -> None:
    """The first kind of traffic has five lengths, so that most keys are equal."""
    env = InferMaxEnv(
        base=BASES[base], workloads=lengths, num_requests=80, num_kv_tokens=9_000, num_waiting_slots=num_slots
    )
    rng = np.random.default_rng(0)
    env.reset(seed=1, options={"backlog": 60})
    most_waiting = 0
    for _ in range(400):
        mask = env.action_masks()
        _, _, terminated, truncated, _ = env.step(random_legal(mask, env.layout, rng))
        if terminated or truncated:
            break
        again = env.run.copy()
        again.lane.record["listed_waiting"] = -1  # nothing that it noted counts
        show_waiting(again.engine.core, again.lane.core)
        assert again.lane.slots.tolist() == env.run.lane.slots.tolist()
        shown = int(env.run.lane.record["num_waiting_shown"][0])
        assert again.lane.needs[:shown].tolist() == env.run.lane.needs[:shown].tolist()
        most_waiting = max(most_waiting, int(env.run.engine.record["num_waiting"][0]))
    assert most_waiting > num_slots + 16, "longer than the lists"
