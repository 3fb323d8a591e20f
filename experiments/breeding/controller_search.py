"""Evolution of one linear controller over many scenarios: vectors to controllers, and controllers to losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.board.rivals import Rivals
from experiments.breeding.breeds import Breed
from experiments.breeding.tasks import Measure, Task, behind, excess
from infermax_gym.agents.controller import Controller, weights_from_action
from infermax_gym.agents.controller_layout import (
    CONTROLLER_FEATURES,
    CONTROLLER_KNOBS,
    FEATURE_ONE,
    KNOB_PREEMPT,
    NUM_FEATURES,
    NUM_KNOBS,
)
from infermax_gym.agents.evolution import SearchResult, Vector, minimise

Report = Callable[[str], None]
"""Gets a line now and then."""

CENTRE = 0.4
"""What features are counted from in the search, so that a context weight does not shift the knob everywhere."""


class ControllerSearch:
    """The search of one controller on some tasks.

    A vector holds the weights of the constant feature, then the context weights, knob by knob; the latter may be left
    out.
    """

    def __init__(self, breed: Breed, tasks: Sequence[Task]) -> None:
        self.breed = breed
        self.tasks = tasks
        self.turn = 0
        self.knobs = [CONTROLLER_KNOBS.index(name) for name in breed.knobs]
        self.features = [CONTROLLER_FEATURES.index(name) for name in breed.features]

    def start(self, rivals: Rivals) -> Vector:
        """The weights of the constants where a search begins."""
        whole = weights_from_action(np.array(rivals.overall[self.breed.start]))[:, FEATURE_ONE]
        return np.asarray(whole[self.knobs], np.float64)

    def controller(self, vector: Vector) -> Controller:
        """The controller of a vector."""
        breed = self.breed
        weights = np.zeros((NUM_KNOBS, NUM_FEATURES))
        constants, context = vector[: len(self.knobs)], vector[len(self.knobs) :]
        weights[self.knobs, FEATURE_ONE] = constants
        if "preempt" not in breed.knobs:
            weights[KNOB_PREEMPT, FEATURE_ONE] = -1.0
        if len(context):
            matrix = context.reshape(len(self.knobs), len(self.features))
            weights[np.ix_(self.knobs, self.features)] = matrix
            weights[self.knobs, FEATURE_ONE] -= CENTRE * matrix.sum(1)
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
        matrix = controller.weights[np.ix_(self.knobs, self.features)]
        return np.concatenate((controller.weights[self.knobs, FEATURE_ONE] + CENTRE * matrix.sum(1), matrix.ravel()))

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
        missing = len(self.knobs) * (1 + len(self.features)) - len(whole)
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
        first_slice = turn * plan.slices_at_once
        numbers = [n % plan.num_slices for n in range(first_slice, first_slice + plan.slices_at_once)]
        return self._loss(vector, slice(first, None, plan.stride), numbers)

    def whole_loss(self, vector: Vector) -> float:
        """Mean excess over all scenarios, in each over all trace slices."""
        return self._loss(vector, slice(None), list(range(self.breed.num_slices)))

    def worst(self, vector: Vector) -> float:
        """How far behind its rival in the main figure, in the scenario where it is furthest behind, over all slices."""
        return max(self._each(behind, vector, slice(None), range(self.breed.num_slices)))

    def _loss(self, vector: Vector, which: slice, numbers: Sequence[int]) -> float:
        return float(np.mean(self._each(excess, vector, which, numbers)))

    def _each(self, measure: Measure, vector: Vector, which: slice, numbers: Sequence[int]) -> list[float]:
        controller = self.controller(vector)
        measured = []
        for task in self.tasks[which]:
            chosen = sorted({n % len(task.trace_slices) for n in numbers})
            results = [task.trace_slices[i].serve(controller) for i in chosen]
            measured.append(measure(results, [task.rival[i] for i in chosen], self.breed))
        return measured
