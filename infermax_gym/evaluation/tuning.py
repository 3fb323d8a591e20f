"""Which flags an engine should run with: a search on some windows of a workload, a verdict on others.

`tuning_space.py` says what can be set, `tuning_objective.py` what counts, `tuning_search.py` how it is searched;
`tuning_document.py` and `tuning_report.py` say what came out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from infermax_gym.cluster import PythonRouter, Router
from infermax_gym.engine import EngineConfig, Policy, Slo
from infermax_gym.evaluation.contenders import Contender, with_slo
from infermax_gym.evaluation.fleets import FleetContender
from infermax_gym.evaluation.tuning_objective import Gain, Objective, gain
from infermax_gym.evaluation.tuning_search import Candidate, Kind, Trials, halve, pruned
from infermax_gym.evaluation.tuning_space import Setting, Space, children, first_settings, is_valid
from infermax_gym.evaluation.tuning_workers import OutOfTime, Workers
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

Bound = Callable[[tuple[Workload, EngineConfig]], float]
"""The best value of the objective that any scheduler can reach on some requests; of a module."""

_SEARCH_SHARE = 0.65  # of the time for the search, what the flags get; the rest is for policies
_RESERVE = 1.5  # the final runs may take so much longer than today's first ones did
_BOUND_S = 0.5  # about what a bound of a window of a thousand requests takes
_MOST_CHILDREN = 12


class TooLittleTime(ValueError):  # noqa: N818 - says what is lacking
    """The budget ended before today's defaults had been measured."""


@dataclass(frozen=True)
class Problem:
    """What is to be tuned.

    Attributes:
        space: what can be set.
        config: the engine as it is today.
        engines: other engines that a flag may select, by name.
        routers: routers by name.
        resolve: the scheduler of a name.
        policies: others to try, by name; None is a name for `resolve`, else an agent.
        search: requests of the windows to choose by.
        held_out: requests of the windows that no choice sees.
        objective: what counts.
        slo: limits of requests that have none of their own.
        attainment: share of the requests that must meet theirs, where cost counts.
        bound: see `Bound`; None where there is none.
        budget_s: how long everything may take.
        jobs: processes.
        seed: of the random settings.
        num_random: how many of them.
    """

    space: Space
    config: EngineConfig
    engines: Mapping[str, EngineConfig]
    routers: Mapping[str, Router | PythonRouter]
    resolve: Callable[[str], Contender]
    policies: Mapping[str, Contender | None]
    search: Sequence[Workload]
    held_out: Sequence[Workload]
    objective: Objective
    slo: Slo | None
    attainment: float
    bound: Bound | None
    budget_s: float
    jobs: int
    seed: int = 0
    num_random: int = 24


