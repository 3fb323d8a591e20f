"""Routers of the table outside the simulator: the same choices, given the same signals."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import (
    Arrival,
    Asked,
    Door,
    Endpoint,
    Fleet,
    Gateway,
    Metrics,
    PythonRouter,
    Router,
    signal_weights,
    simulate_fleet,
)
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload

AT_THE_DOOR = [name for name in ROUTERS if not name.startswith("block")]
NUM_REPLICAS = 4


def traffic() -> Workload:
    """Two hundred requests of three tenants and thirty sessions, whose prompts share beginnings."""
    rng = np.random.default_rng(7)
    n, block = 200, 16
    blocks = rng.integers(1, 60, n)
    shared = np.minimum(rng.integers(0, 40, n), blocks)
    family = rng.integers(0, 5, n)
    hashes = [
        [1000 * family[r] + i for i in range(shared[r])] + [10**6 + 1000 * r + i for i in range(blocks[r] - shared[r])]
        for r in range(n)
    ]
    return Workload(
        np.sort(rng.uniform(0.0, 20.0, n)),
        blocks * block + rng.integers(0, block, n),
        rng.integers(1, 200, n),
        tenant=rng.integers(0, 3, n),
        session=rng.integers(0, 30, n),
        prefix_blocks=np.concatenate([np.array(h, np.int64) for h in hashes]),
        prefix_start=np.concatenate([[0], np.cumsum(blocks)]),
        prefix_block_size=block,
    )


class Through:
    """A router of the simulator that asks a door."""

    name = "through"

    def __init__(self, router: Router | PythonRouter, workload: Workload) -> None:
        self.router, self.workload, self.door = router, workload, None
        self.asked = 0

    def choose(self, arrival: Arrival) -> int:
        if self.door is None:
            self.door = Door(self.router, arrival.constants, seed=3)
        self.asked += 1
        return self.door.choose(
            arrival.signals,
            Asked(
                arrival.num_prompt_tokens,
                arrival.arrival_s,
                arrival.matched_tokens,
                arrival.candidates,
                int(self.workload.session[arrival.request]),
                int(self.workload.tenant[arrival.request]),
            ),
        )


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    config = EngineConfig(num_kv_tokens=6_000, prefix_caching=True)
    return Fleet.uniform(NUM_REPLICAS, config, POLICIES["vllm"])


@pytest.mark.parametrize("name", AT_THE_DOOR)
def test_a_door_chooses_as_the_simulated_router_does(name: str, fleet: Fleet) -> None:
    workload = traffic()
    router = ROUTERS[name]
    if name == "prefix-aware":  # the difference in load that makes it change its rule
        router = replace(router, most_difference=4.0)
    through = Through(router, workload)
    ours = simulate_fleet(workload, fleet, through)
    theirs = simulate_fleet(workload, fleet, router, seed=3)
    np.testing.assert_array_equal(ours.replica_of, theirs.replica_of)
    assert through.asked == len(workload)
    assert len(set(ours.replica_of.tolist())) == NUM_REPLICAS


@dataclass(frozen=True)
class Learned:
    """A linear model of a replica's signals, as a regression would fit it."""

    weights: tuple[float, ...]
    name: str = "learned"

    def choose(self, arrival: Arrival) -> int:
        costs = np.array(self.weights) @ arrival.signals
        return int(np.argmin(np.where(arrival.candidates, costs, math.inf)))


def test_a_learned_router_stands_at_the_door_as_it_is(fleet: Fleet) -> None:
    workload = traffic()
    learned = Learned((40.0, 5.0, 0.1, 0.0, -0.01, 0.0))
    ours = simulate_fleet(workload, fleet, Through(learned, workload))
    np.testing.assert_array_equal(ours.replica_of, simulate_fleet(workload, fleet, learned).replica_of)


