"""What a searched expression may be, and what it then does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.suite.expressions import ENGINE_NAMES, REQUEST_NAMES, ExpressionPolicy, evaluated, parsed
from infermax_gym.suite.search_task import score
from infermax_gym.suite.tasks import SuiteError
from infermax_gym.workload import make_workload

NAMES = (*REQUEST_NAMES, *ENGINE_NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "known.__class__",
        "[known][0]",
        "(lambda: known)()",
        "known if wait else prompt",
        "known ** 99999999",
        "9 ** 9 ** 9",
        "1e999",
        "'known'",
        "True",
        "1j",
        "max(known)",
        "max(known, wait, prompt)",
        "max(*known)",
        "log1p(x=known)",
        "open(known)",
        "secret",
        "clock < wait < known",
        "known; wait",
        "known = 1",
        "",
        "(" * 300,
        "-" * 2_000 + "known",
        "+".join(["known"] * 199),
        "known" + " + known" * 150,
    ],
)
def test_what_is_not_arithmetic_over_the_names_is_refused(text: str) -> None:
    with pytest.raises(SuiteError) as caught:
        ExpressionPolicy(text)
    assert "\n" not in str(caught.value)


def test_values() -> None:
    values = {"known": np.array([1.0, 4.0]), "wait": np.array([2.0, 0.5]), "free": np.float64(10.0)}
    for text, expected in {
        "known - 2 * wait": [-3.0, 3.0],
        "where(known > wait, sqrt(known), -wait)": [-2.0, 2.0],
        "min(known, 3) / max(wait, 1)": [0.5, 3.0],
        "(known <= 1) + free": [11.0, 10.0],
    }.items():
        assert evaluated(parsed(text, NAMES), values).tolist() == expected


_TREES = st.recursive(
    st.sampled_from((*NAMES, "0", "3.5", "-2")),
    lambda inner: st.one_of(
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from("+-*/<"), inner),
        st.builds(lambda f, a: f"{f}({a})", st.sampled_from(("abs", "log1p", "sqrt")), inner),
    ),
    max_leaves=6,
)


@settings(max_examples=12, deadline=None)
@given(_TREES, _TREES, st.sampled_from(("1 / 0", "num_waiting", "0.3 * capacity / known_mean", "-1")))
def test_any_expressions_serve_everybody(queue_key: str, victim_key: str, max_running: str) -> None:
    workload = make_workload("uniform:60,20,0.3", 8, seed=1)
    policy = ExpressionPolicy(queue_key, victim_key, max_running)
    assert simulate(workload, EngineConfig(num_kv_tokens=256), policy).finished.all()


def test_known_tokens_as_the_key_are_shortest_prompt_first() -> None:
    """Where memory is ample and nobody is preempted, the schedule is that of the policy of the table."""
    workload = make_workload("azure-code", 40, seed=0, time_scale=0.1)
    engine = EngineConfig(num_kv_tokens=1_000_000)
    ours, theirs = (
        simulate(workload, engine, p) for p in (ExpressionPolicy("known"), POLICIES["shortest-prompt-first"])
    )
    assert ours.latency_s.mean() == pytest.approx(theirs.latency_s.mean(), rel=0.01)


def test_a_cap_helps_and_the_score_says_so() -> None:
    plain, capped = (score(ExpressionPolicy("known", max_running=cap), "toy", num_episodes=2) for cap in ("1", "1000"))
    assert plain["error"] is None
    assert plain["score"] < capped["score"] < 1.0
    assert capped["distance"] == pytest.approx(capped["objective"] - capped["bound"])
    assert len(capped["objectives"]) == 2


def test_the_best_default_has_score_0_on_held_out_episodes_at_best() -> None:
    assert score(POLICIES["vllm"], "toy", held_out=True)["score"] <= 1e-9
    assert score(POLICIES["srpt-oracle"], "toy")["error"].startswith("InferMaxSuite-Toy-v1 tells nothing")
    with pytest.raises(SuiteError, match="is for routers"):
        score(POLICIES["vllm"], "router")
