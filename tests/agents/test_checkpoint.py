"""Checkpoints hold where training stood, and reading somebody else's runs no code."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

import train
from infermax_gym.agents import AgentError
from infermax_gym.agents.checkpoint import FILE, Progress, load_checkpoint, save_checkpoint
from infermax_gym.agents.ppo import PLAIN, TimedPPO, make_ppo
from infermax_gym.agents.vec_env import InferMaxVecEnv
from infermax_gym.envs.scheduling.config import EnvConfig

CONFIG = EnvConfig(num_requests=12, num_kv_tokens=6_000, num_waiting_slots=4, num_running_slots=3)
SETTINGS = replace(PLAIN, num_lanes=3, num_steps=16, batch_size=16, epochs=1)


def fresh(config: EnvConfig = CONFIG) -> TimedPPO:
    return make_ppo(InferMaxVecEnv(3, config, seed=1), SETTINGS, seed=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TimedPPO, bytes]:
    """A model that has learned, and its checkpoint from then."""
    model, where = fresh(), tmp_path_factory.mktemp("trained") / FILE
    model.learn(4 * 3 * 16)
    average = {name: weight.clone() for name, weight in model.policy.network.state_dict().items()}
    save_checkpoint(where, model, Progress(num_updates=4, average=average, curve=[(1, 0.5, 2.0, 3.0)]))
    return model, where.read_bytes()


@pytest.fixture
def path(trained: tuple[TimedPPO, bytes], tmp_path: Path) -> Path:
    where = tmp_path / FILE
    where.write_bytes(trained[1])
    return where


class Hostile:
    """What a pickle of runs when it is read: a file is made."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)


def test_the_lanes_stand_where_they_stood(trained: tuple[TimedPPO, bytes], path: Path) -> None:
    again, (model, _) = fresh(), trained
    progress = load_checkpoint(path, again)
    assert progress.curve == [(1, 0.5, 2.0, 3.0)] and progress.num_updates == 4 and not progress.best
    for one, other in zip(model.env.lanes.get_state(), again.env.lanes.get_state(), strict=True):
        assert one.run.engine.clock_s == other.run.engine.clock_s > 0.0
        requests, again_requests = one.run.engine.requests, other.run.engine.requests
        for name in requests.dtype.names or ():
            np.testing.assert_array_equal(requests[name], again_requests[name])
    for _ in range(40):  # beyond the ends of episodes: the streams go on as well
        actions = again.env.action_masks().argmax(axis=1)
        ours, theirs = model.env.step(actions), again.env.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))


def test_a_hostile_pickle_runs_nothing(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path.write_bytes(pickle.dumps(Hostile(victim)))
    with pytest.raises(AgentError, match="expected a safetensors file"):
        load_checkpoint(path, fresh())
    path.rename(path.with_name("checkpoint.pickle"))
    with pytest.raises(AgentError, match="older version"):
        load_checkpoint(path, fresh())
    assert not victim.exists()


def test_resuming_somebody_elses_folder_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    folder.mkdir()
    for name in (FILE, "checkpoint.pickle", "model.zip", "policy.safetensors", "config.json"):
        (folder / name).write_bytes(pickle.dumps(Hostile(victim)))
    assert train.main(["--algo", "ppo", "--steps", "100", "--resume", "--out", str(folder)]) == 2
    assert not victim.exists()
    error = capsys.readouterr().err
    assert error.startswith("train: error: ") and error.count("\n") == 1


def test_every_flipped_byte_is_harmless(path: Path) -> None:
    """Damage is refused in one line, or the checkpoint is as good as before: an average weight is another number."""
    whole, model = bytearray(path.read_bytes()), fresh()
    rng = np.random.default_rng(0)
    refused = 0
    for at in [*rng.integers(0, len(whole), 30), *rng.integers(0, 4_000, 30)]:
        changed = bytearray(whole)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            load_checkpoint(path, model)
        except AgentError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 10


def with_card(path: Path, change: dict[str, Any], arrays: dict[str, Any]) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    card = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["infermax_checkpoint"])
    tensors = {**safetensors.numpy.load(data), **arrays}
    path.write_bytes(safetensors.numpy.save(tensors, {"infermax_checkpoint": json.dumps({**card, **change})}))


@pytest.mark.parametrize(
    ("change", "arrays", "hint"),
    [
        ({"schema": 2}, {}, "schema"),
        ({"num_timesteps": -1}, {}, "number"),
        ({"numpy_rng": ["MT19937", 10**6, 0, 0.0]}, {}, "random numbers"),
        ({"python_rng": [3, [0] * 624 + [10**6], None]}, {}, "state"),
        ({"streams": []}, {}, "lanes"),
        ({"num_actions": [10**9, 0, 0]}, {}, "actions"),
        ({"streams": [{"seed": -1}] * 3}, {}, "stream"),
        ({}, {"actions": np.full(10, 99, np.int64)}, "actions"),
        ({}, {"torch_rng": np.zeros(5056, np.uint8)}, "mt19937"),
        ({}, {"numpy_rng": np.zeros(3, np.uint32)}, "random numbers"),
        ({}, {"last_obs": np.zeros((3, 4), np.float32)}, "another version"),
        ({}, {"adam/0/exp_avg": np.zeros(3, np.float32)}, "adam/0/exp_avg"),
    ],
    ids=range(12),
)
def test_what_does_not_belong_together(path: Path, change: dict[str, Any], arrays: dict[str, Any], hint: str) -> None:
    with_card(path, change, arrays)
    state = torch.get_rng_state()
    with pytest.raises(AgentError, match=hint):
        load_checkpoint(path, fresh())
    torch.set_rng_state(state)


def test_other_settings(path: Path) -> None:
    with pytest.raises(AgentError, match="no usable checkpoint of these settings"):
        load_checkpoint(path, fresh(CONFIG.changed(num_waiting_slots=5)))
    path.unlink()
    with pytest.raises(AgentError, match="nothing to resume"):
        load_checkpoint(path, fresh())
