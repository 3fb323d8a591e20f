"""One scenario of a comparison: the requests, the engine, and every policy run on exactly both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import (
    EngineConfig,
    Information,
    Policy,
    Scheduler,
    SimulationResult,
    Slo,
    simulate,
    summarize,
)
from infermax_gym.evaluation.figures import combine, lookup, sorted_names
from infermax_gym.evaluation.fleets import FleetContender, Predict, figures_of
from infermax_gym.evaluation.groups import By, group_figures
from infermax_gym.evaluation.statistics import mean_and_ci95, paired_ratio
from infermax_gym.workload import PRESETS, Workload, load_workload
from infermax_gym.workload.source import kept_content


@runtime_checkable
class Player(Protocol):
    """A contender that serves whole workloads by itself, such as a trained policy."""

    @property
    def information(self) -> Information:
        """What it knows about output lengths."""

    def play(
        self, workload: Workload, engine: EngineConfig, *, seed: int = 0, record_schedule: bool = False
    ) -> SimulationResult:
        """Serve a workload to its end; the seed is of the run."""


Contender = Policy | Scheduler | Player | FleetContender
"""(policy, workload, seed) to the output lengths that the policy is told, or None if it is told none."""


@dataclass(frozen=True)
class WorkloadSpec:
    """A recipe for requests: call it with a seed. Arguments as in `load_workload`; a pipe is read once and kept."""

    source: str
    skip: int = 0
    first: int | None = None
    time_scale: float = 1.0
    rate: float | None = None
    from_s: float | None = None
    to_s: float | None = None
    model: str | None = None
    log_type: str | None = None
    content: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.content is None and self.source not in PRESETS:  # a pipe can be read once, and there may be many seeds
            object.__setattr__(self, "content", kept_content(self.source))

    @property
    def choices(self) -> dict[str, Any]:
        """What chooses rows of a trace file by time or name."""
        return {name: getattr(self, name) for name in ("from_s", "to_s", "model", "log_type")}

    def __call__(self, seed: int) -> Workload:
        """The requests of a seed; a file of complete requests is the same for every seed."""
        return load_workload(
            self.source,
            skip=self.skip,
            first=self.first,
            **self.choices,
            time_scale=self.time_scale,
            rate=self.rate,
            seed=seed,
            content=self.content,
        )


@dataclass(frozen=True)
class Scenario:
    """What all contenders share.

    Attributes:
        workload: a recipe, such as a `WorkloadSpec`, from a seed to requests; or fixed requests.
        config: the engine.
        slo: limits that count for goodput and attainment, of requests that have none of their own.
        by: also compare tenants or SLO classes, see `group_figures`.
    """

    workload: Workload | Callable[[int], Workload]
    config: EngineConfig
    slo: Slo | None = None
    by: By | None = None

    def requests(self, seed: int) -> Workload:
        """The requests that every contender faces under this seed; they are told the limits that count."""
        drawn = self.workload if isinstance(self.workload, Workload) else self.workload(seed)
        return drawn if self.slo is None else drawn.with_limits(self.slo.ttft_s, self.slo.tpot_s)


@dataclass(frozen=True)
class Run:
    """One policy on one seed.

    Attributes:
        policy: its name.
        information: none, bound, predicted or oracle.
        seed: drives the workload, where it is random, and the predictor.
        figures: what `summarize`, or of a fleet `summarize_fleet`, says, plus `wall_s`, the seconds that the simulation
            took.
    """

    policy: str
    information: str
    seed: int
    figures: Mapping[str, Any]


@dataclass
class Evaluation:
    """Runs of several policies over several seeds.

    Attributes:
        num_seeds: seeds that a finished policy has.
        runs: in the order in which they finished.
    """

    num_seeds: int
    runs: list[Run] = field(default_factory=list)

    def finished(self) -> dict[str, list[Run]]:
        """Policies with all their seeds, in order."""
        by_policy: dict[str, list[Run]] = {}
        for run in self.runs:
            by_policy.setdefault(run.policy, []).append(run)
        return {name: runs for name, runs in by_policy.items() if len(runs) == self.num_seeds}

    def values(self, policy: str, figure: str) -> NDArray[np.float64]:
        """(num_seeds,) one figure of a policy, such as "latency_s.mean", nan where it has none."""
        runs = self.finished()[policy]
        return np.array([np.nan if (v := lookup(run.figures, figure)) is None else v for run in runs], np.float64)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Figures by policy: means over the seeds.

        With several seeds, "ci95" has the half-widths, and "vs_best" the ratio of the mean latency to that of the
        best policy, seed by seed.
        """
        table: dict[str, dict[str, Any]] = {}
        for name, runs in self.finished().items():
            figures = [run.figures for run in runs]
            table[name] = {"information": runs[0].information, **combine(figures, lambda v: mean_and_ci95(v)[0])}
            if self.num_seeds > 1:
                table[name]["ci95"] = combine(figures, lambda v: mean_and_ci95(v)[1])
        if self.num_seeds > 1 and table:
            best = sorted_names(table)[0]
            for name, row in table.items():
                row["vs_best"] = self._versus(name, best)
        return table

    def _versus(self, policy: str, best: str) -> dict[str, Any] | None:
        latency, lowest = self.values(policy, "latency_s.mean"), self.values(best, "latency_s.mean")
        if np.isnan(latency).any() or np.isnan(lowest).any():
            return None
        ratio = paired_ratio(latency, lowest)
        return {"policy": best, "latency_ratio": ratio.value, "ci95": [ratio.low, ratio.high]}


