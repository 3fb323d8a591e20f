"""Splits that share nothing, limits that suit the engine, and a selector that learns what it is shown."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from experiments.transfer.compare import CONTESTS
from experiments.transfer.evolve import rule
from experiments.transfer.experts import DEFAULTS, EXPERTS, FORMS, GOODPUT_EXPERTS, MEASURED
from experiments.transfer.fit import Goal, Training, fit
from experiments.transfer.measure import Figures, Measured, limited
from experiments.transfer.runs import ENGINES_SHIP, Runs, by_scenario, compared, complete, load_runs
from experiments.transfer.scenarios import FRESH, TEST, TRACES, TRAIN, VALIDATE, Scenario, random_scenarios, scenarios
from experiments.transfer.traces import FILES, drawn_trace
from infermax_gym.agents.outlook import FEATURES
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import Information, Policy, simulate
from infermax_gym.workload import Workload
from tests.shared import needs_shared


def test_splits_share_no_gpu_and_no_model() -> None:
    for one, other in combinations((TRAIN, VALIDATE, TEST), 2):
        assert not set(one.gpus) & set(other.gpus) and not set(one.models) & set(other.models)
        assert one.engines and other.engines
    assert {"long-document", "conversations"} <= set(TEST.traffic) - set(TRAIN.traffic) - set(VALIDATE.traffic)


def test_fresh_engines_were_in_no_other_comparison() -> None:
    assert not set(CONTESTS["fresh"].engines) & {*CONTESTS["test"].engines, *TRAIN.engines, *VALIDATE.engines}
    assert set(CONTESTS["traces"].engines) <= set(FRESH.engines)
    models = {name.partition("@")[0] for name in FRESH.engines}
    assert not models & {*TRAIN.models, *VALIDATE.models}


def test_an_estimated_engine_is_a_replica() -> None:
    config = Scenario("mistral-7b@l4", "azure-conv", 1.0, 0).config
    assert (config.max_num_batched_tokens, config.max_num_seqs) == (2048, 256)  # vLLM's for a small GPU
    assert 14.5e9 / 0.3e12 < config.cost.seconds(decodes=[1]) < 2.0 * 14.5e9 / 0.3e12  # weights read at 0.3 TB/s


@needs_shared
def test_a_stretch_of_a_trace_has_the_rate_that_is_asked_for() -> None:
    for name in FILES:
        first, other = (drawn_trace(name, 300, seed, 2.0) for seed in (1, 2))
        assert len(first) == 300 and first.mean_rate_per_s == pytest.approx(2.0)
        assert not np.array_equal(first.num_prompt_tokens, other.num_prompt_tokens)
    assert set(TRACES.traffic) == set(FILES)


def test_runs_are_kept_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario("qwen3-8b@h100", "azure-conv", 1.0, 0)
    runs = load_runs(tmp_path / "runs.jsonl")
    runs.add(scenario, 0, "vllm", Figures(2.0, 9.0, 0.5))
    monkeypatch.setattr("experiments.transfer.runs.player", lambda name: None)  # whoever plays now fails
    again = load_runs(tmp_path / "runs.jsonl")
    complete(again, [scenario], 1, ["vllm"])
    assert again.found == {(scenario, 0): {"vllm": Figures(2.0, 9.0, 0.5)}}


def test_ratios_are_to_the_best_default_of_each_draw() -> None:
    scenario = Scenario("qwen3-8b@h100", "azure-conv", 1.0, 0)
    runs = Runs()
    for number, ours_s in enumerate((1.0, 4.0)):
        for k, name in enumerate(ENGINES_SHIP):
            runs.add(scenario, number, name, Figures(4.0 + k, 8.0 - 0.1 * k, 1.0 + k))
        runs.add(scenario, number, "ours", Figures(ours_s, 4.0, 6.0))
    found = compared(runs, [scenario], 2)
    np.testing.assert_allclose(by_scenario(found, lambda r: r.mean("ours")), [0.5])  # of 1/4 and 4/4
    np.testing.assert_allclose(by_scenario(found, lambda r: r.p99("ours")), [0.5])  # p99 of the one with the least mean
    np.testing.assert_allclose(by_scenario(found, lambda r: r.goodput("ours")), [6.0 / len(ENGINES_SHIP)])


def test_engines_of_another_split_are_refused() -> None:
    with pytest.raises(ValueError, match="is of another split"):
        scenarios(TEST, ["qwen3-8b@h100"])


def test_random_scenarios_repeat_themselves_and_stay_in_their_split() -> None:
    first = random_scenarios(TRAIN, 20, seed=5)
    assert first == random_scenarios(TRAIN, 20, seed=5) != random_scenarios(TRAIN, 20, seed=6)
    assert {one.engine for one in first} <= set(TRAIN.engines)


def test_nobody_is_told_lengths() -> None:
    assert all(expert.information == Information.NONE for expert in MEASURED)
    assert all(POLICIES[name].information <= Information.BOUND for name in DEFAULTS)
    assert all(policy.information <= Information.BOUND for policy in FORMS)
    assert MEASURED[: len(GOODPUT_EXPERTS)] == GOODPUT_EXPERTS and all(expert in MEASURED for expert in EXPERTS)


def test_a_mean_request_alone_meets_its_limits_with_room_to_spare() -> None:
    engine = Scenario("qwen3-8b@h100", "azure-conv", 1.0, 0).config
    workload = limited(Workload([0.0], [1000], [101]), engine)
    result = simulate(workload, engine, Policy("plain"))
    assert result.ttft_s[0] == pytest.approx(workload.ttft_slo_s[0] / 5.0)
    assert result.tpot_s[0] == pytest.approx(workload.tpot_slo_s[0] / 2.0, rel=0.01)


def test_a_selector_learns_when_which_expert_is_better() -> None:
    """Two experts; the first is better where a feature is positive, the second where it is negative."""
    rng = np.random.default_rng(0)
    scenario = Scenario("qwen3-8b@h100", "azure-conv", 1.0, 0)
    data = []
    for k in range(40):
        sign = 1.0 if k % 2 else -1.0
        seen = rng.standard_normal((6, len(FEATURES)))
        seen[:, 0], seen[:, 3] = 1.0, 2.0 * sign
        mean = np.array([-0.3, 0.3]) * sign
        data.append(Measured(scenario, mean, np.zeros(2), np.zeros(2), seen))
    selector = fit(data, EXPERTS[:2], Goal(), Training(hidden=4, networks=2, steps=150))
    for sign, best in ((1.0, 0), (-1.0, 1)):
        features = np.zeros(len(FEATURES))
        features[0], features[3] = 1.0, 2.0 * sign
        assert int(np.argmax(selector.scores(features))) == best


def test_being_behind_costs_more_than_being_ahead_gains() -> None:
    scenario = Scenario("qwen3-8b@h100", "azure-conv", 1.0, 0)
    measured = Measured(scenario, np.array([-0.2, 0.0, 0.2]), np.zeros(3), np.array([0.0, -5.0, 0.1]), np.zeros((1, 1)))
    cost = Goal(behind=9.0).cost(measured, 3)
    np.testing.assert_allclose(cost, [0.0, 0.2, 2.0])  # 0.2 x 10 beyond the default, cut at 2
    np.testing.assert_allclose(Goal(behind=9.0, goodput=True, at_most=9.0).cost(measured, 3), [5.0, 0.0, 6.0])


def test_the_evolved_rule_has_no_units() -> None:
    shares = rule(np.array([0.0, 0.0, -30.0, -30.0]))
    assert shares.base.queue_weights[0] == pytest.approx(np.sqrt(1e-4 * 0.3))  # arrival_s
    assert (shares.prefill_efficiency, shares.headroom) == pytest.approx((0.9, 0.0))
