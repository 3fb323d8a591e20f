"""Breeding one linear controller over many scenarios at once, as specialists are bred too.

`python -m experiments.breeding.breed NAME` does it.

A candidate plays the training trace slices of its scenarios. In each scenario its loss is the logarithm of what it
reaches over what the family of rules reaches there when tuned for that very scenario (`experiments.board.rivals`), so
that every scenario counts alike; what it loses beyond that rival counts several times, so that it gives nothing up
anywhere for the sake of the average.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.board.rivals import SIGMA, Rivals, load_rivals
from experiments.board.scenarios import MEMORIES, MODELS, SCENARIOS, has_slos
from infermax_gym.agents.agent import Agent
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_layout import CONTROLLER_FEATURES, CONTROLLER_KNOBS, NUM_FEATURES, NUM_KNOBS
from infermax_gym.agents.evolution import SearchResult, Vector, minimise
from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TRAIN, TraceSlice, TrainingScenario, trace_slices
from infermax_gym.agents.storage import ZOO, load_agent, save_agent
from infermax_gym.engine import SimulationResult, simulate

Report = Callable[[str], None]
"""Gets a line now and then."""

CENTRE = 0.4
"""What features are counted from in the search, so that a context weight does not shift the knob everywhere."""

CONTEXT = (
    "decode_context",
    "capacity",
    "decode_seconds",
    "free_blocks",
    "log_output",
    "log_output_spread",
    "arrivals_share",
    "mean_prompt",
    "backlog",
    "long_wait",
    "preemption_rate",
    "context_cost",
)
_KNOBS_OF_THE_ENVIRONMENT = CONTROLLER_KNOBS[:11]
_UNINFORMED = tuple(k for k in CONTROLLER_KNOBS if k not in ("shed", "class_ttft"))


@dataclass(frozen=True)
class Breed:
    """How to make one shipped controller.

    Attributes:
        note: what it is, one line.
        objective: what it is scored by, in each scenario over what the rival reaches.
        rival: setting of the family that it is measured against; see `Rivals.per_cell`.
        scenarios: their names, by a test of the name.
        knobs: what it may set.
        features: what it may look at, besides the constant.
        start: which global setting of the family the search begins at.
        estimates_lengths: see `Controller`.
        classes: see `Controller`.
        sigma: see `Controller`.
        interval_s: see `Controller`.
        hinge: how many times a loss beyond the rival counts.
        stride: a generation plays every so-manieth scenario, in turn.
        generations: of the constant weights alone, then of all.
        population: candidates of a generation.
        num_slices: training trace slices of a scenario ...
        slices_at_once: ... of which a generation plays so many in each scenario, in turn.
    """

    note: str
    objective: Objective
    rival: str
    scenarios: Callable[[str], bool] = lambda name: True
    knobs: tuple[str, ...] = _UNINFORMED
    features: tuple[str, ...] = CONTEXT
    start: str = "mean"
    estimates_lengths: bool = True
    classes: bool = False
    sigma: float | None = None
    interval_s: float = 2.0
    hinge: float = 3.0
    stride: int = 2
    generations: tuple[int, int] = (30, 240)
    population: int = 20
    num_slices: int = 6
    slices_at_once: int = 1


BREEDS: dict[str, Breed] = {
    "generalist": Breed(
        "one controller for all traffic, memory, load and both models; knows no lengths",
        Objective(mean_latency=1.0, p99_latency=1.0),
        "mean",
        start="blend",
        hinge=2.0,
    ),
    "informed": Breed(
        "told classes and noisy lengths, which it weighs against what requests have generated already",
        Objective(),
        "informed",
        lambda name: name.startswith(("mixed", "reasoning", "rollouts")),
        knobs=tuple(k for k in CONTROLLER_KNOBS if k != "shed"),
        classes=True,
        sigma=SIGMA,
        stride=1,
    ),
    "goodput": Breed(
        "as many requests as possible within their limits on first token and time per token",
        Objective(mean_latency=0.0, goodput=1.0),
        "goodput",
        has_slos,
        knobs=CONTROLLER_KNOBS,
        features=(*CONTEXT, "missed_share", "good_share"),
        classes=True,
        interval_s=1.0,
        generations=(30, 160),
    ),
    "knobs": Breed(
        "plays InferMaxKnobs-v0 at its default interval: sees the engine features, sets the eleven knobs",
        Objective(),
        "mean",
        knobs=_KNOBS_OF_THE_ENVIRONMENT,
        features=(
            "decode_context",
            "capacity",
            "decode_seconds",
            "waiting",
            "waiting_tokens",
            "oldest_wait",
            "preemption_rate",
        ),
        estimates_lengths=False,
        interval_s=5.0,
        generations=(20, 120),
    ),
}


@dataclass(frozen=True, eq=False)
class Task:
    """A scenario to train on: its trace slices, what the rival reaches on each, and its name in the grid."""

    trace_slices: Sequence[TraceSlice]
    rival: Sequence[SimulationResult]
    scenario: str


def tasks_of(breed: Breed, rivals: Rivals, seed: int = 0) -> list[Task]:
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
    """Trace slices of a scenario, and what the rival of a scenario of the grid, by name, reaches there."""
    held = trace_slices(scenario, num_slices, split=TRAIN, seed=seed)
    label = "per-cell" if breed.rival == "mean" else f"per-cell-{breed.rival}"
    rows = rivals.policies_of(name)
    row = rows.get(label) or rows[breed.rival]
    sigma = row.prediction_sigma
    results = [simulate(w.workload, w.engine, row, predicted=w.predicted(sigma) if sigma else None) for w in held]
    return Task(held, results, name)


def behind(results: Sequence[SimulationResult], rivals: Sequence[SimulationResult], plan: Breed) -> float:
    """How much worse than a rival in the leading figure, on the average of the slices of a scenario, in logarithms."""
    leading = Objective() if plan.objective.mean_latency else plan.objective
    return float(np.mean([leading.loss(a) - leading.loss(b) for a, b in zip(results, rivals, strict=True)]))


def excess(results: Sequence[SimulationResult], rivals: Sequence[SimulationResult], plan: Breed) -> float:
    """How much worse than a rival on the trace slices of a scenario, in logarithms.

    What the leading figure loses on the average of the trace slices counts `1 + hinge` times: on a single trace slice
    chance would decide, and avoiding chance is not the aim.
    """
    whole = [plan.objective.loss(a) - plan.objective.loss(b) for a, b in zip(results, rivals, strict=True)]
    return float(np.mean(whole)) + plan.hinge * max(0.0, behind(results, rivals, plan))


Measure = Callable[[Sequence[SimulationResult], Sequence[SimulationResult], Breed], float]
"""Of results and a rival's on the same trace slices."""