def test_what_the_door_cannot_do_it_says() -> None:
    with pytest.raises(ValueError, match="runs copies of the replicas ahead"):
        Door(ROUTERS["block"], np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"constants must be \(2, endpoints\)"):
        Door(ROUTERS["sal"], np.ones(3))
    door = Door(ROUTERS["sal"], np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"signals must be \(6, 3\), got \(6, 2\)"):
        door.choose(np.ones((6, 2)), Asked(10))
    with pytest.raises(ValueError, match=r"matched_tokens must be \(3,\)"):
        door.choose(np.ones((6, 3)), Asked(10, matched_tokens=[1]))
    assert door.choose(np.ones((6, 3)), Asked(10, candidates=[False] * 3)) == -1


SERVERS = [Endpoint(num_kv_blocks=1000)] * 3


@pytest.mark.parametrize(
    ("name", "metrics", "chosen"),
    [
        # llm-d's sum with weights 2, 1, 1: 0 + 1 + 0.9, 2 x 0.75 + 0.5 + 0.5, 0 + 0 + 0.2
        ("llm-d", [Metrics(0, 9, 0.1), Metrics(2, 9, 0.5, 0.75), Metrics(4, 9, 0.8)], 1),
        # sal: nobody waits, but 1,600 and 3,200 free tokens do not hold the prompt of 4,000
        ("sal", [Metrics(0, 9, 0.9), Metrics(0, 9, 0.8), Metrics(0, 9, 0.5)], 2),
        # sal: 3 x 4,000, 0.5 x 4,000 and 2,500 tokens to prefill
        ("sal", [Metrics(3, 9, 0.1), Metrics(0.5, 9, 0.1), Metrics(9, 9, 0.1, waiting_tokens=2500)], 1),
        ("least-outstanding", [Metrics(0, 9, 0.1), Metrics(4, 1, 0.1), Metrics(0, 6, 0.9)], 1),
        ("least-outstanding", [Metrics(0, 9, 0.1), Metrics(4, 1, 0.1, healthy=False), Metrics(0, 6, 0.9)], 2),
        ("prefix-aware", [Metrics(0, 9, 0.1, 0.2), Metrics(0, 9, 0.1, 0.5), Metrics(0, 9, 0.1, 0.4)], 1),
        ("kv-share", [Metrics(0, 9, 0.4), Metrics(0, 9, 0.3), Metrics(1, 9, 0.2)], 1),
    ],
)
def test_a_gateway_picks_by_what_servers_publish(name: str, metrics: list[Metrics], chosen: int) -> None:
    assert Gateway(ROUTERS[name], SERVERS).pick(metrics, num_prompt_tokens=4000) == chosen


def test_ties_go_round_and_sessions_stay() -> None:
    gateway = Gateway(ROUTERS["round-robin"], SERVERS)
    idle = [Metrics(0, 0, 0.0)] * 3
    assert [gateway.pick(idle, 10) for _ in range(4)] == [0, 1, 2, 0]
    gateway = Gateway(ROUTERS["session-affinity"], SERVERS)
    busy = [Metrics(9, 9, 0.9), *idle[:2]]
    assert gateway.pick(idle, 10, session="a", arrival_s=0.0) == 0
    assert gateway.pick(busy, 10, session="a", arrival_s=300.0) == 0
    assert gateway.pick(busy, 10, session="a", arrival_s=601.0) == 1


def test_metrics_that_do_not_fit_are_one_line() -> None:
    gateway = Gateway(Router("mine", weights=signal_weights(num_waiting=1.0)), SERVERS)
    with pytest.raises(ValueError, match="3 endpoints need as many metrics, got 2"):
        gateway.pick([Metrics(0, 0, 0.0)] * 2, 10)
    with pytest.raises(ValueError, match="num_prompt_tokens must be at least 1"):
        gateway.pick([Metrics(0, 0, 0.0)] * 3, 0)
    with pytest.raises(ValueError, match="needs blocks"):
        Endpoint(num_kv_blocks=0)


def test_a_gateway_needs_no_compiler() -> None:
    code = (
        "import sys; from infermax_gym.baselines.routers import ROUTERS; from infermax_gym.cluster import Endpoint, "
        "Gateway, Metrics; g = Gateway(ROUTERS['sal'], [Endpoint(9)]); g.pick([Metrics(0, 0, 0)], 1); "
        "print('numba' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"
