"""What must hold between fleets, routers and single engines."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import router_predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.baselines.table.shares import SPF_SHARE
from infermax_gym.cluster import Arrival, Fleet, Replica, Router, Score, signal_weights, simulate_fleet
from infermax_gym.cluster.simulate import FleetRun
from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.workload import Workload, make_workload
from tests.cluster.strategies import fleets, routers
from tests.engine.same import same_result
from tests.engine.strategies import examples, predictions, workloads

# Effective values must not depend on which requests a replica happens to get, where it is replayed alone.
CONFIG = EngineConfig(num_kv_tokens=12_000, max_model_len=16_384, max_output_tokens=2_048)


def conversation(num_requests: int, rate_per_s: float) -> Workload:
    return make_workload("azure-conv", num_requests, seed=1).with_rate(rate_per_s)


def rows(workload: Workload, chosen: np.ndarray) -> Workload:
    """Some requests of a workload, at their own times."""
    names = ("arrival_s", "num_prompt_tokens", "num_output_tokens", "priority", "ttft_slo_s", "tpot_slo_s")
    return Workload(**{name: getattr(workload, name)[chosen] for name in names})


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
@pytest.mark.parametrize("policy", ["vllm-v1", "srpt-oracle", "hrrn", "vllm-v0-swap"])
def test_one_replica_is_no_router(policy: str, router: Router) -> None:
    workload = conversation(300, 4.0)
    predicted = workload.num_output_tokens.astype(float)
    alone = simulate(workload, CONFIG, POLICIES[policy], predicted=predicted)
    for staleness_s in (0.0, 0.7):
        fleet = Fleet.uniform(1, CONFIG, POLICIES[policy], staleness_s=staleness_s)
        same_result(simulate_fleet(workload, fleet, router, predicted=predicted).pooled, alone)


@examples(100)
@given(data=st.data(), workload=workloads(), fleet=fleets(max_replicas=1), router=routers())
def test_one_hostile_replica_is_no_router(
    data: st.DataObject, workload: Workload, fleet: Fleet, router: Router
) -> None:
    predicted = data.draw(predictions(workload))
    replica = fleet.replicas[0]
    alone = simulate(workload, replica.config, replica.policy, predicted=predicted)
    same_result(simulate_fleet(workload, fleet, router, predicted=predicted).pooled, alone)


def mixed_fleet(staleness_s: float = 0.0) -> Fleet:
    kinds = (
        Replica(CONFIG, POLICIES["vllm-v1"]),
        Replica(replace(CONFIG, num_kv_tokens=30_000), POLICIES["sarathi"]),
        Replica(replace(CONFIG, max_num_batched_tokens=256), POLICIES["spf-headroom"]),
    )
    return Fleet((*kinds, *kinds), staleness_s)


@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
def test_replicas_do_what_they_would_do_alone(router: Router) -> None:
    workload, fleet = conversation(1_000, 25.0), mixed_fleet(0.05)
    predicted_lengths = router_predictions(router, workload)
    result = simulate_fleet(workload, fleet, router, seed=3, predicted=predicted_lengths)
    assert (result.pooled.status == 0).all()
    assert result.num_requests_of.sum() == len(workload)
    for i, replica in enumerate(fleet.replicas):
        mine = np.flatnonzero(result.replica_of == i)
        assert len(mine) == result.num_requests_of[i] > 0
        alone = simulate(rows(workload, mine), replica.config, replica.policy)
        for name in ("first_scheduled_s", "first_token_s", "finish_s", "num_preemptions_of", "num_generated_tokens"):
            np.testing.assert_array_equal(getattr(result.pooled, name)[mine], getattr(alone, name), err_msg=name)
        assert (result.busy_s_of[i], result.num_iterations_of[i]) == (alone.busy_s, alone.num_iterations)
    granted = result.pooled.num_generated_tokens
    np.testing.assert_array_equal(granted, workload.num_output_tokens)
    assert result.pooled.gap_counts.sum() == (workload.num_output_tokens - 1).sum()


class ToTheLast:
    """Sends everything to the last candidate."""

    name = "to-the-last"

    def choose(self, arrival: Arrival) -> int:
        return int(np.flatnonzero(arrival.candidates)[-1])


@pytest.mark.parametrize("policy", ["vllm-v1", "spf-headroom", "hrrn", "larry"])
def test_room_is_made_where_requests_go(policy: str) -> None:
    """Everything goes to one of 40 replicas, which starts with room for a fraction of it."""
    workload = conversation(700, 6.0)
    result = simulate_fleet(workload, Fleet.uniform(40, CONFIG, POLICIES[policy]), ToTheLast())
    assert result.num_requests_of[-1] == 700
    alone = simulate(workload, CONFIG, POLICIES[policy])
    np.testing.assert_array_equal(result.pooled.finish_s, alone.finish_s)
    assert result.pooled.busy_s == alone.busy_s


class LeastOutstanding:
    """The row of that name, once more."""

    name = "python"

    def __init__(self, num_replicas: int) -> None:
        self.last = num_replicas - 1

    def choose(self, arrival: Arrival) -> int:
        there = arrival.signals[0] + arrival.signals[1]
        line = np.roll(np.arange(len(there)), -self.last - 1)
        self.last = int(min(line[arrival.candidates[line]], key=there.__getitem__))
        return self.last


@pytest.mark.parametrize("staleness_s", [0.0, 0.5])
def test_routers_in_python_are_equal_in_rights(staleness_s: float) -> None:
    workload, fleet = conversation(500, 20.0), mixed_fleet(staleness_s)
    compiled = simulate_fleet(workload, fleet, ROUTERS["least-outstanding"])
    python = simulate_fleet(workload, fleet, LeastOutstanding(fleet.num_replicas))
    np.testing.assert_array_equal(python.replica_of, compiled.replica_of)
    same_result(python.pooled, compiled.pooled)


def test_signals_that_never_come_are_no_signals() -> None:
    workload = conversation(200, 20.0)
    fleet = Fleet.uniform(5, CONFIG, POLICIES["vllm-v1"], staleness_s=1e9, counts_routed=False)
    expected = simulate_fleet(workload, fleet, ROUTERS["round-robin"]).replica_of
    np.testing.assert_array_equal(expected, np.arange(200) % 5)
    for name in ("least-outstanding", "vllm-dp", "queued-tokens", "kv-share", "sal", "lmetric", "llumnix"):
        np.testing.assert_array_equal(simulate_fleet(workload, fleet, ROUTERS[name]).replica_of, expected)


def test_staleness_and_counting_matter() -> None:
    workload = conversation(600, 24.0)
    went = {
        (staleness_s, counts): simulate_fleet(
            workload,
            Fleet.uniform(5, CONFIG, POLICIES["vllm-v1"], staleness_s=staleness_s, counts_routed=counts),
            ROUTERS["least-outstanding"],
        )
        for staleness_s, counts in ((0.0, True), (0.0, False), (2.0, True), (2.0, False))
    }
    same_result(went[0.0, True].pooled, went[0.0, False].pooled)
    assert (went[2.0, True].replica_of != went[0.0, True].replica_of).any()
    assert (went[2.0, True].replica_of != went[2.0, False].replica_of).any()
    assert went[2.0, False].request_imbalance >= went[2.0, True].request_imbalance


def test_a_sample_of_all_is_all() -> None:
    """Where nothing ties, drawing every replica finds the same best one."""
    signals = np.random.default_rng(0).uniform(1.0, 9.0, (6, 12))
    row = ROUTERS["least-outstanding"]
    assert chosen(row, signals) == chosen(replace(row, num_choices=12), signals)


def chosen(router: Router, signals: np.ndarray, prompt: int = 50, **more: np.ndarray) -> int:
    """Where a router sends a request, given what it sees and knows."""
    run = FleetRun(Workload([0.0], [prompt], [1]), Fleet.uniform(signals.shape[1], CONFIG), router)
    run.state.arrays["seen"][:] = signals
    for name, values in more.items():
        run.state.arrays[name][:] = values
    run.route(np.full((1, router.num_choices), 0.4))
    return int(run.state.arrays["replica_of"][0])


@pytest.mark.parametrize(
    "router",
    [
        r
        for r in ROUTERS.values()
        if (r.needs_signals or r.uses_prefixes) and not r.num_choices and r.score != Score.AHEAD  # sees engines
    ],
    ids=lambda router: router.name,
)
def test_choices_follow_a_renaming_of_replicas(router: Router) -> None:
    rng = np.random.default_rng(7)
    different = set()
    for _ in range(50):
        signals = rng.uniform(1.0, 9.0, (6, 9))
        known = {
            "constants": rng.uniform(500.0, 600.0, (2, 9)),
            "sent": rng.permutation(90)[:9],
            "matched": rng.permutation(30)[:9],
        }
        if router.score == Score.E2:
            known["recent_tokens"] = rng.permutation(900)[:9]
        if router.score == Score.DEFICIT:
            known["charged"] = rng.integers(0, 3 * router.quantum_tokens, (1, 9))
        order = rng.permutation(9)
        best = chosen(router, signals, **known)
        renamed = {name: values[..., order] for name, values in known.items()}
        assert order[chosen(router, signals[:, order], **renamed)] == best
        different.add(best)
    assert len(different) > 3


def test_ties_go_round() -> None:
    signals = np.zeros((6, 4))
    signals[0, 1] = 1.0
    run = FleetRun(Workload(np.zeros(6), np.ones(6), np.ones(6)), Fleet.uniform(4, CONFIG), Router("round-robin"))
    run.route(np.zeros((6, 0)))
    assert run.state.arrays["replica_of"].tolist() == [0, 1, 2, 3, 0, 1]
    assert chosen(ROUTERS["least-outstanding"], signals) == 0
    signals[0, 0] = 1.0
    assert chosen(ROUTERS["least-outstanding"], signals) == 2


def test_scores_by_hand() -> None:
    """Two replicas: 3 waiting, 2 running, 900 + 100 tokens, 500 free; 1 waiting, 8 running, 300 + 0 tokens, 50 free."""
    signals = np.array([[3.0, 1.0], [2.0, 8.0], [900.0, 300.0], [1000.0, 300.0], [500.0, 50.0], [10.0, 10.0]])
    constants = np.array([[1000.0, 1000.0], [200.0, 100.0]])
    expected = {
        "least-outstanding": 0,  # 5 against 9
        "least-pending": 1,  # 3 against 1
        "queued-tokens": 1,  # 1000 against 300
        "kv-share": 1,  # 1.4 against 1.25
        "llumnix": 1,  # -400 / 5 = -80 against -250 / 9 = -27.8
        "vllm-dp": 1,  # 14 against 12
        "lmetric": 1,  # 1050 x 5 = 5250 against 350 x 9 = 3150
        "sal": 1,  # 5 s against max(3 s, 0)
        "llm-d": 1,  # 2 x 0 + 0 + 0.5 against 2 x 0 + 1 + 0.05
    }
    for name, best in expected.items():
        assert chosen(ROUTERS[name], signals, constants=constants) == best, name
    assert chosen(ROUTERS["sal"], signals, prompt=110, constants=constants) == 0  # 5 s against max(3 s, 60 / 10 s)


def test_what_fits_nowhere_is_rejected_and_what_fits_somewhere_is_served() -> None:
    small, large = (Replica(replace(CONFIG, num_kv_tokens=size), POLICIES["vllm-v1"]) for size in (1_600, 6_400))
    workload = Workload(np.arange(8.0), [2_000, 100, 9_000, 100, 2_000, 100, 100, 3_000], np.full(8, 20))
    for router in (*ROUTERS.values(), ToTheLast()):
        predicted_lengths = workload.num_output_tokens.astype(float)
        result = simulate_fleet(workload, Fleet((small, small, large, small)), router, predicted=predicted_lengths)
        assert result.pooled.status.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
        assert result.replica_of[[0, 2, 4, 7]].tolist() == [2, -1, 2, 2]
        assert result.num_requests_of.sum() == 7


def test_copies_are_independent() -> None:
    workload, fleet = conversation(300, 20.0), mixed_fleet()
    run = FleetRun(workload, fleet, ROUTERS["sal"])
    run.route(np.zeros((150, 0)))
    twin = FleetRun(workload, fleet, ROUTERS["sal"])
    twin.state = run.state.copy()
    run.route(np.zeros((150, 0)))
    run.finish()
    assert twin.next_request == 150
    twin.route(np.zeros((150, 0)))
    twin.finish()
    first, second = run.result(), twin.result()
    np.testing.assert_array_equal(first.pooled.finish_s, second.pooled.finish_s)
    np.testing.assert_array_equal(first.replica_of, second.replica_of)


def test_one_seed_one_result() -> None:
    workload, fleet = conversation(300, 20.0), mixed_fleet()
    runs = [simulate_fleet(workload, fleet, ROUTERS["power-of-two"], seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0].replica_of, runs[1].replica_of)
    assert (runs[0].replica_of != runs[2].replica_of).any()


def test_no_requests() -> None:
    result = simulate_fleet(Workload([], [], []), Fleet.uniform(3, CONFIG), ROUTERS["sal"])
    assert isinstance(result.pooled, SimulationResult)
    assert result.num_requests_of.tolist() == [0, 0, 0]
    assert result.request_imbalance == 1.0


class Astray:
    name = "astray"

    def __init__(self, replica: int) -> None:
        self.replica = replica

    def choose(self, arrival: Arrival) -> int:
        return self.replica


def test_bad_settings_say_so() -> None:
    with pytest.raises(ValueError, match="at least one replica"):
        Fleet(())
    with pytest.raises(ValueError, match="at least one replica"):
        Fleet.uniform(0)
    with pytest.raises(ValueError, match="'crowd' cannot run in a fleet"):
        Fleet.uniform(2, CONFIG, Policy("crowd", min_waiting=2))
    with pytest.raises(TypeError, match=r"a policy of the table, got Shares; shares have resolve\(config\)"):
        Fleet.uniform(2, CONFIG, SPF_SHARE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="staleness_s"):
        Fleet.uniform(1, staleness_s=-1.0)
    with pytest.raises(ValueError, match="unknown signal 'speed'"):
        signal_weights(speed=1.0)
    with pytest.raises(ValueError, match="num_choices"):
        Router("x", num_choices=17)
    with pytest.raises(ValueError, match="weights"):
        Router("x", score=Score.WEIGHTED, weights=(1.0,))
    with pytest.raises(ValueError, match="AHEAD looks at all replicas"):
        Router("x", score=Score.AHEAD, num_choices=2)
    with pytest.raises(ValueError, match="horizon_s"):
        Router("x", score=Score.AHEAD, horizon_s=0.0)
    with pytest.raises(ValueError, match="first_guess_tokens"):
        Router("x", score=Score.AHEAD, first_guess_tokens=0)
    with pytest.raises(ValueError, match="has no use for predicted lengths"):
        replace(ROUTERS["sal"], information=ROUTERS["block-predicted"].information)
    with pytest.raises(ValueError, match="'block-predicted' needs `predicted`"):
        simulate_fleet(conversation(5, 1.0), Fleet.uniform(2, CONFIG), ROUTERS["block-predicted"])
    with pytest.raises(ValueError, match="needs `predicted`"):
        simulate_fleet(conversation(5, 1.0), Fleet.uniform(2, CONFIG, POLICIES["sjf-oracle"]), ROUTERS["random"])


@pytest.mark.parametrize(("replica", "what"), [(2, "replica 2 of 2"), (-1, "replica -1 of 2"), (0, "never hold")])
def test_python_routers_that_choose_badly(replica: int, what: str) -> None:
    from infermax_gym.cluster import RouterError

    small = Replica(replace(CONFIG, num_kv_tokens=160), Policy("fcfs"))
    with pytest.raises(RouterError, match=what):
        simulate_fleet(Workload([0.0], [500], [5]), Fleet((small, Replica(CONFIG))), Astray(replica))


def test_predictions_by_policy_name() -> None:
    workload = conversation(200, 8.0)
    policy = POLICIES["sjf-oracle"]
    truth = workload.num_output_tokens.astype(float)
    fleet = Fleet((Replica(CONFIG, policy), Replica(CONFIG, POLICIES["vllm-v1"])))
    by_name = simulate_fleet(workload, fleet, ROUTERS["round-robin"], predicted={policy.name: truth})
    for_all = simulate_fleet(workload, fleet, ROUTERS["round-robin"], predicted=truth)
    same_result(by_name.pooled, for_all.pooled)
    alone = simulate(rows(workload, np.arange(0, 200, 2)), CONFIG, policy, predicted=truth[::2])
    np.testing.assert_array_equal(by_name.pooled.finish_s[::2], alone.finish_s)


def test_the_copy_of_a_replica_does_what_the_replica_will_do() -> None:
    """With true lengths, a router that looks ahead at the last request knows when it finishes."""
    workload, fleet = conversation(300, 30.0), mixed_fleet()
    predicted_lengths = workload.num_output_tokens.astype(float)
    block = replace(ROUTERS["block-predicted"], horizon_s=1e6)
    went = simulate_fleet(workload, fleet, block, predicted=predicted_lengths)
    others = []
    for i in range(fleet.num_replicas):
        run = FleetRun(workload, fleet, block, predicted_lengths)
        run.route(np.zeros((299, 0)), predicted=predicted_lengths)
        run.state.lay_out(np.zeros((1, 0)), predicted_lengths)
        run.show(np.zeros(fleet.num_replicas, bool))
        run.send(i)
        run.finish()
        others.append(float(run.result().pooled.finish_s[-1]))
    assert went.pooled.finish_s[-1] == min(others)
    assert went.replica_of[-1] == int(np.argmin(others))
    assert went.pooled.num_preemptions > 0


def test_looking_ahead_survives_copies() -> None:
    workload, fleet = conversation(300, 20.0), mixed_fleet()
    run = FleetRun(workload, fleet, ROUTERS["block"])
    run.route(np.zeros((150, 0)))
    twin = pickle.loads(pickle.dumps(run))
    for each in (run, twin):
        each.route(np.zeros((150, 0)))
        each.finish()
    np.testing.assert_array_equal(run.result().pooled.finish_s, twin.result().pooled.finish_s)


def test_sessions_stay_where_they_began() -> None:
    """Two conversations and a stranger: each goes on where it began until it was silent for too long."""
    arrivals = [0.0, 0.1, 0.2, 30.0, 40.0, 1000.0]
    workload = Workload(arrivals, [400, 300, 50, 90, 80, 70], [300, 200, 9, 9, 9, 9], session=[7, 8, 9, 8, 7, 8])
    fleet = Fleet.uniform(3, CONFIG, POLICIES["vllm"])
    went = simulate_fleet(workload, fleet, ROUTERS["session-affinity"]).replica_of.tolist()
    assert went[:5] == [0, 1, 2, 1, 0]
    assert went[5] == 1, "after 970 s anybody may have it; all are empty, and 1 comes after 0"
    forever = replace(ROUTERS["least-outstanding"], sticky_s=1e9)
    assert simulate_fleet(workload, fleet, forever).replica_of.tolist() == [0, 1, 2, 1, 0, 1]
    for own in (replace(workload, session=np.arange(6)), replace(workload, session=[0] * 6)):
        stuck = simulate_fleet(own, fleet, ROUTERS["session-affinity"]).replica_of
        if own.session[5] == 0:
            assert (stuck[:5] == stuck[0]).all()
        else:
            free = simulate_fleet(own, fleet, ROUTERS["least-outstanding"]).replica_of
            np.testing.assert_array_equal(stuck, free)
