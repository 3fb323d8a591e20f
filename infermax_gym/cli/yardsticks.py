"""What `bench` measures schedulers against: certified bounds, and the best schedules that a search finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    from infermax_gym.engine import EngineConfig
    from infermax_gym.evaluation import Contender, Evaluation, Scenario
    from infermax_gym.workload import Traffic, Workload

Bounds = dict[str, list[float]]
"""Objective ("makespan", "latency") to a lower bound of each seed, seconds."""

_FIGURES = {"makespan": "makespan_s", "latency": "latency_s.mean"}


def check(config: EngineConfig, fleet_option: str | None, traffic: Traffic) -> None:
    """Bounds hold for one engine whose requests share no KV; `fleet_option` is the option that asks for a fleet.

    Raises:
        InputError: for a fleet, with a prefix cache, or where requests are sent when others have ended.
    """
    if not traffic.is_open:
        option = "--concurrency" if traffic.concurrency is not None else "--sessions"
        raise InputError(f"--bound and --optimum need arrivals that are known beforehand, not {option}")
    if fleet_option is not None or config.prefix_caching:
        what = f"a fleet ({fleet_option})" if fleet_option is not None else "a prefix cache (--prefix-caching)"
        raise InputError(f"--bound and --optimum are about one engine without shared prefixes, not {what}")


def certified(requests: Callable[[int], Workload], config: EngineConfig, num_seeds: int) -> Bounds:
    """The bounds of every seed."""
    from infermax_gym.baselines.optimum.bounds import certify

    found = [certify(requests(seed), config) for seed in range(num_seeds)]
    return {"makespan": [b.makespan_s for b in found], "latency": [b.mean_latency_s for b in found]}


def add_optima(
    evaluation: Evaluation, scenario: Scenario, bounds: Bounds, num_seeds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Search the best schedules, append their runs, and sharpen the bounds by what is proven.

    Returns:
        By the name of each new policy: its status and its mean gap.

    Raises:
        InputError: a request can never fit, or the workload is too large for a plan.
    """
    from infermax_gym.baselines.optimum.instance import Instance, InstanceError
    from infermax_gym.baselines.optimum.portfolio import solve
    from infermax_gym.evaluation import Run, Served

    notes: dict[str, dict[str, Any]] = {}
    for objective in ("makespan", "latency"):
        found = []
        for seed in range(num_seeds):
            requests = scenario.requests(seed)
            try:
                instance = Instance.from_workload(requests, scenario.config)
            except InstanceError as error:
                raise InputError(f"--optimum: {error}") from None
            if len(instance) < len(requests):
                missing = len(requests) - len(instance)
                raise InputError(f"--optimum needs requests that fit the engine; {missing} of {len(requests)} do not")
            began = time.perf_counter()
            solution = solve(instance, objective, time_limit_s=seconds, seed=seed)  # type: ignore[arg-type]
            if solution.run is None:
                continue
            served = Served(solution.run, None, time.perf_counter() - began)
            figures = served.figures(scenario.config, scenario.slo, scenario.by)
            bounds[objective][seed] = max(bounds[objective][seed], solution.lower_bound_s)
            found.append((solution, figures))
            if solution.interrupted:
                return notes
        if len(found) == num_seeds:
            proven = all(solution.status == "optimal" for solution, _ in found)
            name = f"{'optimal' if proven else 'best-known'}-{objective}"
            gap = float(np.mean([solution.gap for solution, _ in found]))
            notes[name] = {"status": "optimal" if proven else "feasible", "gap": gap, "seconds": seconds}
            evaluation.runs += [Run(name, "oracle", seed, figures) for seed, (_, figures) in enumerate(found)]
    return notes


def means(bounds: Bounds) -> dict[str, float]:
    """The bounds by figure, means over the seeds."""
    return {f"{objective}_s": sum(found) / len(found) for objective, found in bounds.items()}


def measured(
    evaluation: Evaluation, contenders: Mapping[str, Contender], bounds: Bounds, optima: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The figures by policy, with what a search found of itself ("optimum") and how far each is above the bounds.

    "over_bound" says by what share makespan and mean latency exceed the bounds, over the seeds. Policies with a token
    budget of their own, or that leave requests unfinished, play another game and get none.
    """
    policies = evaluation.summary()
    for name, note in optima.items():
        policies[name]["optimum"] = note
    for name, figures in policies.items():
        unfinished = figures["num_finished"] + figures["num_rejected"] < figures["num_requests"]
        if unfinished or not figures["num_finished"] or _has_own_budget(contenders.get(name)):
            continue
        ratios = {
            objective: evaluation.values(name, figure) / np.array(bounds[objective])
            for objective, figure in _FIGURES.items()
            if all(bounds[objective])
        }
        figures["over_bound"] = {objective: float(np.mean(ratio) - 1.0) for objective, ratio in ratios.items()}
    return policies


def _has_own_budget(contender: Contender | None) -> bool:
    """Whether a policy's token budget is not the engine's: it brings one, or needs one that whole prompts fit."""
    from infermax_gym.engine import Policy

    return isinstance(contender, Policy) and (contender.max_num_batched_tokens is not None or not contender.chunking)
