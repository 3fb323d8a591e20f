"""Learning depends on what docs/agents.md says it depends on: each test fails where that is switched off.

Seen by hand: with `tau_s=None` in `TIMED` the first test fails, with `base_rollout=None` for both learners the second,
    with
masks of ones for the learner the third one does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from experiments.breeding.breeds import BREEDS, Breed
from experiments.breeding.controller_search import ControllerSearch
from experiments.breeding.tasks import Task
from infermax_gym.agents.evolution import minimise
from infermax_gym.agents.ppo import PLAIN, PpoSettings, make_ppo
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.agents.training import train_ppo
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.envs.scheduling.config import EnvConfig

CONFIG = EnvConfig(
    base=POLICIES["spf-headroom"],
    num_requests=30,
    backlog=(20, 30),
    num_kv_tokens=(10_000, 10_000),
    level_shares=(1.0,),
    num_waiting_slots=6,
    num_running_slots=4,
    decide="iteration",
)
SLICES = trace_slices(TrainingScenario(num_requests=50, num_kv_tokens=10_000, time_scale=0.5), 3, split=TRAIN, seed=5)
TIMED = replace(PLAIN, num_lanes=16, num_steps=128, lambda_tau_s=20.0)
SHORT = PpoSettings(ahead_s=0.0, learning_rate=1.5e-3)
"""For a dozen updates: the learner that looks at a decision's own gain alone bears larger steps."""

BY_DECISION = replace(TIMED, tau_s=None, gamma=0.8)


def trained(settings: PpoSettings, num_updates: int) -> tuple[float, int]:
    """Mean latency of the last network in seconds, and illegal actions of all lanes' present episodes."""
    torch.set_num_threads(1)
    lanes = InferMaxVecEnv(settings.num_lanes, CONFIG, seed=1)
    model = make_ppo(lanes, settings, seed=1)
    count = settings.num_lanes * settings.num_steps * num_updates
    _, progress = train_ppo(model, CONFIG, SLICES, num_decisions=count, every=num_updates)
    illegal = sum(int(run.lane.record["num_illegal"][0]) for run in lanes.lanes.runs)
    return progress.curve[-1][3], illegal


def test_discounting_by_decision_learns_to_stall() -> None:
    """With a constant discount per decision it pays to push work beyond the horizon by many cheap decisions."""
    timed, _ = trained(TIMED, 12)
    by_decision, _ = trained(BY_DECISION, 12)
    assert timed < 0.75 * by_decision


def test_base_policy_rollouts_show_what_actions_are_worth() -> None:
    """Ten updates are enough with them; plain rewards drown in the noise of the traffic."""
    torch.set_num_threads(1)
    config = CONFIG.changed(decide="change", admit_within_budget=True, num_requests=60, backlog=(10, 30))
    curves = []
    for settings in (SHORT, PLAIN):
        small = replace(settings, num_lanes=16, num_steps=128)
        lanes = InferMaxVecEnv(16, config, seed=1, base_rollout=small.shaping())
        model = make_ppo(lanes, small, seed=1)
        _, progress = train_ppo(model, config, SLICES, num_decisions=16 * 128 * 10, every=5)
        curves.append([row[3] for row in progress.curve])
    shaped, plain = curves
    assert shaped[-1] < 0.95 * shaped[0]
    assert shaped[-1] < 0.95 * plain[-1]


def test_masks_keep_learning_to_what_is_legal() -> None:
    _, illegal = trained(TIMED, 2)
    assert illegal == 0


def small_breed() -> ControllerSearch:
    plan = Breed("tiny", BREEDS["knobs"].objective, "mean", num_slices=1, stride=1)
    held = trace_slices(TrainingScenario("reasoning", 40, 0.6, 20_000), 1, split=TRAIN)
    rival = [simulate(w.workload, w.engine, POLICIES["sarathi"]) for w in held]
    return ControllerSearch(plan, [Task(held, rival, "")])


def test_breeding_improves_and_repeats_itself() -> None:
    found = []
    for _ in range(2):
        search = small_breed()
        start = np.zeros(len(search.knobs) * (1 + len(search.features)))
        found.append(
            (minimise(search.loss, start, seed=2, spread=0.2, population=8, generations=4), search.loss(start))
        )
    (first, begun), (second, _) = found
    assert first.loss < begun
    np.testing.assert_array_equal(first.best, second.best)
    np.testing.assert_array_equal(first.mean, second.mean)


def test_controllers_and_vectors_are_the_same() -> None:
    search = small_breed()
    vector = np.random.default_rng(0).normal(0.0, 0.1, len(search.knobs) * (1 + len(search.features)))
    np.testing.assert_allclose(search.vector(search.controller(vector)), vector, atol=1e-6)
