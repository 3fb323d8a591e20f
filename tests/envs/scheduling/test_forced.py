"""`preempt="forced"`: nobody is preempted while RUN at full budget is legal."""

from __future__ import annotations

import numpy as np

from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.testing import random_legal

CONFIG = EnvConfig(num_requests=40, backlog=20, num_kv_tokens=5_000, level_shares=(0.0, 1.0))


def offers(preempt: str) -> tuple[int, int]:
    """Decisions at which somebody may be preempted: those where RUN is legal, and the others."""
    env = InferMaxEnv(CONFIG, flat=True, preempt=preempt, max_decisions=2_000)
    env.reset(seed=0)
    rng, free, forced, done = np.random.default_rng(0), 0, 0, False
    first = env.layout.num_actions - env.layout.num_running_slots
    while not done:
        mask = env.action_masks()
        if mask[first:].any():
            free += bool(mask[1])
            forced += not mask[1]
        _, _, terminated, truncated, _ = env.step(random_legal(mask, env.layout, rng))
        done = terminated or truncated
    return free, forced


def test_preemption_is_offered_only_where_memory_forces_it() -> None:
    free, forced = offers("forced")
    assert free == 0
    assert forced > 0
    assert offers("any")[0] > 0


def test_an_unforced_preemption_is_illegal() -> None:
    env = InferMaxEnv(CONFIG, flat=True, preempt="forced")
    env.reset(seed=0)
    env.step(env.layout.num_chunk_budgets)
    _, _, _, _, info = env.step(1)
    assert info["num_illegal"] == 0
    _, _, _, _, info = env.step(env.layout.num_actions - env.layout.num_running_slots)
    assert info["num_illegal"] == 1
    assert info["finished_by_fallback"] == 0
