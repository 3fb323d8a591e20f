"""How a contender is run and what it is told: every comparison, command and table goes through `run_contender`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from infermax_gym.cluster import DisaggregatedResult, FleetResult
from infermax_gym.engine import (
    EngineConfig,
    Information,
    Player,
    Policy,
    Scheduler,
    SimulationResult,
    Slo,
    simulate,
    summarize,
)
from infermax_gym.evaluation.fleets import FleetContender, Predict, figures_of
from infermax_gym.evaluation.groups import By, group_figures
from infermax_gym.workload import Workload

Contender = Policy | Scheduler | Player | FleetContender
"""A policy of the table, a scheduler written in Python, whatever serves whole workloads by itself, or a fleet."""


@dataclass(frozen=True, eq=False)
class Served:
    """One run of a contender.

    Attributes:
        result: the records of all requests; of a fleet, as if one engine had served them.
        fleet: what else is known of a fleet's run; None for one engine.
        wall_s: how long the simulation took, in seconds.
    """

    result: SimulationResult
    fleet: FleetResult | DisaggregatedResult | None
    wall_s: float

    def figures(self, config: EngineConfig, slo: Slo | None = None, by: By | None = None) -> dict[str, Any]:
        """What `summarize`, or of a fleet `summarize_fleet`, says, plus `wall_s`.

        Args:
            config: the engine that served the requests; not looked at for a fleet, which knows its own.
            slo: limits of requests that have none of their own.
            by: also compare tenants or SLO classes, see `group_figures`.
        """
        figures = summarize(self.result, config, slo) if self.fleet is None else figures_of(self.fleet, slo)
        groups = {} if by is None else group_figures(self.result, by, slo)
        return {**figures, **groups, "wall_s": self.wall_s}


def no_predictions(policy: Policy, workload: Workload, seed: int) -> None:
    """The predictor of a comparison without predicted lengths."""


def information_of(contender: Contender) -> str:
    """What a contender knows about output lengths, by name."""
    return Information(getattr(contender, "information", Information.NONE)).name.lower()


def with_slo(workload: Workload, slo: Slo | None) -> Workload:
    """The requests as contenders face them: those without limits of their own get the common ones."""
    return workload if slo is None else workload.with_limits(slo.ttft_s, slo.tpot_s)


def run_contender(
    contender: Contender,
    workload: Workload,
    config: EngineConfig,
    *,
    seed: int = 0,
    predict: Predict = no_predictions,
    record_schedule: bool = False,
) -> Served:
    """Serve a workload to its end under any kind of contender.

    Policies and fleets are told the output lengths that `predict` gives them; whatever plays by itself predicts by
    itself; a scheduler written in Python sees the truth if it declares `Information.ORACLE`, and nothing otherwise.

    Args:
        contender: who decides.
        workload: the requests, with the limits that contenders are told (see `with_slo`).
        config: the engine; of a fleet, of its replicas that have no other.
        seed: of the predictor, of routers and of players.
        predict: the predictor.
        record_schedule: keep every iteration; not of fleets.

    Raises:
        ValueError: the schedule of a fleet was asked for.
        WorkloadError: an output is longer than an engine promises its scheduler (`max_output_tokens`).
    """
    parts = contender.parts if isinstance(contender, FleetContender) else ()
    for engine in [part.config for part in parts] or [config]:
        workload.check_output_bound(engine.max_output_tokens)
    start = time.perf_counter()
    fleet: FleetResult | DisaggregatedResult | None = None
    if isinstance(contender, FleetContender):
        if record_schedule:
            raise ValueError("the schedule of a fleet cannot be recorded")
        predicted = contender.predicted(predict, workload, seed)
        fleet = contender.serve(workload, config, seed=seed, predicted=predicted)
        result = fleet.pooled
    elif isinstance(contender, Player):
        result = contender.play(workload, config, seed=seed, record_schedule=record_schedule)
    else:
        lengths = predict(contender, workload, seed) if isinstance(contender, Policy) else None
        result = simulate(workload, config, contender, predicted=lengths, record_schedule=record_schedule)
    return Served(result, fleet, time.perf_counter() - start)


def serve(
    contender: Contender,
    workload: Workload,
    config: EngineConfig,
    *,
    seed: int = 0,
    predict: Predict = no_predictions,
    record_schedule: bool = False,
) -> SimulationResult:
    """The records of `run_contender`, which says what the arguments are.

    A fleet of one replica is its engine alone, to the bit, and then need not be compiled. In a closed loop it is not:
    an engine rejects at its next boundary, a router at once.
    """
    if isinstance(contender, FleetContender) and not workload.is_closed_loop:
        contender = contender.alone(config) or contender
    return run_contender(
        contender, workload, config, seed=seed, predict=predict, record_schedule=record_schedule
    ).result
