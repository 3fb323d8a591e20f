"""Schedulers with code of their own: they serve everything, keep the invariants, and do not peek."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.catalogue import PLAYERS, SCHEDULERS
from infermax_gym.baselines.ewsjf import Ewsjf
from infermax_gym.baselines.fluid_gate import FluidGate
from infermax_gym.baselines.imagined import Lengths, imagined
from infermax_gym.baselines.nested_wait import NestedWait
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.proserve import SlideBatching, slide
from infermax_gym.baselines.random_order import RandomOrder
from infermax_gym.baselines.rollout import Rollout, served
from infermax_gym.baselines.sorted_f import SortedF, future_peak, plan
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.engine.invariants import InvariantChecker
from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.kernel.queue import rekey
from infermax_gym.engine.recorder import Recorder
from infermax_gym.engine.session import Session, install_policy, run_to
from infermax_gym.workload import Workload, make_workload
from tests.engine.same import same_result
from tests.engine.strategies import configs, examples, workloads

TIGHT = EngineConfig(num_kv_tokens=9_000)
NAMES = [*PLAYERS, "nested-wait"]


@examples(40)
@given(name=st.sampled_from(NAMES), workload=workloads(), config=configs())
def test_hostile_workloads(name: str, workload: Workload, config: EngineConfig) -> None:
    """Recorded or not, the same run; every request ends; every token granted is accounted for."""
    hostile = {
        "rollout": {"interval": 0.1},
        "sorted-f-oracle": {"replan_every": 2},
        "nested-wait": {"first_threshold": 2, "gates": (1, 3)},
        "ewsjf": {"step_tokens": 5},
        "proserve-like": {"interval_s": 0.01, "ttft_slo_s": 0.02},
        "fluid-gate": {"interval_s": 0.01},
    }
    player = replace(SCHEDULERS[name], **hostile.get(name, {}))
    recorded = player.play(workload, config, seed=1, record_schedule=True)
    same_result(player.play(workload, config, seed=1), recorded)
    assert (recorded.status != 2).all()
    assert recorded.schedule is not None
    granted = sum(tokens for iteration in recorded.schedule for _, tokens in iteration.batch)
    needed = (workload.num_prompt_tokens + workload.num_output_tokens - 1)[recorded.finished].sum()
    assert granted == needed + recorded.num_recomputed_tokens


@pytest.mark.parametrize("name", NAMES)
def test_described_as_rows_are(name: str) -> None:
    player = SCHEDULERS[name]
    assert player.name == name
    assert 20 <= len(player.source) <= 140 and 20 <= len(player.note) <= 140 and player.note.endswith(".")


@examples(60)
@given(workload=workloads(), config=configs(), names=st.lists(st.sampled_from(["srf", "spf-headroom", "sarathi"])))
def test_an_engine_under_changing_rows_keeps_its_invariants(
    workload: Workload, config: EngineConfig, names: list[str]
) -> None:
    session = Session(workload, config, POLICIES["sarathi"])
    checker = InvariantChecker(session.engine)
    for name in names:
        session.run(session.clock_s + 0.01)
        session.install(POLICIES[name])
        InvariantChecker(session.engine).check_now()
    session.run()
    assert checker.last_clock_s <= session.clock_s
    assert (session.result().status != 2).all()


@examples(60)
@given(workload=workloads(), config=configs())
def test_a_single_candidate_is_that_row(workload: Workload, config: EngineConfig) -> None:
    row = POLICIES["spf-headroom"]
    alone = Rollout("alone", (row,), interval=0.05)
    same_result(alone.play(workload, config), simulate(workload, config, row))


def test_gates_gather_answers_and_drop_nobody() -> None:
    """Answers pause at 64 tokens for company, so somewhere their gaps are long; without gates they are not."""
    workload = make_workload("azure-conv", 80, seed=4, rate=3.0)
    config = EngineConfig(num_kv_tokens=60_000)
    nested = NestedWait()
    gated, free = nested.play(workload, config), replace(nested, gates=()).play(workload, config)
    assert gated.finished.all() and free.finished.all()
    assert gated.gap_s.max() > 3.0 * free.gap_s.max()
    assert gated.num_preemptions == free.num_preemptions == 0


def test_rollouts_do_not_peek() -> None:
    """Had a request a longer answer, nothing would differ before its answer ends."""
    workload = make_workload("mixed", 80, seed=0, rate=6.0)
    outputs = workload.num_output_tokens.copy()
    outputs[10] += 300
    config = replace(TIGHT, num_kv_tokens=25_000, max_model_len=32_768, max_output_tokens=20_000)
    runs = [
        PLAYERS["rollout"].play(w, config, seed=2, record_schedule=True)
        for w in (workload, replace(workload, num_output_tokens=outputs))
    ]
    end_s = runs[0].finish_s[10]
    past = [[i for i in run.schedule if i.end_s <= end_s] for run in runs if run.schedule is not None]
    assert past[0] == past[1] and len(past[0]) > 50


def test_imagining_leaves_the_engine_alone() -> None:
    workload = make_workload("azure-conv", 60, seed=1, rate=10.0)
    session = Session(workload, TIGHT, POLICIES["sarathi"])
    session.run(3.0)
    disband(session.engine.core)
    before = session.engine.copy()
    future = imagined(session.engine, np.random.default_rng(0), 5.0)
    first = served(future, POLICIES["spf-headroom"])["finish_s"]
    np.testing.assert_array_equal(first, served(future, POLICIES["spf-headroom"])["finish_s"])
    assert len(first) == len(future.requests) > session.engine.num_waiting + session.engine.num_running
    for name in before.requests.dtype.names:
        np.testing.assert_array_equal(before.requests[name], session.engine.requests[name])
    assert before.clock_s == session.clock_s


@examples(100)
@given(workload=workloads(), config=configs(), stop=st.floats(0.0, 1.0), name=st.sampled_from(["vllm", "hrrn", "srf"]))
def test_imagined_engines_keep_their_invariants(
    workload: Workload, config: EngineConfig, stop: float, name: str
) -> None:
    session = Session(workload, config, POLICIES[name])
    session.run(stop)
    future = imagined(session.engine, np.random.default_rng(0), 0.5)
    install_policy(future, POLICIES["spf-headroom"])
    rekey(future.core)
    InvariantChecker(future).check_now()
    run_to(future, Recorder())
    InvariantChecker(future).check_now()
    assert future.is_done


def test_lengths_are_drawn_among_longer_ones() -> None:
    rng = np.random.default_rng(0)
    lengths = Lengths(np.array([10, 20, 300, 4000]), np.zeros(0, np.int64))
    assert set(lengths.draw(np.full(2000, 25), rng).tolist()) == {300, 4000}
    assert lengths.draw(np.array([5000, 0]), rng)[0] == 10_000
    assert Lengths(np.zeros(0, np.int64), np.zeros(0, np.int64)).draw(np.array([0, 500]), rng).tolist() == [128, 1000]


def test_lengths_under_way_count_as_longer() -> None:
    """Half of all outputs are 10 tokens, half 1,000, of which none has ended: Kaplan and Meier see that."""
    lengths = Lengths(np.full(100, 10), np.full(100, 500))
    drawn = lengths.draw(np.zeros(4000, np.int64), np.random.default_rng(1))
    assert abs(np.mean(drawn == 10) - 0.5) < 0.03 and drawn.max() >= 1000


def test_rollouts_find_what_suits_the_traffic() -> None:
    """Chat wants short prompts first, reasoning the least served first; nobody says which it is."""
    for name, rate, size in (("azure-conv", 4.0, 20_000), ("reasoning", 1.2, 40_000)):
        workload, config = make_workload(name, 400, seed=0, rate=rate), EngineConfig(num_kv_tokens=size)
        means = [
            simulate(workload, config, POLICIES[row]).latency_s.mean()
            for row in ("spf-headroom", "least-attained-service", "fcfs-headroom", "srf")
        ]
        assert PLAYERS["rollout"].play(workload, config).latency_s.mean() < min(1.15 * min(means), np.median(means))


@examples(200)
@given(
    known=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    data=st.data(),
)
def test_plans_are_orders_and_peaks_are_peaks(known: list[int], data: st.DataObject) -> None:
    n = len(known)
    rest = np.array(data.draw(st.lists(st.integers(1, 40), min_size=n, max_size=n)))
    assert sorted(plan(np.array(known), rest, 120).tolist()) == list(range(n))
    by_step = [sum(k + t for k, r in zip(known, rest.tolist(), strict=True) if r > t) for t in range(int(rest.max()))]
    assert future_peak(np.array(known), rest) == max(by_step)


def test_equal_prompts_are_planned_shortest_first() -> None:
    rest = np.array([30, 5, 20, 10])
    assert plan(np.full(4, 8), rest, 60).tolist() == [3, 0, 2, 1]


def test_plans_never_overflow_with_whole_prompts() -> None:
    workload = make_workload("azure-conv", 150, seed=3, rate=10.0)
    config = EngineConfig(num_kv_tokens=9_000, block_size=1, max_num_batched_tokens=16_384)
    run, row = SortedF().play(workload, config), POLICIES["mc-fcfs-oracle"]
    fcfs = simulate(workload, config, row, predicted=predictions(row, workload))
    assert run.num_preemptions == 0
    assert run.latency_s.mean() < fcfs.latency_s.mean()


def test_one_queue_of_all_lengths_is_first_come_first_served() -> None:
    workload = make_workload("azure-conv", 150, seed=4, rate=8.0)
    config = EngineConfig(num_kv_tokens=10**6)
    same_result(Ewsjf(step_tokens=10**9).play(workload, config), simulate(workload, config, POLICIES["vllm-v1"]))


def test_queues_score_by_wait_and_length() -> None:
    """Queues of 200 tokens, the logarithm at 100, 300, 1,100."""
    rule = Ewsjf()
    work = rule.work(np.array([0, 199, 200, 1_050]))
    scores = [(1.0 + 0.5 * np.log(101.0)), (1.0 + 0.5 * np.log(101.0)), (1.0 + 0.5 * np.log(301.0)) / 2.0,
              (1.0 + 0.5 * np.log(1_101.0)) / 6.0]  # fmt: skip
    np.testing.assert_allclose(1.0 / work, scores)
    # A long and a short one wait behind a prompt that fills the engine; at its end the short one has waited 0.1 s.
    config = EngineConfig(num_kv_tokens=60_000, max_num_batched_tokens=40_000, max_num_seqs=1)
    end_s = float(simulate(Workload([0.0], [40_000], [1]), config, POLICIES["vllm-v1"]).finish_s[0])
    for share, first in ((0.9, 2), (1.1, 1)):
        long_s = share * 0.1 * work[3] / work[1]
        workload = Workload([0.0, end_s - long_s, end_s - 0.1], [40_000, 1_050, 100], [1, 1, 1])
        assert rule.play(workload, config).first_scheduled_s.argsort().tolist() == [0, first, 3 - first]


def test_the_boundary_slides_with_the_load() -> None:
    deadline = np.array([4.0, 3.0, 5.0])
    calm = slide(0.0, deadline, np.array([0.3, 0.2, 0.1]), np.ones(3))
    assert calm.tolist() == [1, 0, 2], "time enough for all: by deadline"
    busy = slide(0.0, deadline, np.array([2.0, 2.5, 1.0]), np.ones(3))
    assert busy.tolist() == [2, 0, 1], "5.5 s of work, nobody has more slack: the densest first"
    assert slide(0.0, deadline, np.array([2.0, 2.5, 1.0]), np.array([0.5, 3.0, 0.3])).tolist() == [1, 2, 0]
    late = slide(3.5, deadline, np.array([2.0, 0.1, 1.0]), np.ones(3))
    assert late.tolist() == [2, 1, 0], "who can still be in time goes before those who cannot"


def test_far_deadlines_are_deadline_order() -> None:
    workload = make_workload("azure-conv", 200, seed=2, rate=6.0)
    patient = SlideBatching(ttft_slo_s=1e6).play(workload, TIGHT)
    assert patient.finished.all()
    hasty = SlideBatching(ttft_slo_s=1.0).play(workload, TIGHT)
    sarathi = simulate(workload, TIGHT, POLICIES["sarathi"])
    assert np.nanmean(hasty.ttft_s) < 0.8 * np.nanmean(sarathi.ttft_s)
    assert abs(np.nanmean(patient.ttft_s) / np.nanmean(sarathi.ttft_s) - 1.0) < 0.2


def test_a_gate_that_is_open_is_no_gate() -> None:
    workload = make_workload("azure-conv", 200, seed=3, rate=6.0)
    sarathi = simulate(workload, TIGHT, POLICIES["sarathi"])
    same_result(FluidGate(fill=1e6).play(workload, TIGHT), sarathi)
    assert FluidGate().play(workload, TIGHT).num_preemptions < 0.7 * sarathi.num_preemptions


def test_lots_are_drawn_by_the_seed() -> None:
    workload = make_workload("azure-conv", 100, seed=5, rate=8.0)
    first, again, other = (RandomOrder().play(workload, TIGHT, seed=seed) for seed in (1, 1, 2))
    same_result(first, again)
    assert (first.finish_s != other.finish_s).any()
