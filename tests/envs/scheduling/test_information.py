"""Output lengths stay hidden until they reveal themselves, as the information class says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import RUNNING_FEATURES, WAITING_FEATURES
from infermax_gym.testing import random_legal
from infermax_gym.workload import Workload
from tests.envs.playing import same_observation, small_workload

ENGINE = {"num_kv_tokens": (480, 480), "block_size": 4, "max_num_batched_tokens": 32}
WORKLOAD = replace(small_workload(30, seed=3), num_output_tokens=np.random.default_rng(3).integers(8, 40, 30))


def shuffled(workload: Workload, seed: int) -> Workload:
    """The same requests with their output lengths dealt anew."""
    return replace(workload, num_output_tokens=np.random.default_rng(seed).permutation(workload.num_output_tokens))


def env_of(workload: Workload, information: str, **settings: Any) -> InferMaxEnv:
    return InferMaxEnv(
        workloads=(workload,),
        num_requests=len(workload),
        information=information,  # type: ignore[arg-type]
        **ENGINE,
        **settings,
    )


def num_finished(env: Any) -> int:
    return int(env.run.engine.record["num_finished"][0])


@pytest.mark.parametrize("decide", ["event", "iteration"])
@pytest.mark.parametrize("seed", range(6))
def test_hidden_until_somebody_finishes(seed: int, decide: str) -> None:
    one = env_of(WORKLOAD, "none", decide=decide)
    other = env_of(shuffled(WORKLOAD, seed), "none", decide=decide)
    a, _ = one.reset(seed=seed)
    b, _ = other.reset(seed=seed)
    rng = np.random.default_rng(seed)
    num_steps = 0
    while num_finished(one) == num_finished(other) == 0:
        assert same_observation(a, b)
        action = random_legal(one.action_masks(), one.layout, rng)
        a, reward_a, *_, info_a = one.step(action)
        b, reward_b, *_, info_b = other.step(action)
        num_steps += 1
        if num_finished(one) == num_finished(other) == 0:
            assert reward_a == reward_b and info_a["clock_s"] == info_b["clock_s"]
    assert num_steps >= 3


def test_hidden_from_knobs() -> None:
    one, other = (
        InferMaxKnobsEnv(workloads=(w,), num_requests=len(w), interval_s=0.02, **ENGINE)
        for w in (WORKLOAD, shuffled(WORKLOAD, 1))
    )
    a, _ = one.reset(seed=0)
    b, _ = other.reset(seed=0)
    rng = np.random.default_rng(0)
    num_steps = 0
    while num_finished(one) == num_finished(other) == 0:
        np.testing.assert_array_equal(a, b)
        action = rng.uniform(-1, 1, 11)
        a, *_ = one.step(action)
        b, *_ = other.step(action)
        num_steps += 1
    assert num_steps > 2


@pytest.mark.parametrize("information", ["noisy", "oracle"])
def test_predictions_show(information: str) -> None:
    """A permutation of the lengths is seen at once."""
    a, _ = env_of(WORKLOAD, information).reset(seed=0)
    b, _ = env_of(shuffled(WORKLOAD, 1), information).reset(seed=0)
    column = WAITING_FEATURES.index("predicted_remaining")
    present = a["waiting"][:, 0] == 1.0
    assert (a["waiting"][present, column] != b["waiting"][present, column]).all()


def test_only_the_columns_of_predictions_differ() -> None:
    """The classes differ in one column of each table and in nothing else."""
    envs = [env_of(WORKLOAD, information) for information in ("none", "noisy", "oracle")]
    observations = [env.reset(seed=0)[0] for env in envs]
    rng = np.random.default_rng(0)
    for _ in range(60):
        for table, features in (("waiting", WAITING_FEATURES), ("running", RUNNING_FEATURES)):
            column = features.index("predicted_remaining")
            none, noisy, oracle = (observation[table] for observation in observations)
            present = none[:, 0] == 1.0
            assert (none[:, column] == 0.0).all()
            assert (noisy[present, column] > 0.0).all() and (oracle[present, column] > 0.0).all()
            for other in (noisy, oracle):
                np.testing.assert_array_equal(np.delete(none, column, 1), np.delete(other, column, 1))
        action = random_legal(envs[0].action_masks(), envs[0].layout, rng)
        observations = [env.step(action)[0] for env in envs]


def test_the_oracle_tells_the_truth() -> None:
    env = env_of(WORKLOAD, "oracle")
    observation, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    column = WAITING_FEATURES.index("predicted_remaining")
    for _ in range(40):
        shown = env.run.lane.slots[: env.layout.num_waiting_slots]
        for slot in np.flatnonzero(shown >= 0):
            q = env.run.engine.requests[shown[slot]]
            left = int(q["output"] - q["generated"])
            assert observation["waiting"][slot, column] == np.float32(left / (left + 100.0))
        observation, *_ = env.step(random_legal(env.action_masks(), env.layout, rng))


def test_the_error_process_of_the_predictor() -> None:
    """O exp(sigma Z - sigma^2 / 2), at least 1: the same numbers as the table's noisy policies see with that seed."""
    env = env_of(WORKLOAD, "noisy", prediction_sigma=0.6)
    env.reset(seed=7)
    expected = predictions(POLICIES["sjf-noisy-0.6"], WORKLOAD, seed=7)
    np.testing.assert_array_equal(env.run.episode.predicted, expected)
    exact = env_of(WORKLOAD, "noisy", prediction_sigma=0.0)
    exact.reset(seed=7)
    np.testing.assert_array_equal(exact.run.episode.predicted, WORKLOAD.num_output_tokens)
    env.reset()
    assert not np.array_equal(env.run.episode.predicted, expected), "every episode draws errors of its own"


def test_the_class_does_not_move_other_streams() -> None:
    """Episodes are the same requests whatever is known of them, also the later ones."""
    envs = [InferMaxEnv(num_requests=5, information=information) for information in ("none", "noisy", "oracle")]
    for seed in (0, None, None):
        for env in envs:
            env.reset(seed=seed)
        prompts = [env.run.episode.workload.num_prompt_tokens for env in envs]
        np.testing.assert_array_equal(prompts[0], prompts[1])
        np.testing.assert_array_equal(prompts[0], prompts[2])
