"""The parts of a report on policies side by side: from summary.json, details.json and curve.csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from infermax_gym.evaluation import lookup
from infermax_gym.evaluation.figures import sorted_names
from infermax_gym.evaluation.report import caption
from infermax_gym.evaluation.table import COLUMNS, column_cells, column_title
from infermax_gym.viewer.answers import TODAY, comparison_answer
from infermax_gym.viewer.charts import Point, Series, curves, ranges, scatter, timeline
from infermax_gym.viewer.page import Cell, Column, Legend, Page, Picture, Section, Table
from infermax_gym.viewer.svg import number

Document = Mapping[str, Any]

_MOST_SHOWN = 6
_TIMES = (
    ("latency_s", "Latency", "arrival to last token, s"),
    ("ttft_s", "TTFT", "time to first token, s"),
    ("tpot_s", "TPOT", "time per output token, ms"),
)
UNITS = {
    "latency_s.mean": ("Latency", "mean, s"),
    "vs_best.latency_ratio": ("Latency", "vs best"),
    "latency_s.p99": ("Latency", "p99, s"),
    "ttft_s.mean": ("TTFT", "mean, s"),
    "ttft_s.p99": ("TTFT", "p99, s"),
    "tpot_s.mean": ("TPOT", "mean, ms"),
    "throughput_tokens_per_s": ("Output", "tokens/s"),
    "goodput_per_s": ("Goodput", "requests/s"),
    "slo_attainment": ("Within SLO", "%"),
    "num_preemptions": ("Preemptions", "count"),
    "num_migrations": ("Migrations", "count"),
    "num_recomputed_tokens": ("Recomputed", "tokens"),
    "makespan_s": ("Makespan", "s"),
    "over_bound.latency": ("Over bound", "latency, %"),
    "over_bound.makespan": ("Over bound", "makespan, %"),
    "kv_utilization": ("KV use", "mean, %"),
    "prefix_hit_rate": ("Prefix hits", "%"),
    "wall_s": ("Simulated in", "s"),
}


def comparison_page(document: Document, details: Document | None = None, curve: str | None = None) -> Page:
    """A report on what `bench` or train.py wrote.

    Args:
        document: summary.json.
        details: details.json, if there is one.
        curve: the text of curve.csv, if there is one.
    """
    policies = document["policies"]
    names = sorted_names(policies)
    page = Page(comparison_answer(document), facts_of(document))
    page.legend.add(names, highlighted(policies))
    page.sections.append(figures_table(document, page.legend))
    if curve:
        page.sections += learning(curve)
    of_each = {name: details["policies"][name] for name in names if name in details["policies"]} if details else {}
    page.sections.append(distributions(policies, of_each, details, page.legend))
    page.sections.append(trade_offs(document, page.legend))
    if of_each:
        page.sections.append(over_time(of_each, page.legend))
    page.notes += _notes(document)
    return page


def facts_of(document: Document) -> list[tuple[str, str]]:
    """What was asked, by name."""
    return [(line[:9].strip().capitalize().replace("Slo", "SLO"), line[9:].strip()) for line in caption(document)]


def highlighted(policies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Policies shown at first: today's defaults, and the best beside them."""
    names = sorted_names(policies)
    today = [name for name in names if name in TODAY]
    online = [name for name in names if policies[name]["information"] != "oracle"]
    goodputs = sorted(online, key=lambda name: -(lookup(policies[name], "goodput_per_s") or 0.0))
    oracles = [name for name in names if name not in online]
    wanted = [*online[:1], *today, *goodputs[:1], *oracles[:1], *online]
    chosen = list(dict.fromkeys(wanted))[:_MOST_SHOWN]
    return [name for name in names if name in chosen]


def figures_table(document: Document, legend: Legend) -> Section:
    """Every figure that any of a document's policies has, a column each."""
    policies = document["policies"]
    names = sorted_names(policies)
    shown = [c for c in COLUMNS if any(lookup(policies[name], c.path) is not None for name in names)]
    figures = [policies[name] for name in names]
    heads = [Column("Policy", "", False), Column("Lengths", "known", False)]
    columns: list[list[Cell]] = [
        [Cell(name, name) for name in names],
        [Cell(str(row["information"]), str(row["information"])) for row in figures],
    ]
    for column in shown:
        texts, best = column_cells(column, figures)
        values = [lookup(row, column.path) for row in figures]
        cells = zip(texts, values, strict=True)
        columns.append([Cell(t.strip(" *"), v, i in best) for i, (t, v) in enumerate(cells)])
        heads.append(Column(*UNITS.get(column.path, (column_title(column), ""))))
    rows = list(zip(*columns, strict=True))
    note = "Click a heading to sort. Blue is the best of a column, among the policies that finished the most requests."
    return Section("Figures", note, [Table(heads, rows, [legend.number(name) for name in names])])


