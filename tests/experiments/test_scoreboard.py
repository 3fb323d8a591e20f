"""The scenarios, the rivals and the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.board.board import FIGURES, Board, ratio
from experiments.board.rivals import MEAN, STARTS, harder, load_rivals, main, tail, tune_cell
from experiments.board.scenarios import SCENARIOS, has_slos
from experiments.board.scoreboard import BEGIN, END, NUM_SLICES, measure, shipped_agents
from experiments.board.scoreboard import main as scoreboard
from experiments.board.tables import page
from infermax_gym.agents.evolution import policy_loss
from infermax_gym.agents.scenario import TEST, TRAIN, trace_slices


def test_scenarios() -> None:
    assert len(SCENARIOS) == 72
    for name, scenario in SCENARIOS.items():
        held = trace_slices(scenario, 1, split=TEST)[0].workload
        limits = np.isfinite(held.ttft_slo_s).all() and np.isfinite(held.tpot_slo_s).all()
        assert limits == has_slos(name)
    tight, wide = SCENARIOS["conv-tight-saturated-7b"], SCENARIOS["conv-wide-saturated-7b"]
    assert tight.num_kv_tokens < wide.num_kv_tokens
    moderate, overloaded = SCENARIOS["code-wide-moderate-70b"], SCENARIOS["code-wide-overloaded-70b"]
    assert moderate.time_scale > overloaded.time_scale


def test_windows_of_the_splits_differ() -> None:
    scenario = SCENARIOS["mixed-tight-saturated-7b"]
    lengths = [w.workload.num_output_tokens.tolist() for s in (TRAIN, TEST) for w in trace_slices(scenario, 3, split=s)]
    assert len({tuple(some) for some in lengths}) == 6


def test_tuning_harder_is_never_worse_on_its_own_windows(capsys: pytest.CaptureFixture[str]) -> None:
    on_held, on_training = harder("code-tight-moderate-7b", num_slices=1, generations=4)
    assert on_training <= 1.0 and on_held > 0.0
    with pytest.raises(SystemExit):
        main(["--harder", "code-tight-moderate-7b,nonsense"])
    assert "unknown scenario 'nonsense'; scenarios have names such as" in capsys.readouterr().err


def test_tuned_for_the_tail_alone_the_tail_is_shorter_and_the_mean_is_not() -> None:
    p99, mean = tail("conv-tight-saturated-7b", num_slices=4)
    assert p99 < 0.9 and mean > 1.0


def test_rivals_are_complete() -> None:
    rivals = load_rivals()
    for name in SCENARIOS:
        rows = rivals.policies_of(name)
        assert {"global", "global-blend", "per-cell", "informed", "clairvoyant"} <= set(rows)
        assert ("per-cell-goodput" in rows) == has_slos(name)
        assert rows["per-cell"].information.name == "NONE" and rows["informed"].information.name == "PREDICTED"


def test_tuning_never_loses_to_where_it_begins() -> None:
    held = trace_slices(SCENARIOS["reasoning-tight-overloaded-7b"], 2, split=TRAIN)
    from infermax_gym.agents.evolution import tuned_policy

    action = tune_cell(MEAN, held, STARTS, 2)
    begun = min(policy_loss(tuned_policy(s, "s", predicted_sigma=None), held, MEAN) for s in STARTS)
    assert policy_loss(tuned_policy(action, "t", predicted_sigma=None), held, MEAN) <= begun


def test_ratio() -> None:
    assert str(ratio(np.full((3, 5), np.log(2.0)))) == "2.000 [2.000, 2.000]"
    noisy = ratio(np.random.default_rng(0).normal(np.log(0.9), 0.1, (4, 16)))
    assert noisy.low < noisy.value < noisy.high and noisy.high - noisy.low < 0.1
    wider = ratio(np.random.default_rng(0).normal(np.log(0.9), 0.1, (1, 16)))
    assert wider.high - wider.low > noisy.high - noisy.low


def test_board_compares_the_better_with_the_worse() -> None:
    one = np.ones((4, len(FIGURES)))
    board = Board({"cell": {"a": one, "b": 2.0 * one}})
    assert board.best("cell", ["a", "b", "not-there"], "mean") == "a"
    assert board.best("cell", ["a", "b"], "goodput") == "b"
    assert ratio(board.log_ratios(["cell"], "b", "a", "p99")).value == pytest.approx(2.0)


def test_page_of_two_scenarios() -> None:
    scenarios = ["conv-tight-moderate-7b", "rollouts-tight-moderate-7b"]
    text = page(measure(scenarios, load_rivals(), shipped_agents(), 2), 2)
    assert all(scenario in text for scenario in scenarios) and "nan" not in text
    assert NUM_SLICES >= 8


def test_tables_go_where_out_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--scenarios", "rollouts-tight-moderate-7b", "--slices", "1"]
    assert scoreboard(few) == 0
    printed = capsys.readouterr().out
    page_file = tmp_path / "page.md"
    page_file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert scoreboard([*few, "--out", str(page_file)]) == 0
    written = page_file.read_text()
    assert written.startswith("before\n") and written.endswith("\nafter\n") and "old" not in written
    assert printed.strip() in written and "rollouts-tight-moderate-7b" in printed
    with pytest.raises(SystemExit):
        scoreboard([*few, "--out", str(tmp_path / "none.md")])
    assert "has no place for the tables" in capsys.readouterr().err
