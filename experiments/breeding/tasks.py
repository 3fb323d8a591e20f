"""What a candidate is trained on: trace slices of a scenario, and what the rival reaches there.

In each scenario the loss of a candidate is the logarithm of what it reaches over what the family of rules reaches there
when tuned for that very scenario (`experiments.board.rivals`), so that every scenario counts alike. What a candidate
loses beyond that rival counts several times, so that no scenario is sacrificed for the average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from experiments.board.rivals import Rivals
from experiments.board.scenarios import MEMORIES, MODELS, SCENARIOS
from experiments.breeding.breeds import Breed
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TRAIN, TraceSlice, TrainingScenario, trace_slices
from infermax_gym.engine import SimulationResult


@dataclass(frozen=True, eq=False)
class Task:
    """A scenario to train on: its trace slices, what the rival reaches on each, and the scenario's name."""

    trace_slices: Sequence[TraceSlice]
    rival: Sequence[SimulationResult]
    scenario: str


def training_tasks(breed: Breed, rivals: Rivals, seed: int = 0) -> list[Task]:
    """The training trace slices of a breed, with its rival's results."""
    made = [
        task_of(breed, rivals, name, scenario, breed.num_slices, seed)
        for name, scenario in SCENARIOS.items()
        if breed.scenarios(name)
    ]
    # Long backlogs: what a trace slice of a few hundred requests never shows.
    if breed.rival == "mean":
        for model, memory in product(MODELS, MEMORIES):
            name = f"conv-{memory}-overloaded-{model}"
            if breed.scenarios(name):
                made.append(task_of(breed, rivals, name, replace(SCENARIOS[name], num_requests=2500), 1, seed + 7))
    return made


def task_of(breed: Breed, rivals: Rivals, name: str, scenario: TrainingScenario, num_slices: int, seed: int) -> Task:
    """Trace slices of a scenario, and what the rival of that name reaches there."""
    held = trace_slices(scenario, num_slices, split=TRAIN, seed=seed)
    label = "per-cell" if breed.rival == "mean" else f"per-cell-{breed.rival}"
    policies = rivals.policies_of(name)
    rival = policies.get(label) or policies[breed.rival]
    results = [trace_slice.serve(rival) for trace_slice in held]
    return Task(held, results, name)


def behind(results: Sequence[SimulationResult], rivals: Sequence[SimulationResult], plan: Breed) -> float:
    """How much worse than a rival in the main figure, on the average of the slices of a scenario, in logarithms."""
    main = Objective() if plan.objective.mean_latency else plan.objective
    return float(np.mean([main.loss(a) - main.loss(b) for a, b in zip(results, rivals, strict=True)]))


def excess(results: Sequence[SimulationResult], rivals: Sequence[SimulationResult], plan: Breed) -> float:
    """How much worse than a rival on the trace slices of a scenario, in logarithms.

    What the main figure loses on the average of the trace slices counts `1 + hinge` times. On a single trace slice
    chance would decide, and avoiding chance is not the aim.
    """
    whole = [plan.objective.loss(a) - plan.objective.loss(b) for a, b in zip(results, rivals, strict=True)]
    return float(np.mean(whole)) + plan.hinge * max(0.0, behind(results, rivals, plan))


Measure = Callable[[Sequence[SimulationResult], Sequence[SimulationResult], Breed], float]
"""Of results and a rival's on the same trace slices."""
