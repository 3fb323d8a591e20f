"""How contenders are run: one owner, whatever they are, and nothing compiled while a clock runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numba.core import event
from numpy.typing import NDArray

from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Arrival, Fleet, Migration, Replica, simulate_fleet, summarize_fleet
from infermax_gym.cost import COSTS
from infermax_gym.engine import (
    Decision,
    EngineConfig,
    Information,
    OnlineView,
    Policy,
    SimulationResult,
    Slo,
    simulate,
    summarize,
)
from infermax_gym.evaluation import (
    Contender,
    FleetContender,
    FleetPart,
    PrefillPool,
    Scenario,
    contenders,
    evaluate,
    fleets,
    run_contender,
    serve,
    warm_up,
    warming,
    with_slo,
)
from infermax_gym.workload import Workload

CONFIG = EngineConfig(num_kv_tokens=600)
FCFS = Policy("fcfs")
ROUTER = ROUTERS["round-robin"]
REQUESTS = Workload(np.zeros(4), np.array([30, 5, 60, 2]), np.array([4, 1, 9, 2]))


class Player:
    """Serves whole workloads, and keeps which."""

    information = Information.BOUND

    def __init__(self) -> None:
        self.played: list[tuple[int, int]] = []

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        self.played.append((len(workload), seed))
        return simulate(workload, engine, FCFS, record_schedule=record_schedule)


class InPython:
    """A scheduler, or a router, that counts how often it is asked."""

    name = "in-python"
    information = Information.NONE
    asked = 0

    def decide(self, view: OnlineView) -> Decision:
        self.asked += 1
        group = view.running if len(view.running) else view.waiting
        known = group.num_prompt_tokens[0] + group.num_generated_tokens[0] - group.num_computed_tokens[0]
        return Decision([(int(group.request[0]), int(known))])

    def choose(self, arrival: Arrival) -> int:
        self.asked += 1
        return 0


def test_each_kind_is_run_as_itself() -> None:
    assert run_contender(FCFS, REQUESTS, CONFIG).fleet is None
    player = Player()
    assert run_contender(player, REQUESTS, CONFIG, seed=3, record_schedule=True).result.schedule is not None
    assert player.played == [(4, 3)]
    scheduler = InPython()
    assert run_contender(scheduler, REQUESTS, CONFIG).result.finished.all() and scheduler.asked > 0
    served = run_contender(FleetContender(FCFS, ROUTER, 2), REQUESTS, CONFIG)
    assert served.fleet is not None and served.result is served.fleet.pooled


def test_figures_are_those_of_an_engine_or_of_a_fleet() -> None:
    slo = Slo(ttft_s=0.5)
    alone = run_contender(FCFS, REQUESTS, CONFIG)
    assert alone.figures(CONFIG, slo) == {**summarize(alone.result, CONFIG, slo), "wall_s": alone.wall_s}
    fleet = run_contender(FleetContender(FCFS, ROUTER, 2), REQUESTS, CONFIG)
    result = simulate_fleet(REQUESTS, Fleet.uniform(2, CONFIG, FCFS), ROUTER)
    assert fleet.figures(CONFIG, slo) == {**summarize_fleet(result, slo), "wall_s": fleet.wall_s}
    assert set(alone.figures(CONFIG, slo, "tenant")) > {"groups", "fairness"}


def test_contenders_are_told_the_common_limits() -> None:
    own = replace(REQUESTS, ttft_slo_s=np.array([7.0, np.inf, np.inf, np.inf]))
    told = with_slo(own, Slo(ttft_s=0.5))
    np.testing.assert_array_equal(told.ttft_slo_s, [7.0, 0.5, 0.5, 0.5])
    assert with_slo(own, None) is own


def test_fleets_cost_busy_seconds_of_each_replica_at_its_own_price() -> None:
    """Half a fleet costs four times as much per hour; idle time costs nothing, however late the last request is."""
    cheap = replace(COSTS["llama2-7b-a100"], price_usd_per_device_hour=1.0)
    dear = replace(cheap, num_devices=2, price_usd_per_device_hour=2.0)
    parts = (FleetPart(1, replace(CONFIG, cost=cheap)), FleetPart(1, replace(CONFIG, cost=dear)))
    late = replace(REQUESTS, arrival_s=np.array([0.0, 0.0, 0.0, 5000.0]))
    served = run_contender(FleetContender(FCFS, ROUTER, 2, parts=parts), late, CONFIG)
    assert served.fleet is not None
    first, second = served.fleet.busy_s_of.tolist()  # type: ignore[union-attr]
    figures = served.figures(CONFIG)
    assert figures["gpu_cost_usd"] == pytest.approx((first * 1.0 + second * 2 * 2.0) / 3600.0, rel=1e-12)
    assert figures["makespan_s"] > 5000.0 > 100.0 * figures["busy_s"]
    unpriced = replace(served.fleet, fleet=Fleet((Replica(CONFIG, FCFS), Replica(parts[1].config, FCFS))))
    assert summarize_fleet(unpriced)["gpu_cost_usd"] is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fleet",
    [
        FleetContender(FCFS, ROUTER, 3),
        FleetContender(FCFS, ROUTER, 3, migration=Migration()),
        FleetContender(FCFS, ROUTER, 3, prefill=PrefillPool(1, ROUTER)),
        FleetContender(FCFS, InPython(), 3),
    ],
    ids=["router", "migration", "prefill", "python"],
)
def test_the_first_run_of_a_fleet_is_not_charged_for_the_warm_up(
    fleet: FleetContender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which whatever fleets call for the first time takes 100 s, and 1 s from then on."""
    now = [0.0]
    seen: set[str] = set()

    def slow_at_first(name: str) -> None:
        real = getattr(fleets, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            now[0] += 1.0 if name in seen else 100.0
            seen.add(name)
            return result

        monkeypatch.setattr(fleets, name, call)

    for name in ("simulate_fleet", "simulate_disaggregated"):
        slow_at_first(name)
    monkeypatch.setattr(contenders.time, "perf_counter", lambda: now[0])
    figures = evaluate(Scenario(REQUESTS, CONFIG), {"fleet": fleet}).summary()["fleet"]
    assert figures["wall_s"] == 1.0
    assert now[0] == 101.0


def test_players_are_warmed_up_and_what_may_remember_is_not() -> None:
    player, scheduler, router = Player(), InPython(), InPython()
    warm_up([player, scheduler, FleetContender(FCFS, router, 2)], CONFIG)
    assert len(player.played) == 1
    assert scheduler.asked == router.asked == 0


def test_each_kind_of_fleet_is_warmed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[Contender, bool]] = []

    def record(contender: Contender, workload: Workload, config: EngineConfig, **options: Any) -> None:
        ran.append((contender, config.prefix_caching))

    monkeypatch.setattr(warming, "serve", record)
    caching = EngineConfig(prefix_caching=True)
    alike = [FleetContender(FCFS, router, 4) for router in ROUTERS.values()]
    warm_up([FCFS, *alike, replace(alike[0], migration=Migration())], caching)
    kinds = [type(contender).__name__ for contender, _ in ran]
    assert kinds == ["Policy", "FleetContender", "FleetContender"]
    assert all(is_caching for _, is_caching in ran)


def test_a_compilation_is_announced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def compiling(*arguments: object, **options: object) -> None:
        for _ in range(2):
            with event.trigger_event("numba:compile"):
                pass

    monkeypatch.setattr(warming, "serve", compiling)
    warm_up([InPython()], CONFIG, lambda: said.append("compiling"))
    assert said == ["compiling"]
    monkeypatch.setattr(warming, "serve", lambda *arguments, **options: None)
    warm_up([InPython()], CONFIG, lambda: said.append("again"))
    assert said == ["compiling"]


def test_predictions_reach_policies_and_fleets() -> None:
    asked: list[str] = []

    def predict(policy: Policy, workload: Workload, seed: int) -> NDArray[np.float64] | None:
        asked.append(policy.name)
        return workload.num_output_tokens.astype(np.float64)

    clairvoyant = Policy("clairvoyant", information=Information.ORACLE)
    serve(clairvoyant, REQUESTS, CONFIG, predict=predict)
    serve(FleetContender(clairvoyant, ROUTER, 2), REQUESTS, CONFIG, predict=predict)
    assert asked == ["clairvoyant", "clairvoyant"]
