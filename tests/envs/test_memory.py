"""What an environment holds on to: nothing of the episodes that have ended."""

from __future__ import annotations

import gc
import tracemalloc

from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv


def _play(env: InferMaxVectorEnv, num_steps: int) -> int:
    """How many episodes end."""
    ended = 0
    for _ in range(num_steps):
        _, _, terminated, _, _ = env.step(env.action_masks().argmax(axis=1))
        ended += int(terminated.sum())
    return ended


def test_ended_episodes_are_let_go() -> None:
    tracemalloc.start()
    try:
        env = InferMaxVectorEnv(2, metrics=False, num_requests=5, max_decisions=8)
        env.reset(seed=0)
        _play(env, 50)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        num_ended = _play(env, 200)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert num_ended > 20
    assert grown < env.runs[0].engine.arrays["gaps"].nbytes  # a single episode that stays would be seen
