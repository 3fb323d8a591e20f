"""Evolution of the scheduling algorithm's knobs, evaluated entirely in the compiled engine.

The search space is the action of `InferMaxKnobs-v0` (queue key, headroom, concurrency cap, prefill share, victim key):
eleven numbers in [-1, 1]. CMA-ES (the `cma` package; Hansen, 2016) proposes, the engine replays whole windows. The
winner is a row of the table like any other.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.cells import Window
from infermax_gym.engine import Information, Policy, simulate
from infermax_gym.envs.knobs import KNOB_NAMES, policy_of
from infermax_gym.streams import stream

Progress = Callable[[int, float, float], None]
"""Called after every generation with its number, the best loss so far and the seconds since the start."""


@dataclass(frozen=True)
class Objective:
    """What a policy is scored by: a sum of weighted logarithms, so that windows of any scale count alike.

    Attributes:
        mean_latency: weight of ln(mean latency).
        p99_latency: weight of ln(p99 latency).
        busy: weight of ln(busy seconds), the GPU cost.
    """

    mean_latency: float = 1.0
    p99_latency: float = 0.0
    busy: float = 0.0

    def loss(self, window: Window, policy: Policy, sigma: float) -> float:
        """The loss of a policy on a window; lower is better."""
        needs = policy.information in (Information.PREDICTED, Information.ORACLE)
        predicted = window.predicted(sigma) if needs else None
        result = simulate(window.workload, window.engine, policy, predicted=predicted)
        latency_s = result.latency_s[result.finished]
        loss = self.mean_latency * np.log(latency_s.mean())
        if self.p99_latency:
            loss += self.p99_latency * np.log(np.quantile(latency_s, 0.99))
        if self.busy:
            loss += self.busy * np.log(result.busy_s)
        return float(loss)


@dataclass(frozen=True, eq=False)
class EvolutionResult:
    """Where a search ended.

    Attributes:
        policy: the best row found.
        action: (11,) its knobs in [-1, 1], in the order of `KNOB_NAMES`.
        loss: its mean loss over the training windows.
        history: (generations, 2) float64, evaluations so far and best loss so far.
        num_evaluations: policies scored, each on every window.
    """

    policy: Policy
    action: NDArray[np.float64]
    loss: float
    history: NDArray[np.float64]
    num_evaluations: int


FCFS = np.array([1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
"""First come, first served, the newest evicted: where a search from scratch begins."""


def row_of(action: NDArray[np.float64], name: str, *, predicted_sigma: float | None, num_seats: int = 256) -> Policy:
    """The table row of an action; with `predicted_sigma` it may weigh predicted lengths, without it must not."""
    chosen = np.array(action, np.float64)
    if predicted_sigma is None:
        chosen[KNOB_NAMES.index("predicted_remaining")] = 0.0
        information = Information.NONE
    else:
        information = Information.PREDICTED if predicted_sigma > 0.0 else Information.ORACLE
    return replace(
        policy_of(chosen, num_seats, name),
        information=information,
        prediction_sigma=predicted_sigma or 0.0,
        source="ours: evolved by agents.evolution (CMA-ES over the knobs)",
    )


def evolve(
    windows: Sequence[Window],
    *,
    seed: int = 0,
    minutes: float | None = None,
    generations: int | None = None,
    objective: Objective | None = None,
    predicted_sigma: float | None = None,
    start: NDArray[np.float64] = FCFS,
    spread: float = 0.4,
    population: int = 16,
    name: str = "evolved",
    progress: Progress | None = None,
) -> EvolutionResult:
    """Search the knobs that minimise the mean loss over training windows.

    Args:
        windows: training windows; every candidate is scored on all of them (common random numbers).
        seed: of the search, through its "policy" stream.
        minutes: stop after so much time ...
        generations: ... or after so many generations; one of the two is needed. Only the latter is reproducible.
        objective: what is minimised; mean latency by default.
        predicted_sigma: let the queue key weigh predicted lengths with this log-normal error (0 = true lengths).
        start: (11,) where the search begins.
        spread: initial step size in knob units.
        population: candidates of a generation.
        name: of the row found.
        progress: called after every generation. KeyboardInterrupt ends the search with what it has.

    Raises:
        ValueError: no windows, or neither `minutes` nor `generations`.
    """
    if not windows:
        raise ValueError("evolution needs at least one training window")
    if minutes is None and generations is None:
        raise ValueError("say how long to search: minutes or generations")
    goal = objective or Objective()
    search = _strategy(start, spread, population, seed)

    def score(candidate: NDArray[np.float64]) -> float:
        row = row_of(candidate, name, predicted_sigma=predicted_sigma)
        sigma = predicted_sigma or 0.0
        return float(np.mean([goal.loss(window, row, sigma) for window in windows]))

    began = time.monotonic()
    best, best_loss = np.array(start), score(start)
    history: list[tuple[int, float]] = [(1, best_loss)]
    generation = evaluations = 0
    with ThreadPoolExecutor(2) as pool:  # the engine releases the interpreter lock
        try:
            while generations is None or generation < generations:
                if minutes is not None and time.monotonic() - began > 60.0 * minutes:
                    break
                candidates = [np.clip(c, -1.0, 1.0) for c in search.ask()]
                losses = list(pool.map(score, candidates))
                search.tell(candidates, losses)
                generation += 1
                evaluations += len(candidates)
                i = int(np.argmin(losses))
                if losses[i] < best_loss:
                    best, best_loss = candidates[i], losses[i]
                history.append((evaluations, best_loss))
                if progress:
                    progress(generation, best_loss, time.monotonic() - began)
        except KeyboardInterrupt:
            pass
    row = row_of(best, name, predicted_sigma=predicted_sigma)
    return EvolutionResult(row, best, best_loss, np.array(history, np.float64), evaluations)


def _strategy(start: NDArray[np.float64], spread: float, population: int, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cma looks for optional packages and says so
        import cma

        options = {
            "popsize": population,
            "seed": int(stream(seed, "policy").integers(1, 2**31)),
            "bounds": [-1.0, 1.0],
            "verbose": -9,
            "tolfun": 0.0,
            "tolx": 0.0,
            "tolstagnation": 10**9,
        }
        return cma.CMAEvolutionStrategy(np.clip(start, -0.95, 0.95), spread, options)