@dataclass
class Outcome:
    """What came out.

    Attributes:
        problem: what was to be tuned.
        candidates: everything that was tried, by its number; today's defaults come first.
        search: their runs on the windows to choose by.
        held_out: the runs of the chosen ones on the others.
        flags: the best flags; None if nothing else came near today's defaults.
        policy: the best of our policies, likewise.
        complete: whether the search ended by itself.
        interrupted: whether Ctrl-C ended it.
        bound: mean over the held-out windows of what nobody can beat.
        wall_s: how long it took.
    """

    problem: Problem
    candidates: list[Candidate]
    search: Trials
    held_out: Trials
    flags: Candidate | None = None
    policy: Candidate | None = None
    complete: bool = False
    interrupted: bool = False
    bound: float | None = None
    wall_s: float = 0.0
    made: dict[object, Candidate | None] = field(default_factory=dict)

    @property
    def today(self) -> Candidate:
        """Today's defaults."""
        return self.candidates[0]

    @property
    def num_held_out(self) -> int:
        """Held-out windows on which all that is compared was run."""
        chosen = [each for each in (self.today, self.flags, self.policy) if each is not None]
        return min(self.held_out.num_done(each.id) for each in chosen)

    @property
    def has_bound(self) -> bool:
        """Whether what is compared runs on an engine that can be bounded, and all on the same one."""
        chosen = [each.setting for each in (self.today, self.flags, self.policy) if each is not None]
        alone = all(each.replicas(self.problem.space) == 1 and each.engine is None for each in chosen)
        return alone and self.problem.bound is not None

    def gain(self, candidate: Candidate) -> Gain:
        """What a chosen candidate gains over today's defaults on the held-out windows."""
        windows = self.num_held_out
        return gain(
            self.problem.objective, self.held_out.figures(candidate.id, windows), self.held_out.figures(0, windows)
        )

    def make(
        self, kind: Kind, setting: Setting, policy: str = "", contender: Contender | None = None
    ) -> Candidate | None:
        """The candidate of a setting and a policy, the same one each time; None if the engine refuses it."""
        key = (setting.key, policy)
        if key not in self.made:
            made = self._made(kind, setting, policy, contender)
            self.made[key] = made
            if made is not None:
                self.candidates.append(made)
        return self.made[key]

    def _made(self, kind: Kind, setting: Setting, policy: str, contender: Contender | None) -> Candidate | None:
        problem = self.problem
        base = problem.config if setting.engine is None else problem.engines[setting.engine]
        if not is_valid(setting, problem.space, base):
            return None
        named = policy or setting.policy(problem.space.policy)
        decides = problem.resolve(named) if contender is None else contender
        replicas = setting.replicas(problem.space)
        if replicas > 1:
            if not isinstance(decides, Policy):
                return None
            decides = FleetContender(decides, problem.routers[setting.router(problem.space)], replicas)
        return Candidate(
            len(self.candidates), kind, setting, setting.sized(base), named, decides, contender is not None
        )


def tune(problem: Problem, notify: Callable[[], None] = lambda: None) -> Outcome:
    """Search flags and policies, then measure the best ones where the search has not looked.

    Two thirds of the search's time at most go to the flags. What the final runs need is set aside, by what those of
    today's defaults took. Everything but the moment at which time runs out is decided by the seed.

    Args:
        problem: what is to be tuned; compiled code must be loaded.
        notify: told of every run that has finished.

    Raises:
        TooLittleTime: the budget did not suffice for today's defaults.
    """
    start = time.monotonic()
    end = start + problem.budget_s
    with Workers(problem.jobs) as workers:
        search, held_out = (
            Trials(windows, problem.objective, problem.slo, problem.attainment, workers, notify)
            for windows in (problem.search, problem.held_out)
        )
        outcome = Outcome(problem, [], search, held_out)
        try:
            _measure_today(outcome, start, end)
            took_s = time.monotonic() - start
            left_s = end - time.monotonic()
            final_s = 3.0 * took_s * len(problem.held_out) / len(problem.search)
            if problem.bound is not None:
                final_s += _BOUND_S * len(problem.held_out) / problem.jobs
            reserve_s = min(max(_RESERVE * final_s, 0.1 * left_s), 0.7 * left_s)
            _search(outcome, end - reserve_s)
            _verdict(outcome, end)
        except KeyboardInterrupt:
            outcome.interrupted = True
            outcome.flags = outcome.flags or _best_so_far(outcome)
    outcome.wall_s = time.monotonic() - start
    return outcome


def _measure_today(outcome: Outcome, start: float, end: float) -> None:
    today = outcome.make("today", Setting())
    assert today is not None, "an engine takes its own defaults"
    try:
        outcome.search.measure([today], len(outcome.search.windows), start + 0.5 * (end - start))
    except OutOfTime:
        budget = outcome.problem.budget_s
        raise TooLittleTime(
            f"half of {budget:g} s did not suffice for today's defaults on {len(outcome.search.windows)} windows of "
            f"{len(outcome.search.windows[0]):,} requests"
        ) from None


