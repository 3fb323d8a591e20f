"""The parts of reports on fleets, replays, optima and tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym.engine import Iteration
from infermax_gym.evaluation import lookup
from infermax_gym.evaluation.report import engine_in_words, slo_in_words
from infermax_gym.viewer.answers import capacity_answer, optimal_answer, replay_answer
from infermax_gym.viewer.charts import Point, bars, scatter
from infermax_gym.viewer.comparison import UNITS, distributions, facts_of, figures_table, over_time
from infermax_gym.viewer.gantt import gantt
from infermax_gym.viewer.page import Cell, Column, Page, Picture, Section, Table
from infermax_gym.viewer.schedule import stays_of
from infermax_gym.viewer.svg import MISSING, number

Document = Mapping[str, Any]

_MOST_REQUESTS = 200
_TIMES = (("latency_s", "latency, s", 1.0), ("ttft_s", "TTFT, s", 1.0), ("tpot_s", "TPOT, ms", 1e3))


def capacity_page(document: Document) -> Page:
    """A report on what `infermax capacity` found."""
    config = document["config"]
    sizing = "fleets" in document
    rows = list(document["fleets" if sizing else "capacity"])
    page = Page(capacity_answer(document))
    page.facts = [
        ("Workload", f"{config['workload']}, {config['requests_per_replica']:,} requests per replica"),
        ("Engine", engine_in_words(config)),
        ("SLO", f"{slo_in_words(config)} for {100 * config['attainment']:g} % of the requests"),
    ]
    names = _fleet_names(rows)
    page.legend.add(names, names)
    page.sections.append(Section("Fleets", "Click a heading to sort.", [_fleet_table(rows, names, sizing, page)]))
    page.sections.append(
        Section("Pictures", "Lines on bars are 95 % intervals.", pictures=_fleet_pictures(rows, names, sizing, page))
    )
    if config["seeds"] > 1:
        page.notes.append(f"Means over {config['seeds']} seeds; intervals are 95 %.")
    return page


def _fleet_names(rows: list[Document]) -> list[str]:
    """What tells the fleets apart, each once."""
    parts = [[str(row["policy"]), f"{row['num_replicas'] or '?'} x {row['cost']}", str(row["router"])] for row in rows]
    differ = [i for i in range(3) if len({part[i] for part in parts}) > 1] or [0]
    return [", ".join(part[i] for i in differ) for part in parts]


def _fleet_table(rows: list[Document], names: list[str], sizing: bool, page: Page) -> Table:
    heads = [
        Column("Policy", "", False),
        Column("Router", "", False),
        Column("Engine", "", False),
        Column("Replicas", "count"),
    ]
    if sizing:
        heads += [Column("Within SLO", "%"), Column("±", "%")]
        paths: tuple[tuple[str, float], ...] = (("attainment", 100.0), ("ci95", 100.0))
    else:
        heads += [Column("Capacity", "requests/s"), Column("±", "requests/s"), Column("A replica", "requests/s")]
        paths = (("rate_per_s", 1.0), ("ci95_per_s", 1.0), ("rate_per_replica_per_s", 1.0))
    heads.append(Column("Cost", "USD/h"))
    cells = []
    for row in rows:
        names_of = [Cell(str(row[k]), str(row[k])) for k in ("policy", "router", "cost")]
        values = [
            (row.get("num_replicas"), 1.0),
            *((row.get(p), s) for p, s in paths),
            (row.get("cost_usd_per_h"), 1.0),
        ]
        cells.append(names_of + [_cell(value, scale) for value, scale in values])
    return Table(heads, cells, [page.legend.number(name) for name in names])


def _fleet_pictures(rows: list[Document], names: list[str], sizing: bool, page: Page) -> list[Picture]:
    def point(row: Document, name: str, x: float, y: float, half: float | None, unit: str) -> Point:
        tip = f"{name}\n{number(x)}{'' if not half else f' ± {number(half)}'} {unit}"
        return Point(name, x, y, page.legend.style(name), page.legend.number(name), tip, half)

    path, unit = ("cost_usd_per_h", "USD per hour") if sizing else ("rate_per_s", "requests/s")
    known = [(row, name) for row, name in zip(rows, names, strict=True) if row.get(path) is not None]
    marks = [point(row, name, row[path], 0.0, None if sizing else row["ci95_per_s"], unit) for row, name in known]
    pictures = []
    if marks:
        marks.sort(key=lambda p: p.x, reverse=not sizing)
        title = "Cost of the smallest fleet" if sizing else "Capacity"
        pictures.append(Picture(title, bars(marks, x=unit, label=f"{title} of each fleet")))
    costs = {row["cost_usd_per_h"] for row, _ in known}
    if not sizing and None not in costs and len(costs) > 1:
        marks = [
            point(row, name, row["cost_usd_per_h"], row["rate_per_s"], None, "USD per hour") for row, name in known
        ]
        chart = scatter(
            marks, x="cost, USD per hour", y="capacity, requests/s", label="Cost against capacity", best=("low", "high")
        )
        pictures.append(Picture("Cost against capacity", chart, "Up and left is better."))
    return pictures


def replay_page(document: Document, details: Document | None) -> Page:
    """A report on what `infermax replay` found."""
    config = document["config"]
    page = Page(replay_answer(document))
    page.facts = [
        ("Log", f"{Path(str(config['log'])).name}, {config['num_requests']:,} requests"),
        ("Policy", str(config["policy"])),
        ("Engine", engine_in_words(config)),
    ]
    names = {"logged": "real", "simulated": "simulated"}
    page.legend.add(list(names), list(names))
    heads = [Column("Figure", "", False), Column("Of", "", False)]
    kinds = ("mean", "p50", "p90", "p99")
    heads += [Column(kind) for kind in kinds]
    heads += [Column("Error", f"{kind}, %") for kind in kinds]
    rows = []
    for path, label, scale in (
        ("latency_s", "latency, s", 1.0),
        ("ttft_s", "TTFT, s", 1.0),
        ("tpot_s", "TPOT, ms", 1e3),
    ):
        for shown, where in names.items():
            values = [_cell(lookup(document[where], f"{path}.{kind}"), scale) for kind in kinds]
            errors = [lookup(document["error"], f"{path}.{kind}") if where == "simulated" else None for kind in kinds]
            percents = [Cell("" if e is None else f"{100.0 * e:+.1f}", e) for e in errors]
            rows.append([Cell(label, label), Cell(shown, shown), *values, *percents])
    page.sections.append(Section("Figures", "Errors are simulated / logged - 1.", [Table(heads, rows)]))
    if details is not None:
        of_each = {name: details["policies"][name] for name in names}
        page.sections.append(distributions({}, of_each, details, page.legend))
        page.sections.append(over_time(of_each, page.legend))
    return page


def tune_page(document: Document) -> Page:
    """A report on what `infermax tune` found."""
    config = document["config"]
    sentences = list(document.get("answer") or ["The search found these settings."])
    page = Page(sentences[1:2] + sentences[:1] + sentences[2:], facts_of(document))
    parts = {"today's defaults": document["today"], "best flags": document["flags"]}
    if document.get("policy"):
        parts[str(document["policy"]["name"])] = document["policy"]
    if not document["flags"].get("recommended", True):
        del parts["best flags"]
    known = {name: part for name, part in parts.items() if part["figures"] is not None}
    policies = {n: {**p["figures"], "information": p.get("information", "none")} for n, p in known.items()}
    page.legend.add(list(policies), list(policies))
    if policies:
        page.sections.append(Section("The verdict", pictures=[_verdict(document, known, page)]))
        page.sections.append(figures_table({"policies": policies, "config": config}, page.legend))
        page.sections.append(distributions(policies, {}, None, page.legend))
    if document.get("hardware"):
        page.sections.append(_hardware(document["hardware"]))
    page.sections.append(Section("What to type", code=document["commands"]))
    if document.get("candidates"):
        page.sections.append(_candidates(document))
    page.notes.append("Figures are means over held-out windows, which the search did not see; lines on bars are 95 %.")
    return page


def _verdict(document: Document, parts: Mapping[str, Document], page: Page) -> Picture:
    """The figure that counts, of today's defaults and what is better."""
    path = str(document["config"]["figure"])
    title, unit = UNITS.get(path, (path, ""))
    scale = 100.0 if unit == "%" else 1.0
    marks = []
    for name, part in parts.items():
        value, half = lookup(part["figures"], path), lookup(part.get("ci95") or {}, path)
        if value is not None:
            half = None if half is None else scale * half
            tip = f"{name}\n{number(scale * value)}{'' if half is None else f' ± {number(half)}'} {unit}"
            legend = page.legend
            marks.append(Point(name, scale * value, 0.0, legend.style(name), legend.number(name), tip, half))
    bound = None if document["bound"] is None else (scale * document["bound"], "nobody can do better")
    chart = bars(marks, x=f"{title.lower()} ({unit})", label=f"{title} of each setting", bound=bound)
    better = "Longer" if document["config"].get("better") == "high" else "Shorter"
    return Picture(title, chart, f"{better} is better.")


