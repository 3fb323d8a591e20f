"""Agents on trace slices of a trace: what is cut, who plays, and what is said of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.board.board import FIGURES
from experiments.board.rivals import DEFAULTS, load_rivals
from experiments.board.traces import contenders, cut, main, measure, page
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import load_workload, write_workload

ENGINE = EngineConfig(num_kv_tokens=20_000)


def test_windows_follow_one_another() -> None:
    trace = load_workload("azure-conv", num_requests=130)
    held = cut(trace, ENGINE, 40, 1.5)
    assert len(held) == 3
    lengths = np.concatenate([w.workload.num_prompt_tokens for w in held])
    np.testing.assert_array_equal(lengths, trace.num_prompt_tokens[:120])
    gaps = np.diff(held[1].workload.arrival_s)
    np.testing.assert_allclose(gaps, 1.5 * np.diff(trace.arrival_s[40:80]))


def test_nobody_who_knows_lengths_plays() -> None:
    players = contenders(load_rivals())
    assert set(DEFAULTS) | {"global", "global-blend", "agent:generalist"} <= set(players)
    assert all(player.information.name in ("NONE", "BOUND") for player in players.values())
    held = cut(load_workload("azure-conv", num_requests=60), ENGINE, 30, 1.0)
    few = {name: players[name] for name in ("sarathi", "global", "agent:generalist", "agent:conv-ppo")}
    board = measure(held, few)
    assert "| sarathi | " in page(board) and "**generalist** (agent)" in page(board)
    assert "**conv-ppo** (agent)" in page(board)
    assert board.figures["trace"]["sarathi"].shape == (2, len(FIGURES))


def test_command_and_its_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err.startswith("traces: error: ")
    write_workload(load_workload("azure-conv", num_requests=20), tmp_path / "some.csv")
    assert main([str(tmp_path / "some.csv"), "--requests", "50"]) == 2
    assert "holds no 50 requests" in capsys.readouterr().err
    assert main([str(tmp_path / "some.csv"), "--requests", "10"]) == 0
    assert capsys.readouterr().out.startswith("2 trace slices of 10 requests")
