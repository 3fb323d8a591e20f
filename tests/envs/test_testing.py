"""`play_random` plays every variant, and notices environments that break their contract."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.engine import InvariantError
from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.layout import ActionLayout, Kind
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from infermax_gym.testing import KIND_SHARES, PlayError, play_random, random_legal

PRESETS = ("azure-conv", "azure-code", "reasoning", "rollouts", "mixed", "long-document")
SHORT = {"num_requests": 25, "num_kv_tokens": (9_000, 30_000), "max_decisions": 1_000}


@pytest.mark.parametrize("workload", PRESETS)
@pytest.mark.parametrize("information", ["none", "noisy", "oracle"])
def test_thousands_of_random_steps(workload: str, information: str) -> None:
    settings: dict[str, Any] = {**SHORT, "workloads": (workload,), "information": information, "backlog": (0, 20)}
    seed = PRESETS.index(workload)
    played = play_random(InferMaxEnv(**settings), seed=seed, max_steps=400, illegal_share=0.05)
    assert played.num_steps == 400 and played.num_illegal > 0
    played = play_random(InferMaxEnv(flat=True, decide="iteration", **settings), seed=seed, max_steps=400)
    assert played.num_illegal == 0
    played = play_random(InferMaxVectorEnv(3, **settings), seed=seed, max_steps=150)
    assert played.num_steps == 450


def test_wrapped_environments() -> None:
    env = gym.make("InferMax-v0", **SHORT)
    played = play_random(gym.wrappers.RecordEpisodeStatistics(env), seed=0, max_steps=1_500)
    assert played.num_episodes > 0 and len(played.terminated) == played.num_episodes
    assert all(metrics["num_requests"] == 25 for metrics in played.metrics)
    played = play_random(gym.make_vec("InferMax-v0", num_envs=2, **SHORT), seed=0, max_steps=700)
    assert played.num_episodes > 0


@pytest.mark.parametrize("information", ["none", "oracle"])
def test_knobs(information: str) -> None:
    env = gym.make("InferMaxKnobs-v0", num_requests=80, interval_s=2.0, information=information)
    played = play_random(env, seed=0, max_steps=200)
    assert played.num_episodes > 0 and all(played.terminated)


def test_options_reach_every_episode() -> None:
    played = play_random(InferMaxEnv(), seed=0, max_steps=300, options={"num_requests": 3})
    assert {metrics["num_requests"] for metrics in played.metrics} == {3}
    played = play_random(InferMaxVectorEnv(2), seed=0, max_steps=100, options={"num_requests": 3})
    assert played.metrics[0]["num_requests"] == 3


def test_reproducible() -> None:
    one, other = (play_random(InferMaxEnv(**SHORT), seed=5, max_steps=300) for _ in range(2))
    assert one == other
    assert play_random(InferMaxEnv(**SHORT), seed=6, max_steps=300).total_reward != one.total_reward


def test_random_legal() -> None:
    layout = ActionLayout(2, 3, 4)
    mask = np.array([1, 0, 1, 1, 0, 0, 1, 1, 1], np.int8)
    rng = np.random.default_rng(0)
    drawn = np.array([random_legal(mask, layout, rng) for _ in range(6_000)])
    assert set(drawn) == set(np.flatnonzero(mask))
    kinds = np.bincount([layout.decode(int(action))[0] for action in drawn]) / len(drawn)
    np.testing.assert_allclose(kinds, KIND_SHARES, atol=0.03)
    only = np.array([0, 0, 0, 0, 0, 0, 0, 1, 0], np.int8)
    assert {random_legal(only, layout, rng) for _ in range(20)} == {7}
    assert layout.decode(7)[0] == Kind.PREEMPT
    illegal = {random_legal(mask, layout, rng, illegal_share=1.0) for _ in range(200)}
    assert illegal == set(np.flatnonzero(mask == 0))
    assert random_legal(np.ones(9, np.int8), layout, rng, illegal_share=1.0) in range(9)


# Environments with a fault each.


class WithoutLegalAction(InferMaxEnv):
    def action_masks(self) -> Any:
        masks = super().action_masks()
        return masks & (self.run.lane.record["num_decisions"][0] < 20)


class OutsideItsSpace(InferMaxEnv):
    def _observation(self) -> Any:
        observation = super()._observation()
        observation["engine"] = observation["engine"] + 2.0
        return observation


class WithAnotherMask(InferMaxEnv):
    def _observation(self) -> Any:
        observation = super()._observation()
        observation["action_mask"] = 1 - observation["action_mask"]
        return observation


class WithoutReward(InferMaxEnv):
    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest


class WithAnotherClock(InferMaxEnv):
    def _info(self) -> Any:
        return {**super()._info(), "dt_s": -1.0}


class Forgetful(InferMaxEnv):
    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        info.pop("metrics", None)
        return *rest, info


class Hasty(InferMaxEnv):
    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, True, False, {**info, "metrics": {**METRICS, "num_finished": 1}}


class Refusing(InferMaxEnv):
    def step(self, action: Any) -> Any:
        return super().step(-1)


METRICS = {"num_requests": 25, "num_finished": 0, "num_rejected": 0}


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (WithoutLegalAction, "step 20: no action is legal"),
        (OutsideItsSpace, "step 0: the observation is outside its space"),
        (WithAnotherMask, "step 0: the observation has another mask"),
        (WithoutReward, "step 0: the reward is nan"),
        (WithAnotherClock, "step 0: dt_s is -1.0, the clock "),
        (Forgetful, "the episode ended without metrics"),
        (Hasty, "step 0: terminated with 1 of 25 requests done"),
        (Refusing, "step 0: 1 actions counted illegal, 0 were"),
    ],
)
def test_faults_are_found(faulty: type[InferMaxEnv], message: str) -> None:
    with pytest.raises(PlayError) as caught:
        play_random(faulty(**SHORT), seed=0, max_steps=2_000)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    play_random(InferMaxEnv(**SHORT), seed=0, max_steps=20)


def test_broken_invariants_are_found() -> None:
    env = InferMaxEnv(**SHORT)

    class Leaking(InferMaxEnv):
        def step(self, action: Any) -> Any:
            self.run.engine.record["free_blocks"] -= 1
            return super().step(action)

    with pytest.raises(InvariantError, match="invariant 2"):
        play_random(Leaking(**SHORT), seed=0, max_steps=20)
    play_random(env, seed=0, max_steps=20, check=False)


def test_faults_of_lanes_are_found() -> None:
    class Faulty(InferMaxVectorEnv):
        def step(self, actions: Any) -> Any:
            observation, rewards, *rest = super().step(actions)
            rewards[1] = np.inf
            return observation, rewards, *rest

    with pytest.raises(PlayError, match="step 0: the reward is inf"):
        play_random(Faulty(2, **SHORT), seed=0, max_steps=3)


def test_knobs_env_is_not_masked() -> None:
    assert not hasattr(InferMaxKnobsEnv, "action_masks")