def _hardware(entries: list[Document]) -> Section:
    """What tokens cost on each kind of hardware, the cheapest first."""
    of_one_model = len({str(each["engine"]).partition("@")[0] for each in entries}) == 1
    cheapest = sorted(entries, key=lambda each: each["usd_per_million_tokens"] or math.inf)
    marks, rows = [], []
    for each in cheapest:
        name, dollars, half = str(each["engine"]), each["usd_per_million_tokens"], each["ci95"]
        if dollars is not None:
            short = name.partition("@")[2] if of_one_model else name
            tip = (
                f"{name}\n{number(dollars)}{'' if half is None else f' ± {number(half)}'} USD per million output tokens"
            )
            marks.append(Point(short, dollars, 0.0, 0, -1, tip, half))
        flags = " ".join(f"{flag} {value}" for flag, value in each["flags"].items()) or "as today"
        paths = ("usd_per_million_tokens", "ci95", "rate_per_s", "usd_per_h", "replicas", "fleet_usd_per_h")
        rows.append([Cell(name, name), Cell(flags, flags), *(_cell(each[path], 1.0) for path in paths)])
    heads = [Column("Engine", "", False), Column("Flags", "", False), Column("Tokens", "USD/million"), Column("±", "")]
    heads += [Column("Capacity", "requests/s"), Column("Replica", "USD/h")]
    heads += [Column("Replicas", "for the rate"), Column("Fleet", "USD/h")]
    label = "Cost of output tokens on each hardware"
    pictures = []
    if marks:
        chart = bars(marks, x="US dollars per million output tokens, within the SLO", label=label)
        pictures.append(Picture("Cost of tokens", chart, "Shorter is better; lines are 95 % intervals."))
    return Section(
        "Hardware", "The same model elsewhere, with the best flags found there.", [Table(heads, rows)], pictures
    )


