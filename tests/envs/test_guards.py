"""No call of a user reaches memory that is not its own."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from infermax_gym.envs.knobs.vector import InferMaxKnobsVectorEnv
from infermax_gym.envs.routing.env import InferMaxRouterEnv
from infermax_gym.envs.routing.vector import InferMaxRouterVectorEnv
from infermax_gym.envs.scheduling.env import InferMaxEnv
from infermax_gym.envs.scheduling.vector import InferMaxVectorEnv
from tests.envs.fuzz import Fuzz

IDS = ("InferMax-v0", "InferMaxKnobs-v0", "InferMaxRouter-v0")
VECTORS = (InferMaxVectorEnv, InferMaxKnobsVectorEnv, InferMaxRouterVectorEnv)
CALLS = int(os.environ.get("INFERMAX_FUZZ_CALLS", "4000"))


@pytest.mark.parametrize("seed", [0, 1])
def test_random_calls_do_not_crash(seed: int) -> None:
    counts = Fuzz(seed).run(CALLS)
    assert sum(counts.values()) == CALLS
    for name in ("make", "reset", "step", "set_state", "get_state", "copy", "close"):
        assert counts[name] > 0, counts


@pytest.mark.parametrize("make", VECTORS)
def test_vectors_before_a_reset(make: Any) -> None:
    env = make(2)
    for call in (lambda: env.step(np.zeros(2, int)), env.get_state):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            call()


def test_stable_baselines_form_before_a_reset() -> None:
    from infermax_gym.agents.vec_env import InferMaxVecEnv

    with pytest.raises(gym.error.ResetNeeded):
        InferMaxVecEnv(2).step(np.zeros(2, int))


@pytest.mark.parametrize("make", [InferMaxVectorEnv, InferMaxRouterVectorEnv])
@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(3, int), "actions must have shape (2,), got (3,)"),
        (np.zeros((2, 1), int), "actions must have shape (2,), got (2, 1)"),
        (0, "actions must have shape (2,), got ()"),
        ([0.5, 1.0], "actions are whole numbers, got numbers of type float64"),
        ([np.nan, 1.0], "actions are whole numbers, got numbers of type float64"),
        (["a", "b"], "actions are whole numbers, got numbers of type <U1"),
        (np.array([2**63, 0], np.uint64), "actions are whole numbers of 64 bits"),
        ([None, 0], "an action is a whole number, got None"),
    ],
)
def test_actions_of_vectors(make: Any, actions: Any, message: str) -> None:
    env = make(2, num_requests=5)
    env.reset(seed=0)
    with pytest.raises(ValueError) as caught:
        env.step(actions)
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [InferMaxEnv, InferMaxRouterEnv])
@pytest.mark.parametrize("action", [1.0, np.float32(0), np.nan, "0", None, [0, 1], np.array([0.5]), 2**70])
def test_actions_of_scalars(make: Any, action: Any) -> None:
    env = make(num_requests=9)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action is a whole number"):
        env.step(action)
    for sound in (0, np.int64(0), np.uint8(0), np.array(0), np.array([0]), True):
        env.step(sound)
    _, _, _, _, info = env.step(10**9)
    assert info["num_illegal"] >= 1, "out of range is illegal, and replaced"


@pytest.mark.parametrize(
    "action", [0.0, np.zeros(10), np.full(11, np.nan), np.full(11, np.inf), None, "knobs", [[0.0] * 11]]
)
def test_actions_of_knobs(action: Any) -> None:
    env = gym.make("InferMaxKnobs-v0", num_requests=5).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="an action is 11 finite numbers"):
        env.step(action)


def test_states_of_other_layouts() -> None:
    env = InferMaxEnv(num_requests=5)
    env.reset(seed=0)
    other = InferMaxEnv(num_requests=5, num_waiting_slots=4)
    knobs: Any = gym.make("InferMaxKnobs-v0", num_requests=5).unwrapped
    router = InferMaxRouterEnv(num_requests=5, num_replicas=3)
    for target in (other, knobs, router, InferMaxRouterEnv(num_requests=5)):
        target.reset(seed=0)
        for state in (env.get_state(), None, "state", [env.get_state()]):
            with pytest.raises(ValueError, match="state"):
                target.set_state(state)
    lanes = InferMaxVectorEnv(2, num_requests=5, num_running_slots=3)
    lanes.reset(seed=0)
    for states in ([env.get_state()] * 2, [env.get_state()], None, lanes.get_state()[:1]):
        with pytest.raises(ValueError, match="state"):
            lanes.set_state(states)
    with pytest.raises(ValueError, match="another layout"):
        InferMaxRouterEnv(num_requests=5, num_replicas=4).set_state(router.get_state())
    small = InferMaxEnv(num_requests=50, num_kv_tokens=6_000)
    small.set_state(env.get_state())  # another workload and capacity are part of the state
    assert len(small.run.episode.workload) == 5


@pytest.mark.parametrize("env_id", IDS)
def test_closed_environments(env_id: str) -> None:
    """They have no episode any more, and can begin another."""
    env: Any = gym.make(env_id, num_requests=5).unwrapped
    env.reset(seed=0)
    action = env.action_space.sample()
    env.close()
    env.close()
    for call in (lambda: env.step(action), env.get_state):
        with pytest.raises(gym.error.ResetNeeded):
            call()
    env.reset(seed=0)
    env.step(action)


@pytest.mark.parametrize("make", VECTORS)
def test_closed_vectors(make: Any) -> None:
    env = make(2, num_requests=5)
    env.reset(seed=0)
    states = env.get_state()
    env.close()
    for call in (lambda: env.reset(), lambda: env.step(np.zeros(2, int)), lambda: env.set_state(states)):
        with pytest.raises(gym.error.ClosedEnvironmentError):
            call()


@pytest.mark.parametrize("env_id", IDS)
def test_steps_after_an_end_change_nothing(env_id: str) -> None:
    env: Any = gym.make(env_id, num_requests=5, max_decisions=2).unwrapped
    env.reset(seed=0)
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(env.action_space.sample())
    for _ in range(3):
        _, reward, terminated, _, again = env.step(env.action_space.sample())
        assert (reward, terminated, again["dt_s"], again["clock_s"]) == (0.0, True, 0.0, info["clock_s"])


@pytest.mark.parametrize("env_id", IDS)
def test_copies_and_pickles_step_alone(env_id: str) -> None:
    env: Any = gym.make(env_id, num_requests=8).unwrapped
    env.reset(seed=0)
    action = env.action_space.sample()
    forms = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env]
    rewards = [form.step(action)[1] for form in forms]
    assert rewards[0] == rewards[1] == rewards[2]


@pytest.mark.parametrize("make", VECTORS)
def test_copies_and_closings_wait_for_steps(make: Any) -> None:
    """Threads that copy, save and close while others step get whole episodes or one announced error."""
    env = make(2, num_requests=12, metrics=False)
    env.reset(seed=0)
    action, announced = env.action_space.sample() * 0, (gym.error.ResetNeeded, gym.error.ClosedEnvironmentError)
    copies: list[Any] = []
    faults: list[BaseException] = []

    def repeat(call: Any) -> None:
        try:
            for _ in range(15):
                call()
        except announced:
            pass
        except BaseException as fault:  # told to the main thread
            faults.append(fault)

    calls = [lambda: env.step(action)] * 2 + [lambda: copies.append(copy.deepcopy(env)), env.get_state]
    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads[2:]:
        thread.join()
    env.close()
    for thread in threads:
        thread.join()
    assert not faults and len(copies) == 15
    for one in copies:
        for _ in range(3):
            one.step(action)


@pytest.mark.parametrize("env_id", IDS)
def test_a_pickle_is_independent(env_id: str) -> None:
    env: Any = gym.make(env_id, num_requests=8).unwrapped
    env.reset(seed=0)
    form = pickle.loads(pickle.dumps(env))
    env.close()
    form.step(form.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
