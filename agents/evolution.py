"""Evolution of schedulers, evaluated entirely in the compiled engine.

`minimise` is CMA-ES (the `cma` package; Hansen, 2016) over any vector of bounded numbers. `evolve` searches the action
of `InferMaxKnobs-v0` (queue key, headroom, concurrency cap, prefill share, victim key): numbers in [-1, 1]. The
winner is a policy of the table like any other. `infermax_gym.agents.controller` searches small networks that set those
knobs.
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

from infermax_gym.agents.objectives import Objective
from infermax_gym.agents.scenario import TraceSlice
from infermax_gym.engine import Information, Policy
from infermax_gym.engine.policy import QUEUE_FEATURES
from infermax_gym.envs.knobs.layout import KNOB_NAMES, policy_of
from infermax_gym.streams import stream

Vector = NDArray[np.float64]
Progress = Callable[[int, float, float], None]
"""Called after every generation with its number, the best loss so far and the seconds since the start."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Where a search ended.

    Attributes:
        best: (n,) the best vector that a generation held, by its own loss.
        loss: its loss.
        mean: (n,) the centre of the last generation: smoother, often better on new trace slices.
        checked: (n,) of the start and the centres of all generations, the one with the lowest `check`; else the mean.
        history: (generations, 2) float64, evaluations so far and best loss so far.
        num_evaluations: vectors scored.
    """

    best: Vector
    loss: float
    mean: Vector
    checked: Vector
    history: NDArray[np.float64]
    num_evaluations: int


def minimise(
    loss: Callable[[Vector], float],
    start: Vector,
    *,
    seed: int,
    spread: float | Vector,
    population: int,
    minutes: float | None = None,
    generations: int | None = None,
    bound: float = 1.0,
    check: Callable[[Vector], float] | None = None,
    check_every: int = 1,
    patience: int | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search a vector in [-bound, bound] that minimises a loss.

    Args:
        loss: what is minimised; called from two threads.
        start: (n,) where the search begins.
        seed: of the search, through its "policy" stream.
        spread: initial step size, or one for each number.
        population: candidates of a generation.
        minutes: stop after so much time ...
        generations: ... or after so many generations; one of the two is needed. Only the latter is reproducible.
        bound: largest absolute value of a number.
        check: a loss on other data, for the choice of `SearchResult.checked`; the search itself never sees it.
        check_every: generations between two checks of the centre.
        patience: stop after so many checks in a policy without a better one.
        progress: called after every generation. KeyboardInterrupt ends the search with what it has.

    Raises:
        ValueError: neither `minutes` nor `generations` is given.
    """
    if minutes is None and generations is None:
        raise ValueError("say how long to search: minutes or generations")
    search = _strategy(start, spread, population, seed, bound)
    began = time.monotonic()
    best, best_loss = np.array(start, np.float64), loss(start)
    checked, checked_loss, in_vain = best, np.inf if check is None else check(best), 0
    history: list[tuple[int, float]] = [(1, best_loss)]
    generation = evaluations = 0
    with ThreadPoolExecutor(2) as pool:  # the engine releases the interpreter lock
        try:
            while generations is None or generation < generations:
                if minutes is not None and time.monotonic() - began > 60.0 * minutes:
                    break
                if patience is not None and in_vain >= patience:
                    break
                candidates = [np.clip(c, -bound, bound) for c in search.ask()]
                losses = list(pool.map(loss, candidates))
                search.tell(candidates, losses)
                generation += 1
                evaluations += len(candidates)
                i = int(np.argmin(losses))
                if losses[i] < best_loss:
                    best, best_loss = candidates[i], losses[i]
                if check is not None and generation % check_every == 0:
                    centre = _centre(search, bound)
                    centre_loss = check(centre)
                    in_vain += 1
                    if centre_loss < checked_loss:
                        checked, checked_loss, in_vain = centre, centre_loss, 0
                history.append((evaluations, best_loss))
                if progress:
                    progress(generation, best_loss, time.monotonic() - began)
        except KeyboardInterrupt:
            pass
    mean = _centre(search, bound)
    found = mean if check is None else checked
    return SearchResult(best, best_loss, mean, found, np.array(history, np.float64), evaluations)


def _centre(search: Any, bound: float) -> Vector:
    return np.clip(np.asarray(search.mean, np.float64), -bound, bound)


_MOST_COVARIANCES = 60
"""Beyond so many numbers the search learns a step size for each, but not how they vary together, which takes long."""


def _strategy(start: Vector, spread: float | Vector, population: int, seed: int, bound: float) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cma looks for optional packages and says so
        import cma

        options = {
            "popsize": population,
            "seed": int(stream(seed, "policy").integers(1, 2**31)),
            "bounds": [-bound, bound],
            "verbose": -9,
            "tolfun": 0.0,
            "tolx": 0.0,
            "tolstagnation": 10**9,
        }
        if len(start) > _MOST_COVARIANCES:
            options["CMA_diagonal"] = True
        each = np.broadcast_to(np.asarray(spread, np.float64), start.shape)
        if np.ptp(each) > 0.0:
            options["CMA_stds"] = each / each.max()
        inside = np.clip(start, -0.95 * bound, 0.95 * bound)
        return cma.CMAEvolutionStrategy(inside, float(each.max()), options)


