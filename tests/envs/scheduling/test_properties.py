"""Random play over hostile configurations keeps every invariant and can always be brought to an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.envs.scheduling.config import EnvConfig
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.testing import check_run, play_random
from tests.engine.strategies import examples
from tests.envs.strategies import hostile_configs

ILLEGAL = -1
MOST_STEPS = 20_000


def bring_to_an_end(env: InferMaxEnv) -> None:
    """Play only actions that the environment replaces: it runs, and admits where nothing runs."""
    for _ in range(MOST_STEPS):
        _, _, terminated, _, info = env.step(ILLEGAL)
        if terminated:
            assert info["metrics"]["num_finished"] + info["metrics"]["num_rejected"] == len(env.run.episode.workload)
            return
    raise AssertionError(f"no end in {MOST_STEPS} steps")


@examples(150)
@given(config=hostile_configs(), seed=st.integers(0, 2**31), illegal_share=st.sampled_from([0.0, 0.0, 0.3]))
def test_hostile_configurations(config: EnvConfig, seed: int, illegal_share: float) -> None:
    env = InferMaxEnv(config, flat=seed % 2 == 0)
    play_random(env, seed=seed, max_steps=60, illegal_share=illegal_share)
    env.reset()
    play_random(env, seed=seed, max_steps=7)
    bring_to_an_end(env)
    check_run(env.run)
