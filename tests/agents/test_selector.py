"""Selectors: what they see, what they choose, and that their files give the same schedules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.agents.agent import Agent, AgentError
from infermax_gym.agents.outlook import FEATURES, Outlook
from infermax_gym.agents.selector import Chooser, Selector
from infermax_gym.agents.storage import load_agent, save_agent
from infermax_gym.baselines.table.shares import FCFS_SHARE, SPF_SHARE, Shares
from infermax_gym.cost.engines.table import find_engine
from infermax_gym.engine import EngineConfig, Information, Policy, simulate
from infermax_gym.workload import make_workload
from tests.engine.same import same_result

ONE = find_engine("llama-3.1-8b@h100")
ENGINE = EngineConfig(ONE.cost, ONE.num_kv_tokens, ONE.block_size, ONE.max_num_batched_tokens, ONE.max_num_seqs)
CONV = make_workload("azure-conv", 200, seed=3, rate=30.0)


def selector(*experts: Shares, seed: int = 0, **settings: float) -> Selector:
    rng = np.random.default_rng(seed)
    inner = rng.standard_normal((4, len(FEATURES))).astype(np.float32)
    outer = rng.standard_normal((len(experts), 5)).astype(np.float32)
    return Selector(experts, inner, outer, **settings)


def test_a_single_expert_is_that_policy() -> None:
    alone = selector(Shares(Policy("plain")))
    same_result(alone.play(CONV, ENGINE), simulate(CONV, ENGINE, Policy("plain")))


def test_among_some_it_chooses_as_if_the_others_had_never_been() -> None:
    experts = (Shares(Policy("plain")), SPF_SHARE, FCFS_SHARE)
    every = selector(*experts)
    some = replace(every, experts=experts[1:], outer=every.outer[1:])
    same_result(every.among([1, 2]).play(CONV, ENGINE), some.play(CONV, ENGINE))


def test_it_sees_finite_shares_and_nothing_of_lengths_to_come() -> None:
    """Had requests longer answers, nothing that is seen before the first of them would differ."""
    seen: list[list[Outlook]] = []
    outputs = CONV.num_output_tokens + np.where(np.arange(200) == 100, 5000, 0)
    engine = replace(ENGINE, max_model_len=65_536, max_output_tokens=65_536)
    for workload in (CONV, replace(CONV, num_output_tokens=outputs)):
        looks: list[Outlook] = []
        watch = lambda outlook, expert, looks=looks: looks.append(outlook)  # noqa: E731
        result = selector(SPF_SHARE, FCFS_SHARE, interval=0.2).play(workload, engine, watch=watch)
        seen.append(looks)
    end_s = float(result.first_token_s[100])
    before = [[look for look in looks if look.clock_s <= end_s] for looks in seen]
    assert len(before[0]) == len(before[1]) > 3
    for first, second in zip(*before, strict=True):
        assert np.isfinite(first.features).all()
        np.testing.assert_array_equal(first.features, second.features)


def test_features_mean_the_same_on_a_faster_engine() -> None:
    """An engine twice as fast, whose requests come twice as fast, looks the same."""
    fast = replace(ENGINE.cost, terms=tuple(tuple(tuple(x / 2 for x in f) for f in t) for t in ENGINE.cost.terms))
    fast = replace(fast, min_terms=tuple(tuple(tuple(x / 2 for x in f) for f in t) for t in ENGINE.cost.min_terms))
    looks: dict[float, list[np.ndarray]] = {1.0: [], 0.5: []}
    for scale, cost in ((1.0, ENGINE.cost), (0.5, fast)):
        watch = lambda outlook, expert, scale=scale: looks[scale].append(outlook.features)  # noqa: E731
        selector(SPF_SHARE).play(CONV.scaled(scale), replace(ENGINE, cost=cost), watch=watch)
    np.testing.assert_allclose(np.array(looks[1.0]), np.array(looks[0.5]), atol=1e-6)


def test_scores_are_smoothed_and_small_gains_change_nothing() -> None:
    chooser = Chooser(replace(selector(SPF_SHARE, FCFS_SHARE), memory=0.5, margin=0.2))
    weights = np.zeros((2, len(FEATURES)))
    weights[1, 1] = 1.0
    object.__setattr__(chooser.selector, "inner", weights)
    object.__setattr__(chooser.selector, "outer", np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    features = np.zeros(len(FEATURES))
    low, high = features.copy(), features.copy()
    low[1], high[1] = -10.0, 10.0
    assert [chooser.choose(x) for x in (low, high, high)] == [0, 0, 1]


def test_files_give_the_same_schedules(tmp_path: Path) -> None:
    original = selector(SPF_SHARE, FCFS_SHARE, Shares(Policy("plain"), decode_efficiency=0.5), interval=0.5)
    save_agent(tmp_path / "one.safetensors", Agent("one", selector=original, card={"note": "a note"}))
    loaded = load_agent(tmp_path / "one.safetensors")
    assert (loaded.kind, loaded.note, loaded.information) == ("selector", "a note", Information.NONE)
    same_result(loaded.play(CONV, ENGINE, record_schedule=True), original.play(CONV, ENGINE, record_schedule=True))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="has experts, none of which needs"):
        selector(Shares(Policy("told", information=Information.PREDICTED)))
    with pytest.raises(ValueError, match="weights"):
        Selector((SPF_SHARE,), np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(AgentError, match="a selector"):
        Agent("two", policy=Policy("x"), selector=selector(SPF_SHARE))