class Search:
    """Vectors to controllers, and controllers to losses."""

    def __init__(self, breed: Breed, tasks: Sequence[Task]) -> None:
        self.breed = breed
        self.tasks = tasks
        self.turn = 0
        self.rows = [CONTROLLER_KNOBS.index(name) for name in breed.knobs]
        self.columns = [CONTROLLER_FEATURES.index(name) for name in breed.features]
        self.predicted_lengths = [
            [w.predicted(breed.sigma) if breed.sigma is not None else None for w in task.trace_slices] for task in tasks
        ]

    def start(self, rivals: Rivals) -> Vector:
        """The weights of the constants where a search begins."""
        whole = weights_from_action(np.array(rivals.overall[self.breed.start]))[:, 0]
        return np.asarray(whole[self.rows], np.float64)

    def controller(self, vector: Vector) -> Controller:
        """The controller of (constants, context weights policy by policy); the latter may be left out."""
        breed = self.breed
        weights = np.zeros((NUM_KNOBS, NUM_FEATURES))
        constants, context = vector[: len(self.rows)], vector[len(self.rows) :]
        weights[self.rows, 0] = constants
        if "preempt" not in breed.knobs:
            weights[CONTROLLER_KNOBS.index("preempt"), 0] = -1.0
        if len(context):
            matrix = context.reshape(len(self.rows), len(self.columns))
            weights[np.ix_(self.rows, self.columns)] = matrix
            weights[self.rows, 0] -= CENTRE * matrix.sum(1)
        weights = weights.astype(np.float32).astype(np.float64)  # as it will be stored
        return Controller(
            weights,
            interval_s=breed.interval_s,
            estimates_lengths=breed.estimates_lengths,
            classes=breed.classes,
            sigma=breed.sigma,
        )

    def vector(self, controller: Controller) -> Vector:
        """The vector of a controller that has weights only where this breed may have some."""
        matrix = controller.weights[np.ix_(self.rows, self.columns)]
        return np.concatenate((controller.weights[self.rows, 0] + CENTRE * matrix.sum(1), matrix.ravel()))

    def search_constants(
        self, start: Vector, seed: int, spread: float = 0.2, report: Report | None = None
    ) -> SearchResult:
        """Search the weights of the constants alone."""
        return self._search(start, seed, spread, self.breed.generations[0], 1.0, report)

    def search_all(
        self,
        whole: Vector,
        seed: int,
        report: Report | None = None,
        *,
        generations: int | None = None,
        **checks: Any,
    ) -> SearchResult:
        """Search all weights, from some of all or from those of the constants.

        Args:
            whole: where to begin.
            seed: of the search.
            report: gets a line now and then.
            generations: by default as many as the breed says.
            **checks: of `minimise`.
        """
        missing = len(self.rows) * (1 + len(self.columns)) - len(whole)
        start = np.concatenate((whole, np.zeros(missing)))
        count = self.breed.generations[1] if generations is None else generations
        return self._search(start, seed, np.full(len(start), 0.06), count, 2.0, report, **checks)

    def _search(
        self,
        start: Vector,
        seed: int,
        spread: float | Vector,
        generations: int,
        bound: float,
        report: Report | None,
        **checks: Any,
    ) -> SearchResult:
        def progress(number: int, loss: float, elapsed_s: float) -> None:
            self.turn = number
            if report is not None and number % 10 == 0:
                report(f"generation {number}  best so far {loss:+.4f}  {elapsed_s:.0f} s")

        return minimise(
            self.loss,
            start,
            seed=seed,
            spread=spread,
            population=self.breed.population,
            generations=generations,
            bound=bound,
            progress=progress,
            **checks,
        )

    def loss(self, vector: Vector) -> float:
        """Mean excess over the scenarios whose turn it is, in each on the trace slices whose turn it is."""
        plan = self.breed
        turn, first = divmod(self.turn, plan.stride)
        first_window = turn * plan.slices_at_once
        numbers = [n % plan.num_slices for n in range(first_window, first_window + plan.slices_at_once)]
        return self._loss(vector, slice(first, None, plan.stride), numbers)

    def whole_loss(self, vector: Vector) -> float:
        """Mean excess over all scenarios, in each over all trace slices."""
        return self._loss(vector, slice(None), list(range(self.breed.num_slices)))

    def worst(self, vector: Vector) -> float:
        """How far behind its rival in the leading figure, where it is furthest behind, over all slices."""
        return max(self._each(behind, vector, slice(None), range(self.breed.num_slices)))

    def _loss(self, vector: Vector, which: slice, numbers: Sequence[int]) -> float:
        return float(np.mean(self._each(excess, vector, which, numbers)))

    def _each(self, measure: Measure, vector: Vector, which: slice, numbers: Sequence[int]) -> list[float]:
        controller = self.controller(vector)
        measured = []
        for task, predicted_lengths in zip(self.tasks[which], self.predicted_lengths[which], strict=True):
            chosen = sorted({n % len(task.trace_slices) for n in numbers})
            results = [
                controller.play(
                    task.trace_slices[i].workload, task.trace_slices[i].engine, predicted=predicted_lengths[i]
                )
                for i in chosen
            ]
            measured.append(measure(results, [task.rival[i] for i in chosen], self.breed))
        return measured


