"""The ceiling on goodput: it holds for every schedule, and where jobs are alone on the machine it is what fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from infermax_gym.baselines.optimum.in_time import fractions_in_time, most_in_time
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.engine import EngineConfig, Policy, simulate
from infermax_gym.engine.metrics import meets_slo
from infermax_gym.workload import Workload, make_workload
from tests.engine.strategies import configs, examples, policies, workloads
from tests.engine.strategies import predictions as any_predictions


@examples(300)
@given(data=st.data(), workload=workloads(), config=configs(), policy=policies())
def test_no_random_policy_beats_the_bound(
    data: st.DataObject, workload: Workload, config: EngineConfig, policy: Policy
) -> None:
    own_budget = replace(policy, max_num_batched_tokens=None, chunking=True)
    run = simulate(workload, config, own_budget, predicted=data.draw(any_predictions(workload)))
    met = meets_slo(run, None)
    assert (run.finished if met is None else met).sum() <= most_in_time(workload, config)


@pytest.mark.parametrize("seed", range(2))
def test_no_row_beats_the_bound(seed: int) -> None:
    workload = make_workload("azure-code", 120, seed=seed).scaled(0.5)
    workload = replace(workload, ttft_slo_s=np.full(120, 1.0))
    config = EngineConfig(num_kv_tokens=40_000)
    bound = most_in_time(workload, config)
    assert bound < 110
    reached = []
    for row in POLICIES.values():
        row = replace(row, max_num_batched_tokens=None, chunking=True)
        run = simulate(workload, config, row, predicted=predictions(row, workload, seed))
        reached.append((run.ttft_s <= 1.0).sum())
    assert 0.7 * bound <= max(reached) <= bound


def by_program(arrivals: np.ndarray, deadlines: np.ndarray, work: np.ndarray) -> float:
    """The same optimum as a linear program: seconds of each job in each interval between two events."""
    points = np.unique(np.concatenate([arrivals, deadlines]))
    inside = (points[None, :-1] >= arrivals[:, None]) & (points[None, 1:] <= deadlines[:, None])
    jobs, slots = np.nonzero(inside)
    gain = 1.0 / work[jobs]
    upper = np.concatenate([np.diff(points), work])
    rows = np.vstack(
        [slots[None, :] == np.arange(points.size - 1)[:, None], jobs[None, :] == np.arange(work.size)[:, None]]
    )
    return float(-linprog(-gain, A_ub=rows.astype(float), b_ub=upper, bounds=(0.0, None)).fun)


@pytest.mark.parametrize("seed", range(30))
def test_greedy_is_the_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    arrivals = np.round(rng.uniform(0.0, 5.0, count), 1)
    deadlines = arrivals + np.round(rng.uniform(0.1, 2.0, count), 1)
    work = rng.uniform(0.05, 1.0, count)
    done = fractions_in_time(arrivals, deadlines, work)
    assert (done >= 0.0).all() and (done <= 1.0).all()
    assert done.sum() == pytest.approx(by_program(arrivals, deadlines, work), abs=1e-7)


def test_what_takes_no_time_is_in_time() -> None:
    """A cost model may have nothing but 0 as its linear lower bound."""
    done = fractions_in_time(np.zeros(3), np.full(3, 1.0), np.array([0.0, 2.0, 0.0]))
    np.testing.assert_array_equal(done, [1.0, 0.5, 1.0])


def test_blocks_only_loosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,300 requests in three blocks: no less than in one piece, and not much more."""
    workload = make_workload("azure-code", 1300, seed=0).scaled(0.6)
    limited = workload.with_limits(1.0, None)
    config = EngineConfig(num_kv_tokens=40_000)
    bound = most_in_time(limited, config)
    assert most_in_time(workload, config) == 1300
    monkeypatch.setattr("infermax_gym.baselines.optimum.in_time._BLOCK", 2000)
    whole = most_in_time(limited, config)
    assert whole <= bound <= 1.01 * whole < 1300


def test_alone_it_is_exact() -> None:
    """One request: in time or not, at the very limit; without a limit it counts."""
    config = EngineConfig(block_size=1)
    ttft_s = float(simulate(Workload([1.0], [3000], [2]), config, Policy("alone")).ttft_s[0])
    for limit_s, count in ((ttft_s, 1), (0.99 * ttft_s, 0), (np.inf, 1)):
        assert most_in_time(Workload([1.0], [3000], [2], ttft_slo_s=[limit_s]), config) == count


def test_two_at_once() -> None:
    """Two prompts at one moment: time for one of them, or for both."""
    config = EngineConfig(block_size=1)
    ttft_s = float(simulate(Workload([0.0], [4096], [2]), config, Policy("alone")).ttft_s[0])
    for times, count in ((1.2, 1), (2.05, 2)):
        workload = Workload([0.0, 0.0], [4096, 4096], [2, 2], ttft_slo_s=[times * ttft_s] * 2)
        assert most_in_time(workload, config) == count


def test_prefix_caches_are_refused() -> None:
    with pytest.raises(ValueError, match="prefix_caching must be off"):
        most_in_time(Workload([0.0], [10], [2]), EngineConfig(prefix_caching=True))
