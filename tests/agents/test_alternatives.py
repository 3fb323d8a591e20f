"""SAC, PPO and DQN of stable-baselines3 train, are kept at their best, and serve whole workloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infermax_gym.agents.alternatives import ALTERNATIVES, EnvPlayer, make_model, train_alternative
from infermax_gym.agents.scenario import TRAIN, TrainingScenario, trace_slices
from infermax_gym.envs.scheduling.config import EnvConfig

CONFIG = EnvConfig(
    num_requests=30, num_kv_tokens=(8_000, 8_000), level_shares=(1.0,), num_waiting_slots=6, num_running_slots=4
)
SLICES = trace_slices(TrainingScenario(num_requests=30, num_kv_tokens=8_000), 2, split=TRAIN, seed=7)


@pytest.mark.parametrize("algo", ALTERNATIVES)
def test_trains_and_plays(algo: str, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    logs = tmp_path / "tensorboard"
    player = train_alternative(
        algo, CONFIG, SLICES, tmp_path, num_decisions=400, every=150, tensorboard=str(logs), report=rows.append
    )
    assert len(rows) >= 3 and (tmp_path / "model.zip").exists() and list(logs.rglob("events*"))
    assert [path.name for path in tmp_path.iterdir() if path.name != "tensorboard"] == ["model.zip"]
    results = [player.play(w.workload, w.engine) for w in SLICES]
    assert all(result.finished.all() for result in results)
    # The model that is returned is the best of those evaluated.
    kept = float(np.exp(np.mean([np.log(result.latency_s.mean()) for result in results])))
    assert kept == pytest.approx(min(row["loss"] for row in rows), rel=1e-9)


def test_stops_without_progress(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    train_alternative(
        "dqn", CONFIG, SLICES, tmp_path, num_decisions=100_000, every=16, patience=2, report=rows.append
    )  # fmt: skip
    best = int(np.argmin([row["loss"] for row in rows]))
    assert len(rows) < 200 and best <= len(rows) - 3


def test_untrained_dqn_takes_legal_actions() -> None:
    player = EnvPlayer("dqn", make_model("dqn", CONFIG, seed=0), CONFIG)
    trace_slice = SLICES[0]
    assert player.play(trace_slice.workload, trace_slice.engine).finished.all()
