"""One scenario of a comparison: the requests, the engine, and every policy run on exactly both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import EngineConfig, Slo
from infermax_gym.evaluation.contenders import Contender, information_of, no_predictions, run_contender, with_slo
from infermax_gym.evaluation.details import Observe, is_recorded
from infermax_gym.evaluation.figures import combine, lookup, sorted_names
from infermax_gym.evaluation.fleets import Predict
from infermax_gym.evaluation.groups import By
from infermax_gym.evaluation.statistics import mean_and_ci95, paired_ratio
from infermax_gym.evaluation.warming import Notify, say_nothing, warm_up
from infermax_gym.workload import PRESETS, Traffic, Workload, WorkloadPreset, load_workload
from infermax_gym.workload.reader import retimed
from infermax_gym.workload.source import kept_content

Reader = Callable[[str], Workload]
"""Reads a trace file, by its path."""


@dataclass(frozen=True)
class WorkloadSpec:
    """A recipe for requests: call it with a seed. A pipe is read once and kept. Other arguments as in `load_workload`.

    Attributes:
        made_by: a preset or a reader that the package does not have: of a preset, `source` is its name; of a reader,
            `source` is READER:PATH.
        traffic: who sends them, and when.
    """

    source: str
    skip: int = 0
    first: int | None = None
    time_scale: float = 1.0
    rate: float | None = None
    made_by: WorkloadPreset | Reader | None = None
    from_s: float | None = None
    to_s: float | None = None
    model: str | None = None
    log_type: str | None = None
    content: bytes | None = field(default=None, repr=False)
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        ours = self.made_by is None and self.source not in PRESETS
        if ours and self.content is None:  # a pipe can be read once, and there may be many seeds
            object.__setattr__(self, "content", kept_content(self.source))

    @property
    def choices(self) -> dict[str, Any]:
        """What chooses requests of a trace file by time or name."""
        return {name: getattr(self, name) for name in ("from_s", "to_s", "model", "log_type")}

    def __call__(self, seed: int) -> Workload:
        """The requests of a seed; a file of complete requests is the same for every seed."""
        return self.traffic(self._load(seed))

    def _load(self, seed: int) -> Workload:
        if self.made_by is None or isinstance(self.made_by, WorkloadPreset):
            return load_workload(
                self.made_by or self.source,
                skip=self.skip,
                first=self.first,
                **self.choices,
                time_scale=self.time_scale,
                rate=self.rate,
                seed=seed,
                content=self.content,
            )
        requests = self.made_by(self.source.partition(":")[2]).trace_slice(self.skip, self.first)
        return retimed(requests, self.time_scale, self.rate)


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
        return with_slo(self.workload if isinstance(self.workload, Workload) else self.workload(seed), self.slo)


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


def iterate_runs(
    scenario: Scenario,
    contenders: Mapping[str, Contender],
    seeds: Sequence[int] = (0,),
    predict: Predict = no_predictions,
    notify: Notify = say_nothing,
    observe: Observe | None = None,
) -> Iterator[Run]:
    """Run the contenders one after another, each on all seeds, and hand out every run as it finishes.

    Whatever they run is compiled before the first of them is timed.

    Args:
        scenario: requests and engine.
        contenders: policies by the name they have in the table.
        seeds: seed k draws the workload, where it is random, and the predictions.
        predict: the predictor.
        notify: told when something has to be compiled, which takes minutes.
        observe: told of each contender's run on the first seed, for pictures; see `details_of`.

    Yields:
        One `Run` per contender and seed.
    """
    warm_up(contenders.values(), scenario.config, notify)
    workloads: dict[int, Workload] = {}
    for name, contender in contenders.items():
        for seed in seeds:
            if seed not in workloads:
                workloads[seed] = scenario.requests(seed)
            watched = observe is not None and seed == seeds[0]
            served = run_contender(
                contender,
                workloads[seed],
                scenario.config,
                seed=seed,
                predict=predict,
                record_schedule=watched and is_recorded(contender, workloads[seed]),
            )
            if observe is not None and watched:
                observe(name, contender, workloads[seed], served)
            figures = served.figures(scenario.config, scenario.slo, scenario.by)
            yield Run(name, information_of(contender), seed, figures)


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
        >>> scenario = Scenario(WorkloadSpec("azure-conv", first=200), EngineConfig())
        >>> evaluation = evaluate(scenario, {"vllm": POLICIES["vllm"]})
        >>> evaluation.summary()["vllm"]["num_finished"]
        200
    """
    evaluation = Evaluation(num_seeds=len(seeds))
    evaluation.runs.extend(iterate_runs(scenario, contenders, seeds, predict))
    return evaluation