def distributions(
    policies: Mapping[str, Mapping[str, Any]], of_each: Document, details: Document | None, legend: Legend
) -> Section:
    """Latency, TTFT and TPOT: over the shares of the requests, or their percentiles where no more is known."""
    if not of_each or details is None:
        return Section("Distributions", "Marks at p50, p90 and p99.", pictures=_percentiles(policies, legend))
    pictures = []
    for path, name, unit in _TIMES:
        scale = 1e3 if path == "tpot_s" else 1.0
        series = [
            Series(
                policy,
                scale * np.array(one["distributions"][path], np.float64),
                legend.style(policy),
                legend.number(policy),
            )
            for policy, one in of_each.items()
            if one["distributions"][path]
        ]
        if series:
            chart = curves(
                details["shares"],
                series,
                x="share of the requests, %",
                y=unit,
                label=f"{name} of each policy over the share of the requests",
                x_kind="tail",
                y_kind="log",
            )
            pictures.append(Picture(name, chart))
    note = "So many percent of the requests had it within so long. To the right are the slowest; lower is better."
    return Section("Distributions", note, pictures=pictures)


def _percentiles(policies: Mapping[str, Mapping[str, Any]], legend: Legend) -> list[Picture]:
    pictures = []
    for path, name, unit in _TIMES:
        scale = 1e3 if path == "tpot_s" else 1.0
        rows = []
        for policy in sorted_names(policies):
            values = [lookup(policies[policy], f"{path}.{kind}") for kind in ("p50", "p90", "p99")]
            scaled = [None if v is None else scale * v for v in values]
            tip = "\n".join([policy, *(f"{k} {number(v)}" for k, v in zip(("p50", "p90", "p99"), scaled, strict=True))])
            rows.append((Point(policy, 0.0, 0.0, legend.style(policy), legend.number(policy), tip), scaled))
        if any(v for _, row in rows for v in row):
            pictures.append(Picture(name, ranges(rows, x=unit, label=f"{name}: p50, p90 and p99 of each policy")))
    return pictures


def trade_offs(document: Document, legend: Legend) -> Section:
    """Policies by two figures at a time."""
    policies, bounds = document["policies"], document.get("bounds")
    pictures = []
    points = _points(policies, legend, "latency_s.mean", "latency_s.p99", ("mean", "s"), ("p99", "s"))
    if points:
        bound = (bounds["latency_s"], "no schedule is left of this") if bounds and bounds.get("latency_s") else None
        chart = scatter(
            points, x="mean latency, s", y="p99 latency, s", label="Mean latency against p99 latency", bound=bound
        )
        pictures.append(Picture("Mean against tail", chart, "Down and left is better."))
    points = _points(policies, legend, "gpu_cost_usd", "goodput_per_s", ("cost", "USD"), ("goodput", "requests/s"))
    if points:
        chart = scatter(
            [_per_thousand(policies, p) for p in points],
            x="GPU cost, USD per 1,000 requests",
            y="goodput, requests/s within SLO",
            label="GPU cost against goodput",
            kinds=("linear", "linear"),
            best=("low", "high"),
        )
        note = "Up and left is better. Cost: seconds in which the GPU works."
        pictures.append(Picture("Cost against goodput", chart, note))
    points = _points(policies, legend, "ttft_s.mean", "tpot_s.mean", ("TTFT", "s"), ("TPOT", "s"))
    if points:
        points = [replace(p, y=1e3 * p.y) for p in points]
        chart = scatter(points, x="mean TTFT, s", y="mean TPOT, ms", label="TTFT against TPOT")
        pictures.append(Picture("First token against the others", chart, "Down and left is better."))
    return Section(
        "Trade-offs",
        "Each mark is a policy. No other beats those on the dashed line in both figures.",
        pictures=pictures,
    )


