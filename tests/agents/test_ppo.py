"""PPO: one seed gives one result, also across an interruption, and learning goes the right way."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from infermax_gym.agents.checkpoint import load_checkpoint
from infermax_gym.agents.ppo import PpoSettings, TimedPPO, make_ppo, mean_latency_s, network_of
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.agents.training import train_ppo
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.envs.scheduling.config import EnvConfig

CONFIG = EnvConfig(
    base=POLICIES["spf-headroom"],
    num_requests=60,
    backlog=(0, 30),
    num_kv_tokens=(10_000, 10_000),
    level_shares=(1.0,),
    num_waiting_slots=6,
    num_running_slots=4,
)
BAD = {"num_lanes": 0, "learning_rate": 0.0, "tau_s": -1.0, "ahead_s": math.inf, "entropy": -1e-3, "gamma": 1.5}
SMALL = PpoSettings(num_lanes=4, num_steps=64, batch_size=64, epochs=2)
SLICES = trace_slices(TrainingScenario(num_requests=40, num_kv_tokens=10_000), 2, split=TRAIN, seed=5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def model(settings: PpoSettings = SMALL, seed: int = 3) -> TimedPPO:
    lanes = InferMaxVecEnv(settings.num_lanes, CONFIG, seed=seed, base_rollout=settings.shaping())
    return make_ppo(lanes, settings, seed=seed)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in a.state_dict().items())


@pytest.mark.parametrize("base_rollout", [False, True])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, base_rollout: bool) -> None:
    settings = replace(SMALL, base_rollout=base_rollout)
    whole = model(settings)
    _, progress = train_ppo(whole, CONFIG, SLICES, num_decisions=6 * 256, every=2)
    path = tmp_path / "checkpoint"
    broken = model(settings)

    def interrupt(progress: object) -> None:
        if broken.num_timesteps >= 5 * 256:
            raise KeyboardInterrupt

    _ = train_ppo(broken, CONFIG, SLICES, num_decisions=6 * 256, every=2, checkpoint=path, report=interrupt)
    resumed = model(settings)
    np.random.seed(0)  # noqa: NPY002 - whatever state the new process has
    before = load_checkpoint(path, resumed)
    assert before.num_updates == 4
    _, after = train_ppo(resumed, CONFIG, SLICES, num_decisions=6 * 256, every=2, progress=before)
    assert same(network_of(whole), network_of(resumed))
    assert [row[0] for row in progress.curve] == [row[0] for row in after.curve]
    assert progress.best_loss == after.best_loss


def test_ten_seconds_of_training_help() -> None:
    settings = replace(SMALL, num_lanes=16, num_steps=128, batch_size=512, epochs=4)
    learner = model(settings)
    before = np.mean(np.log(mean_latency_s(network_of(learner), CONFIG, SLICES)))
    _, progress = train_ppo(learner, CONFIG, SLICES, num_decisions=12 * 2048, every=4)
    assert progress.best_loss < before - 0.1


@pytest.mark.parametrize("name", BAD)
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        replace(SMALL, **{name: BAD[name]})  # type: ignore[arg-type]