@dataclass(frozen=True, eq=False)
class EvolutionResult:
    """Where a search of knobs ended.

    Attributes:
        policy: the policy found.
        action: its knobs in [-1, 1], in the order of `KNOB_NAMES`, perhaps with the class weight behind them.
        loss: the lowest mean loss over the training trace slices.
        history: (generations, 2) float64, evaluations so far and best loss so far.
        num_evaluations: policies scored, each on every trace slice.
    """

    policy: Policy
    action: Vector
    loss: float
    history: NDArray[np.float64]
    num_evaluations: int


def action_of(**knobs: float) -> Vector:
    """An action of `InferMaxKnobs-v0` by the names of its knobs; those that are not named are 0.

    Raises:
        ValueError: there is no such knob.
    """
    for name in knobs.keys() - set(KNOB_NAMES):
        raise ValueError(f"no knob is called {name!r}; there are {', '.join(KNOB_NAMES)}")
    return np.array([knobs.get(name, 0.0) for name in KNOB_NAMES])


FCFS = action_of(aging=1.0, headroom=-1.0, max_running=1.0, prefill_share=1.0, victim_arrival=1.0)
"""First come, first served, the newest evicted: where a search from scratch begins."""

SHORTEST_FIRST = action_of(known_tokens=0.5, headroom=-0.26, max_running=0.5, prefill_share=1.0, victim_processed=-0.5)
"""Knobs of spf-headroom: a search that begins at the best rule known tunes it."""

CLASS_WEIGHT_S = 2.0
"""A class weight of 1 counts a TTFT limit of so many seconds like one unit of the queue key."""


def tuned_policy(action: Vector, name: str, *, predicted_sigma: float | None, max_num_seqs: int = 256) -> Policy:
    """The policy of an action.

    Args:
        action: a number for each of `KNOB_NAMES`, and perhaps a weight of the class (its TTFT limit in the queue key).
        name: of the policy.
        predicted_sigma: with it the policy may weigh predicted lengths of that error; None: it gets none.
        max_num_seqs: the engine's `max_num_seqs`.
    """
    count = len(KNOB_NAMES)
    chosen = np.array(action[:count], np.float64)
    if predicted_sigma is None:
        chosen[KNOB_NAMES.index("predicted_remaining")] = 0.0
        information = Information.NONE
    else:
        information = Information.PREDICTED if predicted_sigma > 0.0 else Information.ORACLE
    policy = policy_of(chosen, max_num_seqs, name)
    if len(action) > count:
        weights = list(policy.queue_weights)
        weights[QUEUE_FEATURES.index("slo_ttft_s")] = float(action[count]) / CLASS_WEIGHT_S
        policy = replace(policy, queue_weights=tuple(weights))
    return replace(
        policy,
        information=information,
        prediction_sigma=predicted_sigma or 0.0,
        source="ours: evolved by infermax_gym.agents.evolution (CMA-ES over the knobs)",
    )


def policy_loss(policy: Policy, trace_slices: Sequence[TraceSlice], objective: Objective) -> float:
    """The mean loss of a policy over trace slices."""
    return float(np.mean([objective.loss(trace_slice.serve(policy)) for trace_slice in trace_slices]))


def evolve(
    trace_slices: Sequence[TraceSlice],
    *,
    seed: int = 0,
    minutes: float | None = None,
    generations: int | None = None,
    objective: Objective | None = None,
    predicted_sigma: float | None = None,
    start: Vector = FCFS,
    spread: float = 0.4,
    population: int = 16,
    name: str = "evolved",
    validation: Sequence[TraceSlice] = (),
    progress: Progress | None = None,
) -> EvolutionResult:
    """Search the knobs that minimise the mean loss over training trace slices.

    Without validation slices the result is the candidate that is best on the training slices. With them it is the start
    or the centre of a generation, whichever is best on them: a search that runs long fits its training slices.

    Args:
        trace_slices: training trace slices; every candidate is scored on all of them (common random numbers).
        seed: of the search, through its "policy" stream.
        minutes: stop after so much time ...
        generations: ... or after so many generations; one of the two is needed. Only the latter is reproducible.
        objective: what is minimised; mean latency by default.
        predicted_sigma: let the queue key weigh predicted lengths with this log-normal error (0 = true lengths).
        start: where the search begins; see `tuned_policy`.
        spread: initial step size in knob units.
        population: candidates of a generation.
        name: of the policy found.
        validation: trace slices to choose by, see above.
        progress: called after every generation. KeyboardInterrupt ends the search with what it has.

    Raises:
        ValueError: no trace slices, or neither `minutes` nor `generations`.
    """
    if not trace_slices:
        raise ValueError("evolution needs at least one training trace slice")
    goal = objective or Objective()

    def loss(candidate: Vector) -> float:
        return policy_loss(tuned_policy(candidate, name, predicted_sigma=predicted_sigma), trace_slices, goal)

    def check(candidate: Vector) -> float:
        return policy_loss(tuned_policy(candidate, name, predicted_sigma=predicted_sigma), validation, goal)

    found = minimise(
        loss,
        start,
        seed=seed,
        spread=spread,
        population=population,
        minutes=minutes,
        generations=generations,
        check=check if validation else None,
        progress=progress,
    )
    action = found.checked if validation else found.best
    policy = tuned_policy(action, name, predicted_sigma=predicted_sigma)
    return EvolutionResult(policy, action, found.loss, found.history, found.num_evaluations)
