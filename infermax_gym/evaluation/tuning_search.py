"""Successive halving: many settings on one window, the best third on twice as many, and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from infermax_gym.engine import EngineConfig, Slo
from infermax_gym.evaluation.contenders import Contender, run_contender, with_slo
from infermax_gym.evaluation.tuning_cost import cost_figures
from infermax_gym.evaluation.tuning_objective import COST, Figures, Objective, score
from infermax_gym.evaluation.tuning_space import Setting
from infermax_gym.evaluation.tuning_workers import OutOfTime, Workers
from infermax_gym.workload import Workload

Kind = Literal["today", "flags", "policy"]
_KEPT = 3  # one candidate in so many goes on to the next rung
_TIE = 1e-3  # relative change of the objective below which fewer flags are better


@dataclass(frozen=True, eq=False)
class Candidate:
    """Something to try.

    Attributes:
        id: its number, from 0, which is today's defaults.
        kind: today's defaults, other flags, or another policy.
        setting: its flags.
        config: the engine with them.
        policy: as `bench --policies` or `--agent` takes it.
        contender: who decides.
        is_agent: whether `policy` is an agent.
    """

    id: int
    kind: Kind
    setting: Setting
    config: EngineConfig
    policy: str
    contender: Contender
    is_agent: bool = False


@dataclass(frozen=True)
class Task:
    """One candidate on one window; travels to another process."""

    candidate: int
    window: int
    contender: Contender
    config: EngineConfig
    workload: Workload
    slo: Slo | None
    attainment: float | None


def measure(task: Task) -> dict[str, Any]:
    """Figures of a run as `bench` has them; with an attainment, also what its highest rate within the SLO costs."""
    requests = with_slo(task.workload, task.slo)
    served = run_contender(task.contender, requests, task.config, seed=task.window)
    figures = served.figures(task.config, task.slo)
    if task.attainment is not None:
        figures["cost"] = cost_figures(task.contender, task.workload, task.config, task.slo or Slo(), task.attainment)
    return figures


@dataclass(frozen=True)
class Rung:
    """A round of the search: who was tried on how many windows, and who went on."""

    num_windows: int
    tried: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass
class Trials:
    """Candidates on windows: what is known of them.

    Attributes:
        windows: the requests of each window.
        objective: what counts.
        slo: limits of requests that have none of their own.
        attainment: share of the requests that must meet theirs, where cost counts.
        workers: who computes.
        notify: told of every run that has finished.
        runs: figures by candidate and window.
        rungs: of the search.
    """

    windows: Sequence[Workload]
    objective: Objective
    slo: Slo | None
    attainment: float
    workers: Workers
    notify: Callable[[], None]
    runs: dict[tuple[int, int], Figures] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)

    def measure(self, candidates: Iterable[Candidate], num_windows: int, until: float) -> None:
        """Run each candidate on the first windows, unless it was.

        Raises:
            OutOfTime: there was no time for all; finished runs are kept.
        """
        attainment = self.attainment if self.objective is COST else None
        tasks = [
            Task(each.id, window, each.contender, each.config, self.windows[window], self.slo, attainment)
            for window in range(num_windows)
            for each in candidates
            if (each.id, window) not in self.runs
        ]
        for task, figures in self.workers.results(measure, tasks, until):
            self.runs[task.candidate, task.window] = figures
            self.notify()

    def figures(self, candidate: int, num_windows: int) -> list[Figures]:
        """Figures of a candidate on the first windows."""
        return [self.runs[candidate, window] for window in range(num_windows)]

    def num_done(self, candidate: int) -> int:
        """On how many windows, from the first on, a candidate was run."""
        return next(k for k in range(len(self.windows) + 1) if (candidate, k) not in self.runs)

    def score(self, candidate: int, num_windows: int) -> float:
        """How good it is there, the more the better; -inf if today's defaults serve more requests."""
        return score(self.objective, self.figures(candidate, num_windows), self.figures(0, num_windows))

    def ranked(self, candidates: Iterable[Candidate], num_windows: int) -> list[Candidate]:
        """The best first; of equals, the one with fewer flags, then the older one."""

        def key(each: Candidate) -> tuple[float, int, int]:
            return -self.score(each.id, num_windows), len(each.setting.choices), each.id

        return sorted(candidates, key=key)


def rungs(num_windows: int) -> list[int]:
    """Windows of each rung: one, twice as many, ..., all.

    Example:
        >>> rungs(8), rungs(3), rungs(1)
        ([1, 2, 4, 8], [1, 2, 3], [1])
    """
    sizes = [1]
    while sizes[-1] < num_windows:
        sizes.append(min(2 * sizes[-1], num_windows))
    return sizes


def halve(
    trials: Trials,
    candidates: Sequence[Candidate],
    until: float,
    grow: Callable[[Sequence[Candidate]], Sequence[Candidate]],
) -> tuple[list[Candidate], bool]:
    """Successive halving.

    Args:
        trials: takes note of everything; today's defaults must have been run on all its windows.
        candidates: who begins.
        until: a moment of `time.monotonic`.
        grow: further candidates, from the best of a rung, that join the next one.

    Returns:
        The candidates of the last rung that was finished, or those that were run of the first, the best first; and
        whether the last of all was finished.
    """
    alive, best = list(candidates), list[Candidate]()
    sizes = rungs(len(trials.windows))
    for position, num_windows in enumerate(sizes):
        try:
            trials.measure(alive, num_windows, until)
        except OutOfTime:
            return best or trials.ranked((each for each in alive if trials.num_done(each.id)), 1), False
        ranked = [each for each in trials.ranked(alive, num_windows) if trials.score(each.id, num_windows) > -math.inf]
        is_last = position == len(sizes) - 1
        kept = ranked if is_last else ranked[: max(-(-len(alive) // _KEPT), 2)]
        trials.rungs.append(
            Rung(
                num_windows, tuple(each.id for each in alive), tuple(each.id for each in kept[: 1 if is_last else None])
            )
        )
        best, alive = ranked, kept
        if not is_last:
            alive = [*kept, *grow(kept)]
    return best, True


def pruned(
    trials: Trials, best: Candidate, until: float, make: Callable[[Setting], Candidate | None]
) -> tuple[Candidate, bool]:
    """The best candidate without the flags that do nothing for it, and whether there was time for all of this.

    Args:
        trials: takes note of everything.
        best: run on all windows.
        until: a moment of `time.monotonic`.
        make: a candidate of a setting, None if the engine refuses it.
    """
    num_windows = len(trials.windows)
    while len(best.setting.choices) > 1:
        simpler = [made for name in best.setting.choices if (made := make(best.setting.without(name))) is not None]
        try:
            trials.measure(simpler, num_windows, until)
        except OutOfTime:
            return best, False
        found = trials.score(best.id, num_windows)
        good = [each for each in simpler if trials.score(each.id, num_windows) >= found - _TIE * abs(found)]
        kept = trials.ranked(good, num_windows)[:1]
        trials.rungs.append(Rung(num_windows, tuple(each.id for each in simpler), tuple(each.id for each in kept)))
        if not kept:
            break
        best = kept[0]
    return best, True