def _search(outcome: Outcome, until: float) -> None:
    """Find the best flags, then the best of our policies."""
    problem, trials = outcome.problem, outcome.search
    now = time.monotonic()
    has_policies = bool(problem.policies)
    flags_until = now + (_SEARCH_SHARE if has_policies else 1.0) * (until - now)
    rng = stream(problem.seed, "exploration")
    settings = first_settings(problem.space, problem.config, rng, problem.num_random)
    first = [made for setting in settings if (made := outcome.make("flags", setting)) is not None]

    def make(setting: Setting) -> Candidate | None:
        return outcome.make("flags", setting)

    def grow(kept: Sequence[Candidate]) -> list[Candidate]:
        joined = children([each.setting for each in kept], problem.space, problem.config, _MOST_CHILDREN)
        known = set(outcome.made)
        return [made for each in joined if (each.key, "") not in known if (made := make(each)) is not None]

    best, complete = halve(trials, first, flags_until, grow)
    if best:
        outcome.flags = best[0]
        if complete:
            outcome.flags, complete = pruned(trials, best[0], flags_until, make)
    outcome.complete = complete
    if not has_policies:
        return
    sizes = _sizes_only(outcome.flags.setting) if outcome.flags is not None else Setting()
    ours = [
        made
        for setting in dict.fromkeys((Setting().key, sizes.key))
        for name, contender in problem.policies.items()
        if (made := outcome.make("policy", sizes if setting == sizes.key else Setting(), name, contender)) is not None
    ]
    best, complete = halve(trials, ours, until, lambda kept: [])
    outcome.policy = best[0] if best else None
    outcome.complete = outcome.complete and complete


def _best_so_far(outcome: Outcome) -> Candidate | None:
    """The best flags among those that were run on the most windows, if any were."""
    trials = outcome.search
    done = {each: trials.num_done(each.id) for each in outcome.candidates if each.kind == "flags"}
    most = max(done.values(), default=0)
    if not most:
        return None
    return trials.ranked((each for each, count in done.items() if count == most), most)[0]


def _sizes_only(setting: Setting) -> Setting:
    """The flags that set sizes, engines and replicas; those of its policy go."""
    return Setting({n: c for n, c in setting.choices.items() if c.policy is None and not c.knobs})


def _verdict(outcome: Outcome, end: float) -> None:
    """Run the chosen ones, and bound everybody, on the windows that the search has not seen."""
    chosen = [each for each in (outcome.today, outcome.flags, outcome.policy) if each is not None]
    problem = outcome.problem
    try:
        outcome.held_out.measure(dict.fromkeys(chosen), len(problem.held_out), end)
        if outcome.num_held_out and outcome.has_bound:
            assert problem.bound is not None
            widest = widened(outcome)
            tasks = [(with_slo(each, problem.slo), widest) for each in problem.held_out[: outcome.num_held_out]]
            values = [value for _, value in outcome.held_out.workers.results(problem.bound, tasks, end)]
            outcome.bound = float(np.mean(sorted(values)))
    except OutOfTime:
        pass


def widened(outcome: Outcome) -> EngineConfig:
    """The engine with the largest token budget and the most sequences that anybody had, which bounds all of them.

    Without a prefix cache, in which a victim finds its own KV again: it might as well have kept it, but then it would
    count as a sequence; so there is room for all requests.
    """
    problem = outcome.problem
    budgets = [each.config.max_num_batched_tokens for each in outcome.candidates]
    budgets += [getattr(each.contender, "max_num_batched_tokens", None) or 1 for each in outcome.candidates]
    most = max(len(each) for each in problem.held_out)
    return replace(
        problem.config, max_num_batched_tokens=max(budgets), max_num_seqs=most, prefix_caching=False,
        empty_blocks_first=False,
    )  # fmt: skip


def mean_value(objective: Objective, trials: Trials, candidate: int, num_windows: int) -> float | None:
    """Mean of the objective's figure over the first windows; None where there is none."""
    values = [objective.value(figures) for figures in trials.figures(candidate, num_windows)]
    mean = float(np.mean(values)) if values else math.nan
    return mean if math.isfinite(mean) else None