def no_predictions(policy: Policy, workload: Workload, seed: int) -> None:
    """The predictor of a comparison without predicted lengths."""


def information_of(contender: Contender) -> str:
    """What a contender knows about output lengths, by name."""
    return Information(getattr(contender, "information", Information.NONE)).name.lower()


def serve(
    contender: Contender,
    workload: Workload,
    config: EngineConfig,
    *,
    seed: int = 0,
    predict: Predict = no_predictions,
    record_schedule: bool = False,
) -> SimulationResult:
    """Serve a workload to its end under any kind of contender; arguments as in `iterate_runs` and `simulate`.

    Raises:
        WorkloadError: an output is longer than an engine promises its scheduler (`max_output_tokens`).
    """
    parts = contender.parts if isinstance(contender, FleetContender) else ()
    for engine in [part.config for part in parts] or [config]:
        workload.check_output_bound(engine.max_output_tokens)
    if isinstance(contender, FleetContender):
        if record_schedule:
            raise ValueError("the schedule of a fleet cannot be recorded")
        predicted = contender.predicted(predict, workload, seed)
        return contender.serve(workload, config, seed=seed, predicted=predicted).pooled
    if isinstance(contender, Player):
        return contender.play(workload, config, seed=seed, record_schedule=record_schedule)
    predicted = predict(contender, workload, seed) if isinstance(contender, Policy) else None
    return simulate(workload, config, contender, predicted=predicted, record_schedule=record_schedule)


def warm_up(contender: Contender | None = None) -> None:
    """Load the compiled engine, or compile it on its first use, so that `wall_s` measures simulations alone.

    Args:
        contender: one whose own compiled code is wanted as well, such as a fleet.
    """
    _warm_up_engine()
    if isinstance(contender, Player):
        one = np.ones(1, np.int64)
        contender.play(Workload(np.zeros(1), one, one), EngineConfig())


@cache
def _warm_up_engine() -> None:
    one = np.ones(1, np.int64)
    simulate(Workload(np.zeros(1), one, one), EngineConfig(), Policy("warm-up"))


def iterate_runs(
    scenario: Scenario,
    contenders: Mapping[str, Contender],
    seeds: Sequence[int] = (0,),
    predict: Predict = no_predictions,
) -> Iterator[Run]:
    """Run the contenders one after another, each on all seeds, and hand out every run as it finishes.

    Args:
        scenario: requests and engine.
        contenders: policies by the name they have in the table.
        seeds: seed k draws the workload, where it is random, and the predictions.
        predict: the predictor.

    Yields:
        One `Run` per contender and seed.
    """
    warm_up()
    workloads: dict[int, Workload] = {}
    for name, contender in contenders.items():
        for seed in seeds:
            if seed not in workloads:
                workloads[seed] = scenario.requests(seed)
            workload = workloads[seed]
            yield Run(name, information_of(contender), seed, _measure(contender, workload, scenario, seed, predict))


def _measure(
    contender: Contender, workload: Workload, scenario: Scenario, seed: int, predict: Predict
) -> dict[str, Any]:
    """The figures of one run."""
    start = time.perf_counter()
    if isinstance(contender, FleetContender):
        predicted = contender.predicted(predict, workload, seed)
        fleet_result = contender.serve(workload, scenario.config, seed=seed, predicted=predicted)
        wall_s = time.perf_counter() - start
        groups = group_figures(fleet_result.pooled, scenario.by, scenario.slo) if scenario.by else {}
        return {**figures_of(fleet_result, scenario.slo), **groups, "wall_s": wall_s}
    result = serve(contender, workload, scenario.config, seed=seed, predict=predict)
    wall_s = time.perf_counter() - start
    groups = group_figures(result, scenario.by, scenario.slo) if scenario.by else {}
    return {**summarize(result, scenario.config, scenario.slo), **groups, "wall_s": wall_s}


def evaluate(
    scenario: Scenario,
    contenders: Mapping[str, Contender],
    seeds: Sequence[int] = (0,),
    predict: Predict = no_predictions,
) -> Evaluation:
    """Run every contender on every seed; see `iterate_runs` for the arguments.

    Example:
        >>> from infermax_gym.baselines.policies import POLICIES
        >>> from infermax_gym.engine import EngineConfig
        >>> scenario = Cell(WorkloadSpec("azure-conv", first=200), EngineConfig())
        >>> evaluation = evaluate(scenario, {"vllm-v1": POLICIES["vllm-v1"]})
        >>> evaluation.summary()["vllm-v1"]["num_finished"]
        200
    """
    evaluation = Evaluation(num_seeds=len(seeds))
    evaluation.runs.extend(iterate_runs(scenario, contenders, seeds, predict))
    return evaluation