def _candidates(document: Document) -> Section:
    """Everything that was tried, by the mean of its search windows."""
    path = str(document["config"]["figure"])
    title, unit = UNITS.get(path, (path, ""))
    scale = 100.0 if unit == "%" else 1.0
    heads = [Column("Setting", "", False), Column("Kind", "", False), Column(title, f"search, {unit}")]
    heads += [Column("Windows", "count"), Column(title, f"held out, {unit}"), Column("Latency", "mean, s")]
    rows = []
    for each in document["candidates"]:
        searched = [v for v in each["values"] if v is not None]
        held_out = [v for v in each["held_out"] or () if v is not None]
        latency = lookup(each["figures"] or {}, "latency_s.mean")
        means = [sum(values) / len(values) if values else None for values in (searched, held_out)]
        cells = [Cell(str(each[k]), str(each[k])) for k in ("name", "kind")]
        figures = [_cell(means[0], scale), _cell(len(searched), 1.0), _cell(means[1], scale), _cell(latency, 1.0)]
        rows.append([*cells, *figures])
    best = -1.0 if document["config"].get("better") == "high" else 1.0
    rows.sort(key=lambda row: (-(row[3].value or 0), best * float(row[2].value or 0.0)))  # type: ignore[operator]
    counts = "; ".join(f"{len(r['tried']):,} on {r['num_windows']}" for r in document.get("rungs", ()))
    note = f"Settings tried on so many windows: {counts}." if counts else ""
    return Section("Everything that was tried", note, [Table(heads, rows)])


def optimal_page(document: Document) -> Page:
    """A report on what `infermax optimal --out` found."""
    page = Page(optimal_answer(document))
    instance = document["instance"]
    page.facts = [
        ("Requests", number(len(instance["requests"]))),
        ("KV cache", f"{instance['kv_tokens']:,} tokens"),
        ("Iteration", f"{instance['max_num_batched_tokens']:,} tokens, {instance['max_num_seqs']:,} requests at most"),
        ("Method", str(document["method"])),
    ]
    if not document["schedule"]:
        return page
    prompts = np.array([r["num_prompt_tokens"] for r in instance["requests"]], np.int64)
    outputs = np.array([r["num_output_tokens"] for r in instance["requests"]], np.int64)
    iterations = [
        Iteration(start_s, end_s, tuple((r, c) for r, c in batch), tuple(preempted))
        for (start_s, end_s), batch, preempted in zip(
            document["spans_s"], document["schedule"], document["preempted"], strict=True
        )
    ]
    if len(prompts) > _MOST_REQUESTS:
        page.notes.append(f"Schedules of more than {_MOST_REQUESTS} requests are not drawn.")
        return page
    stays = stays_of(iterations, prompts, outputs)
    chart = gantt(stays, iterations, len(prompts), instance["kv_tokens"], label="Who is in which iteration")
    note = "Each line is a request; crosses are preemptions. Below: KV tokens held, against the capacity."
    page.sections.append(Section("The schedule", note, pictures=[Picture("Schedule", chart)], is_wide=True))
    return page


def _cell(value: float | int | None, scale: float) -> Cell:
    if value is None:
        return Cell(MISSING, None)
    shown = value if isinstance(value, int) and scale == 1.0 else value * scale
    return Cell(number(shown), value)
