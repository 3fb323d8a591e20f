"""Fit the presets of `infermax_gym.workload` to traces and report how good the fit is.

    python -m experiments.facts.fit_workloads TRACES --out .

reads the traces in the directory TRACES. `--out` names a checkout: its infermax_gym/workload/fitted.json gets the
parameters, its docs/workloads.md the table of goodness of fit, which is printed as well. Without `--out` nothing is
written. Nothing but parameters is written: quantile
tables of each length and of the rate, correlations, and the moments of gaps. The same traces give the same files.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from infermax_gym.workload.arrivals import Arrivals
from infermax_gym.workload.fitted import arrivals_from_parameters, lengths_from_parameters
from infermax_gym.workload.reader import read_workload
from infermax_gym.workload.workload import Workload, WorkloadError

PARAMETERS = Path("infermax_gym/workload/fitted.json")
REPORT = Path("docs/workloads.md")
BEGIN, END = "<!-- goodness of fit: begin -->", "<!-- goodness of fit: end -->"

TABLE_LEVELS = np.concatenate(([0.001, 0.002, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.998, 0.999]))
"""Probabilities of the knots of a length table; the smallest and largest count are added."""
NUM_RATE_KNOTS = 32
SILENCE_S = 10.0
"""A gap above this is a silence: a process of its own, not a part of the rate."""
NUM_SAMPLES = 200_000
NUM_SEEDS = 64


@dataclass(frozen=True)
class Source:
    """A trace and how to read its arrivals.

    Attributes:
        preset: name of the preset fitted to it.
        pattern: of the file's name.
        level_s: how long a level of the rate lasts; None if the trace has no arrivals. Short where bursts are.
        grid_s: spacing of the time stamps, when they were rounded; arrivals are spread over it first.
    """

    preset: str
    pattern: str
    level_s: float | None = None
    grid_s: float = 0.0


SOURCES = (
    Source("azure-conv", "*azure2023_conv*.csv", level_s=10.0),
    Source("azure-code", "*azure2023_code*.csv", level_s=2.0),
    Source("mooncake-conversation", "*mooncake_conversation*.jsonl", level_s=10.0, grid_s=3.0),
    Source("long-document", "*arxiv_summarization*.csv"),
)


def read_source(source: Source, directory: Path) -> Workload:
    """The trace of a source; WorkloadError if the directory holds none or several."""
    found = sorted(directory.glob(source.pattern))
    if len(found) != 1:
        raise WorkloadError(f"{directory}: expected one file that matches {source.pattern}, found {len(found)}")
    return read_workload(found[0], rate=None if source.level_s else 1.0)


def spread(workload: Workload, grid_s: float) -> NDArray[np.float64]:
    """(n,) arrival times from 0, spread evenly over a grid that they were rounded to."""
    if not grid_s:
        return workload.arrival_s
    jitter = np.random.default_rng(0).uniform(0.0, grid_s, len(workload))
    arrival_s = np.sort(np.round(workload.arrival_s / grid_s) * grid_s + jitter)
    return np.asarray(arrival_s - arrival_s[0], np.float64)


def fit_lengths(workload: Workload) -> dict[str, Any]:
    """Quantile tables of both lengths, and the correlation of their normal scores (from Spearman's)."""
    edge = 0.5 / len(workload)
    levels = np.concatenate(([edge], TABLE_LEVELS[abs(TABLE_LEVELS - 0.5) < 0.5 - edge], [1 - edge]))
    spearman = spearman_correlation(workload)
    return {
        "scores": rounded(stats.norm.ppf(levels), 5),
        "num_prompt_tokens": table(workload.num_prompt_tokens, levels),
        "num_output_tokens": table(workload.num_output_tokens, levels),
        "correlation": round(2.0 * math.sin(math.pi * spearman / 6.0), 4),
    }


def table(counts: NDArray[np.int64], levels: NDArray[np.float64]) -> list[float]:
    """Token counts at the given levels, the smallest and largest count at the ends."""
    values = np.quantile(counts, levels, method="inverted_cdf").astype(np.float64)
    values[0], values[-1] = counts.min(), counts.max()
    return rounded(values, 1)


def fit_arrivals(arrival_s: NDArray[np.float64], level_s: float) -> dict[str, Any]:
    """Parameters of `Modulated` arrivals, with `Silences` if the trace has any."""
    gaps = np.diff(arrival_s)
    silent = gaps > SILENCE_S
    silences = None
    if silent.any():
        silences = {
            "probability": round(float(silent.mean()), 6),
            "mean_s": round(float(gaps[silent].mean()), 3),
            "sigma": round(float(np.log(gaps[silent]).std()), 4),
        }
        gaps = np.where(silent, gaps[~silent].mean(), gaps)
    return {**fit_rate(np.concatenate(([0.0], np.cumsum(gaps))), level_s), "silences": silences}


def fit_rate(arrival_s: NDArray[np.float64], level_s: float) -> dict[str, Any]:
    """A level of the rate per spell, its correlation from spell to spell, and the variation of gaps inside."""
    num_slices = int(arrival_s[-1] // level_s)
    arrival_s = arrival_s[arrival_s < num_slices * level_s]
    counts = np.bincount((arrival_s // level_s).astype(int), minlength=num_slices).astype(np.float64)
    # Gaps on a clock that runs with the counts: what varies there is not the rate.
    clock = np.interp(arrival_s, np.arange(num_slices + 1) * level_s, np.concatenate(([0.0], np.cumsum(counts))))
    gap_cv = float(np.diff(clock).std() / np.diff(clock).mean())
    # Counts vary more than the rate does, since a count is itself random: shrink by that share of the variance.
    multipliers = counts / counts.mean()
    share = min(gap_cv**2 / counts.mean() / multipliers.var(), 0.95)
    multipliers = 1.0 + (multipliers - 1.0) * math.sqrt(1.0 - share)
    levels = (np.arange(NUM_RATE_KNOTS) + 0.5) / NUM_RATE_KNOTS
    knots = np.maximum(np.quantile(multipliers, levels), 0.0)
    every = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    scores = stats.norm.ppf(levels)
    knots /= np.interp(every, scores, knots).mean()  # so that the mean rate is the trace's
    ranks = stats.norm.ppf(stats.rankdata(counts) / (num_slices + 1))
    ranks -= ranks.mean()
    correlation = float(np.mean(ranks[1:] * ranks[:-1]) / ranks.var() / (1.0 - share))
    return {
        "rate_per_s": round(len(arrival_s) / (num_slices * level_s), 5),
        "level_s": level_s,
        "scores": rounded(scores, 5),
        "multipliers": rounded(knots, 5),
        "correlation": round(min(max(correlation, 0.0), 0.98), 4),
        "gap_cv": round(gap_cv, 4),
    }


def rounded(values: NDArray[np.float64], digits: int) -> list[float]:
    """Values for the parameter file, rounded."""
    return [round(value, digits) for value in values.tolist()]


def spearman_correlation(workload: Workload) -> float:
    """Rank correlation of prompt and output lengths."""
    return float(stats.spearmanr(workload.num_prompt_tokens, workload.num_output_tokens).statistic)


def gap_cv(arrival_s: NDArray[np.float64]) -> float:
    """Coefficient of variation of the gaps between arrivals."""
    gaps = np.diff(arrival_s)
    return float(gaps.std() / gaps.mean())


def dispersion(arrival_s: NDArray[np.float64], window_s: float = 60.0) -> float:
    """Variance over mean of the arrivals per minute; 1 for a Poisson process."""
    num_slices = int(arrival_s[-1] // window_s)
    counts = np.bincount((arrival_s // window_s).astype(int))[:num_slices]
    return float(counts.var() / counts.mean()) if num_slices > 1 else math.nan


def mean_rate(arrival_s: NDArray[np.float64]) -> float:
    """Requests per second."""
    return float((len(arrival_s) - 1) / arrival_s[-1])


def report_lengths(source: Source, workload: Workload, parameters: dict[str, Any]) -> str:
    """A line of the table of lengths."""
    sample = lengths_from_parameters(parameters).sample(np.random.default_rng(1), NUM_SAMPLES)
    prompt = stats.ks_2samp(workload.num_prompt_tokens, sample.num_prompt_tokens, method="asymp").statistic
    output = stats.ks_2samp(workload.num_output_tokens, sample.num_output_tokens, method="asymp").statistic
    spearman = float(stats.spearmanr(sample.num_prompt_tokens, sample.num_output_tokens).statistic)
    cells = (
        f"`{source.preset}`",
        f"{len(workload):,}",
        f"{prompt:.4f}",
        f"{output:.4f}",
        f"{1.358 / math.sqrt(len(workload)):.4f}",
        f"{workload.num_prompt_tokens.mean():,.0f} / {sample.num_prompt_tokens.mean():,.0f}",
        f"{workload.num_output_tokens.mean():,.1f} / {sample.num_output_tokens.mean():,.1f}",
        f"{spearman_correlation(workload):+.3f} / {spearman:+.3f}",
    )
    return f"| {' | '.join(cells)} |"


def report_arrivals(source: Source, arrival_s: NDArray[np.float64], process: Arrivals) -> str:
    """A line of the table of arrivals: the trace, and the middle 80 % of samples as long as it."""
    samples = [process.sample(np.random.default_rng(seed), len(arrival_s)) for seed in range(NUM_SEEDS)]

    def cell(figure: Callable[[NDArray[np.float64]], float]) -> str:
        low, middle, high = np.quantile([figure(sample) for sample in samples], [0.1, 0.5, 0.9])
        return f"{figure(arrival_s):.2f} / {middle:.2f} ({low:.2f} to {high:.2f})"

    figures = (mean_rate, gap_cv, lambda times: dispersion(times, 10.0), dispersion)
    return f"| `{source.preset}` | {' | '.join(cell(figure) for figure in figures)} |"


LENGTH_HEAD = """\
| preset | rows | KS prompt | KS output | 5 % level | mean prompt | mean output | Spearman |
|---|---|---|---|---|---|---|---|"""
ARRIVAL_HEAD = """\
| preset | requests/s | CV of gaps | dispersion per 10 s | dispersion per minute |
|---|---|---|---|---|"""


def to_json(workloads: dict[str, Any]) -> str:
    """The parameter file, each list on one line."""
    text = json.dumps({"schema": 1, "workloads": workloads}, indent=2)
    return (
        re.sub(r"\[[^\]]*\]", lambda numbers: " ".join(numbers[0].split()), text).replace("[ ", "[").replace(" ]", "]")
        + "\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Fit every source; print the table, and write both files where asked to."""
    parser = argparse.ArgumentParser(description="Fit the presets of the workloads to traces.")
    parser.add_argument("traces", type=Path, metavar="TRACES", help="directory of the traces")
    parser.add_argument("--out", type=Path, metavar="DIR", help="checkout whose parameters and page are rewritten")
    options = parser.parse_args(arguments)
    workloads: dict[str, Any] = {}
    lengths_rows, arrival_rows = [], []
    for source in SOURCES:
        try:
            workload = read_source(source, options.traces)
        except WorkloadError as error:
            print(error, file=sys.stderr)
            return 2
        parameters: dict[str, Any] = {"num_rows": len(workload), "lengths": fit_lengths(workload)}
        lengths_rows.append(report_lengths(source, workload, parameters["lengths"]))
        if source.level_s:
            arrival_s = spread(workload, source.grid_s)
            parameters["arrivals"] = fit_arrivals(arrival_s, source.level_s)
            process = arrivals_from_parameters(parameters["arrivals"])
            arrival_rows.append(report_arrivals(source, arrival_s, process))
        workloads[source.preset] = parameters
    tables = "\n".join((BEGIN, "", LENGTH_HEAD, *lengths_rows, "", ARRIVAL_HEAD, *arrival_rows, "", END))
    if options.out is not None:
        report = options.out / REPORT
        before, _, rest = report.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        report.write_text(before + tables + after, encoding="utf-8")
        (options.out / PARAMETERS).write_text(to_json(workloads), encoding="utf-8")
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
