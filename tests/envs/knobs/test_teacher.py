"""A policy of the table as the knobs of `InferMaxKnobs-v0`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infermax_gym.engine import simulate
from infermax_gym.engine.policy import QueueOrder, Victim, queue_weights, victim_weights
from infermax_gym.engine.recorder import result_of
from infermax_gym.envs.knobs.config import BASE
from infermax_gym.envs.knobs.env import InferMaxKnobsEnv
from infermax_gym.envs.knobs.layout import Knob, policy_of
from infermax_gym.envs.knobs.teacher import KnobsTeacher

POLICY = replace(
    BASE,
    name="mixed",
    queue_weights=queue_weights(num_known_tokens=2.0, arrival_s=3.0),
    victim_weights=victim_weights(arrival_s=1.0),
    headroom_tokens=27.0,
    max_running=20,
    prefill_share=0.5,
)


def test_the_episode_is_the_policys_own_run() -> None:
    env = InferMaxKnobsEnv(num_requests=120, num_kv_tokens=9_000, interval_s=1.0)
    env.reset(seed=3)
    teacher = KnobsTeacher(POLICY, env.config.max_num_seqs)
    done = False
    while not done:
        _, _, terminated, truncated, _ = env.step(teacher.action())
        done = terminated or truncated
    run = env.run
    run.recorder.empty(run.engine)
    played = result_of(run.engine, run.episode.workload, run.recorder, False)
    kernel = simulate(run.episode.workload, run.episode.engine, teacher.policy)
    np.testing.assert_array_equal(played.finish_s, kernel.finish_s)
    assert played.num_preemptions == kernel.num_preemptions


def test_knobs_and_policies_are_one_another() -> None:
    again = policy_of(KnobsTeacher(POLICY, 256).action(), 256)
    assert again.max_running == 20 and again.prefill_share == pytest.approx(0.5)
    assert again.headroom_tokens == pytest.approx(27.0)
    scaled = [np.array(weights) / max(weights) for weights in (again.queue_weights, POLICY.queue_weights)]
    np.testing.assert_allclose(*scaled)
    action = np.zeros(len(Knob))
    action[Knob.AGING] = 0.5
    assert policy_of(action, 256).queue_weights == queue_weights(arrival_s=0.05)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"queue_order": QueueOrder.FIFO}, "knobs express a linear queue key and a victim key"),
        ({"victim": Victim.LIST_TAIL}, "knobs express a linear queue key and a victim key"),
        ({"queue_weights": queue_weights(priority=1.0)}, "no knob weighs 'priority'"),
        ({"headroom_tokens": 5_000.0}, "lies outside what knobs can express"),
        ({"prefill_share": 0.01}, "lies outside what knobs can express"),
    ],
)
def test_what_knobs_cannot_express(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnobsTeacher(replace(POLICY, **changed), 256)  # type: ignore[arg-type]