def breed(
    plan: Breed,
    rivals: Rivals,
    *,
    seed: int = 0,
    start: Controller | None = None,
    report: Report = print,
) -> tuple[Controller, SearchResult]:
    """Search a controller: the constants first, then every weight.

    Args:
        plan: what to make.
        rivals: whom to measure against.
        seed: of the search and of the training trace slices.
        start: where to begin, with all weights at once; else with the constants, at a global setting of the family.
        report: gets a line now and then.
    """
    search = Search(plan, tasks_of(plan, rivals, seed))
    if start is None:
        whole = search.search_constants(search.start(rivals), seed, report=report).mean
        report(f"constants: {search.whole_loss(whole):+.4f} on all windows")
    else:
        whole = search.vector(start)
        report(f"start: {search.whole_loss(whole):+.4f} on all windows")
    found = search.search_all(whole, seed + 1, report)
    loss = search.whole_loss(found.mean)
    report(f"all weights: {loss:+.4f} on all windows")
    return search.controller(found.mean), replace(found, best=found.mean, loss=loss)


def main(arguments: list[str] | None = None) -> int:
    """Make a shipped controller again."""
    parser = argparse.ArgumentParser(description="Breed a controller of the zoo.")
    parser.add_argument("name", choices=list(BREEDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generations", type=int, nargs=2, help="of the constant weights alone, then of all")
    parser.add_argument(
        "--out", metavar="DIR", help="default: runs/bred; the zoo for knobs, which is shipped from here"
    )
    parser.add_argument("--start", metavar="PATH", help="a controller to begin at, with all weights at once")
    options = parser.parse_args(arguments)
    plan = BREEDS[options.name]
    if options.generations:
        plan = replace(plan, generations=tuple(options.generations))
    begun = load_agent(options.start) if options.start else None
    controller, found = breed(
        plan,
        load_rivals(),
        seed=options.seed,
        start=None if begun is None else begun.controller,
        report=lambda line: print(line, file=sys.stderr),
    )
    first, second = plan.generations
    command = (
        f"python -m experiments.breeding.breed {options.name} --seed {options.seed} --generations {first} {second}"
    )
    training: dict[str, Any] = {"algo": "cma-es", "command": command, "seed": options.seed, "loss": found.loss}
    training["num_evaluations"] = found.num_evaluations
    if begun is not None:
        training["command"] = f"{command} --start {options.name}"
        training["began_at"] = begun.card.get("training")
    agent = Agent(options.name, controller=controller, card={"note": plan.note, "training": training})
    folder = Path(options.out or (ZOO if options.name == "knobs" else "runs/bred"))
    folder.mkdir(parents=True, exist_ok=True)
    save_agent(folder / f"{options.name}.safetensors", agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
