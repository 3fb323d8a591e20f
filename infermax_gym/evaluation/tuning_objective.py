"""What a setting is judged by, and when it may be called better than another.

An optimiser finds whatever hole an objective has, so these have none that we know of:
- Open traffic is judged by the share of all its requests within their limits, not by their number per second of the
  makespan, which a few last requests decide.
- A setting that rejects a request, or leaves one unfinished, which today's defaults serve, is out: means over finished
  requests, and seconds in which fewer requests run, would reward it.
- The cost is of rented GPUs, idle or not, at the highest rate within the SLO; not of busy seconds, which fall where
  requests wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from infermax_gym.evaluation.figures import lookup
from infermax_gym.evaluation.statistics import mean_and_ci95, paired_ratio

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Objective:
    """A figure and its direction.

    Attributes:
        name: goodput, latency or cost.
        figure: dotted path among a run's figures.
        better: whether high or low values are good.
        words: what the figure is, for people.
        unit: what follows its value.
        scale: factor from the figure to the shown value.
    """

    name: str
    figure: str
    better: Literal["high", "low"]
    words: str
    unit: str
    scale: float = 1.0

    def value(self, figures: Figures) -> float:
        """The figure of a run; nan where there is none."""
        value = lookup(figures, self.figure)
        return math.nan if value is None else float(value)

    def shown(self, value: float | None) -> str:
        """A value with its unit."""
        if value is None or not math.isfinite(value):
            return "-"
        scaled = value * self.scale
        decimals = 1 if self.unit.startswith(" %") else 2 - math.floor(math.log10(abs(scaled))) if scaled else 0
        return f"{scaled:,.{min(max(decimals, 0), 4)}f}{self.unit}"


def goodput(closed_loop: bool) -> Objective:
    """Requests within their limits: of open traffic their share, of clients that wait for answers their rate."""
    if closed_loop:
        return Objective("goodput", "goodput_per_s", "high", "goodput", " requests/s within the SLO")
    return Objective("goodput", "slo_attainment", "high", "goodput", " % of requests within the SLO", 100.0)


LATENCY = Objective("latency", "latency_s.mean", "low", "mean latency", " s")
COST = Objective("cost", "cost.usd_per_million_tokens", "low", "cost", " USD per million output tokens")


def serves_as_many(figures: Figures, today: Figures) -> bool:
    """Whether a run finishes as many requests as today's defaults do, of the same ones."""
    return bool(figures["num_finished"] >= today["num_finished"] and figures["num_rejected"] <= today["num_rejected"])


def score(objective: Objective, runs: Sequence[Figures], today: Sequence[Figures]) -> float:
    """How good a setting is over some windows, the more the better; -inf if it serves fewer requests than today's.

    Args:
        objective: what counts.
        runs: figures by window.
        today: those of today's defaults in the same windows.
    """
    if not all(serves_as_many(run, now) for run, now in zip(runs, today, strict=True)):
        return -math.inf
    mean = float(np.mean([objective.value(run) for run in runs]))
    if math.isnan(mean):
        return -math.inf
    return mean if objective.better == "high" else -mean


@dataclass(frozen=True)
class Gain:
    """How much better than today's defaults a setting is, over windows that both served.

    Attributes:
        measure: "difference" of the figures, or their "ratio", setting over today.
        value: of it.
        low: lower end of its 95 % interval.
        high: upper end.
        excludes_none: whether the whole interval is on the good side of no gain.
        serves_as_many: whether no window has fewer finished requests than under today's defaults.
    """

    measure: Literal["difference", "ratio"]
    value: float
    low: float
    high: float
    excludes_none: bool
    serves_as_many: bool

    @property
    def recommended(self) -> bool:
        """Whether it may be recommended."""
        return self.excludes_none and self.serves_as_many


def gain(objective: Objective, runs: Sequence[Figures], today: Sequence[Figures]) -> Gain:
    """The paired gain over today's defaults: Student's interval over the windows.

    Shares are compared by their difference, everything else by its ratio, or by the difference where a value is zero.
    """
    ours, theirs = ([objective.value(run) for run in each] for each in (runs, today))
    as_many = all(serves_as_many(run, now) for run, now in zip(runs, today, strict=True))
    values = np.array([ours, theirs])
    if len(ours) < 2 or not np.isfinite(values).all():
        return Gain("difference", math.nan, math.nan, math.nan, False, as_many)
    if objective.figure == "slo_attainment" or values.min() <= 0.0:
        mean, half = mean_and_ci95(values[0] - values[1])
        low, high, none = mean - half, mean + half, 0.0
        measure: Literal["difference", "ratio"] = "difference"
    else:
        ratio = paired_ratio(values[0], values[1])
        mean, low, high, none, measure = ratio.value, ratio.low, ratio.high, 1.0, "ratio"
    excludes = low > none if objective.better == "high" else high < none
    return Gain(measure, mean, low, high, excludes, as_many)