def _points(
    policies: Mapping[str, Mapping[str, Any]],
    legend: Legend,
    x: str,
    y: str,
    x_name: tuple[str, str],
    y_name: tuple[str, str],
) -> list[Point]:
    found = []
    for name in sorted(sorted_names(policies), key=lambda name: name not in legend.shown):  # their names come first
        a, b = lookup(policies[name], x), lookup(policies[name], y)
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b):
            tip = f"{name}\n{x_name[0]} {number(a)} {x_name[1]}\n{y_name[0]} {number(b)} {y_name[1]}"
            found.append(Point(name, a, b, legend.style(name), legend.number(name), tip))
    return found


def _per_thousand(policies: Mapping[str, Mapping[str, Any]], point: Point) -> Point:
    cost = 1e3 * point.x / max(policies[point.name]["num_finished"], 1)
    tip = f"{point.name}\n{number(cost)} USD per 1,000 requests\n{number(point.y)} requests/s within SLO"
    return Point(point.name, cost, point.y, point.style, point.policy, tip)


def over_time(of_each: Document, legend: Legend) -> Section:
    """A picture per policy, all on the same scales."""
    lines = {name: one["timeline"] for name, one in of_each.items() if len(one["timeline"]["time_s"]) > 1}
    end_s = max((float(one["time_s"][-1]) for one in lines.values()), default=1.0)
    waiting = max((max(one["num_waiting"]) for one in lines.values()), default=0)
    running = max((max(_running(one)) for one in lines.values()), default=0)
    context = max((max(one.get("context_tokens", [0.0])) for one in lines.values()), default=0.0)
    pictures = []
    for name, one in lines.items():
        chart = timeline(
            one,
            label=f"Queue, batch and KV use of {name} over time",
            end_s=end_s,
            most_waiting=max(1.05 * waiting, 1.0),
            most_running=max(1.05 * running, 1.0),
            most_context=1.05 * context,
        )
        pictures.append(Picture(name, chart, policy=legend.number(name)))
    note = "All on the same scales. Red marks are preemptions. Choose policies in the bar above."
    return Section("Over time", note, pictures=pictures)


def _running(one: Document) -> list[int]:
    if "num_running" in one:
        return list(one["num_running"])
    return [a + b for a, b in zip(one["num_prefills"], one["num_decodes"], strict=True)]


def learning(curve: str) -> list[Section]:
    """The curves of a training run, one picture per figure.

    Raises:
        ValueError: a line of the text holds no numbers.
    """
    rows = list(csv.DictReader(io.StringIO(curve)))
    if len(rows) < 2 or "step" not in rows[0]:
        return []
    table = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0] if name}
    pictures = []
    for name, values in table.items():
        if name in ("step", "elapsed_s") or not np.isfinite(values).any():
            continue
        chart = curves(
            table["step"],
            [Series(name, values, 0, -1)],
            x="step",
            y=name.replace("_s", ", s") if name.endswith("_s") else name.replace("_", " "),
            label=f"{name} over the steps of training",
        )
        pictures.append(Picture(name.removesuffix("_s").replace("_", " "), chart))
    return [Section("Learning", _trained(table), pictures=pictures)]


def _trained(table: Mapping[str, Any]) -> str:
    text = f"{int(table['step'][-1]):,} steps"
    if "elapsed_s" in table and np.isfinite(table["elapsed_s"][-1]):
        text += f" in {table['elapsed_s'][-1] / 60.0:.1f} minutes"
    return f"{text}; the last loss is {number(float(table['loss'][-1]))}." if "loss" in table else f"{text}."


def _notes(document: Document) -> Sequence[str]:
    policies, config = document["policies"], document["config"]
    notes = ["Means are over finished requests; goodput counts rejected and unfinished requests as misses."]
    if config.get("seeds", 1) > 1:
        notes.append(f"Figures are means over {config['seeds']} seeds; distributions and timelines are of seed 0.")
    short = {name: row for name, row in policies.items() if row["num_finished"] < row["num_requests"]}
    if short:
        notes.append(f"Not all requests finished under {', '.join(sorted(short))}.")
    if document.get("interrupted"):
        notes.append("The run was interrupted; policies that had not finished are missing.")
    told = "none: nothing; bound: an upper limit; predicted: a noisy prediction; oracle: the truth, as no engine can"
    return [*notes, f"Lengths known is what a policy knows of output lengths ({told})."]
