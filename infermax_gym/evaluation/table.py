"""The comparison as a table: which columns, in which width, and who is best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from infermax_gym.evaluation.figures import lookup, sorted_names

MISSING = "-"
_GAPS = (2, 1)  # blanks between columns: the first that lets every column fit


@dataclass(frozen=True)
class Column:
    """One figure of the table.

    Attributes:
        header: two lines: what it is, and its unit or kind.
        path: where the figure is, dotted.
        better: "low" or "high" marks the best row; None marks none.
        scale: factor from the JSON's unit to the shown one.
        decimals: shown after the point; None fits the values.
        count: a number of things: whole, shortened from 100,000 on.
        rank: columns with larger ranks are dropped first where the terminal is narrow.
    """

    header: str
    path: str
    better: str | None = None
    scale: float = 1.0
    decimals: int | None = None
    count: bool = False
    rank: int = 0


COLUMNS = (
    Column("latency\nmean s", "latency_s.mean", "low"),
    Column("latency\nvs first row", "vs_best.latency_ratio", rank=3),
    Column("\np99 s", "latency_s.p99", "low", rank=1),
    Column("TTFT\nmean s", "ttft_s.mean", "low"),
    Column("\np99 s", "ttft_s.p99", "low", rank=1),
    Column("TPOT\nmean ms", "tpot_s.mean", "low", scale=1e3),
    Column("tokens\nper s", "throughput_tokens_per_s", "high", count=True),
    Column("goodput\nper s", "goodput_per_s", "high"),
    Column("SLO\n%", "slo_attainment", "high", scale=100.0, decimals=1, rank=5),
    Column("pre-\nempted", "num_preemptions", count=True, rank=2),
    Column("mi-\ngrated", "num_migrations", count=True, rank=2),
    Column("tokens\nredone", "num_recomputed_tokens", count=True, rank=4),
    Column("busy\nmax/mean", "busy_imbalance", "low", rank=2),
    Column("requests\nmax/mean", "request_imbalance", "low", rank=5),
    Column("make-\nspan s", "makespan_s", "low", rank=3),
    Column("over bound:\nlatency %", "over_bound.latency", scale=100.0, decimals=1),
    Column("\nmakespan %", "over_bound.makespan", scale=100.0, decimals=1),
    Column("KV\nuse %", "kv_utilization", scale=100.0, decimals=0, rank=6),
    Column("prefix\nhits %", "prefix_hit_rate", "high", scale=100.0, decimals=1, rank=2),
    Column("wall\ns", "wall_s", rank=7),
)


def comparison_table(policies: Mapping[str, Mapping[str, Any]], width: int) -> tuple[Table, list[str]]:
    """A table of the "policies" object, at most `width` characters wide.

    The best value of a column, among the policies that finished the most requests, is bold and carries a `*`;
    a column in which all agree has no mark.

    Returns:
        The table, and the headers of columns that the width left out.
    """
    names = sorted_names(policies)
    columns = [c for c in COLUMNS if any(lookup(policies[name], c.path) is not None for name in names)]
    cells = {column.path: _cells(column, [policies[name] for name in names]) for column in columns}
    information = [str(policies[name]["information"]) for name in names]
    widths = {c.path: _width(c.header, cells[c.path]) for c in columns}
    fixed = _width("policy", names) + _width("lengths", information)
    gap, shown = _fit(columns, widths, width - fixed)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("policy", no_wrap=True, vertical="bottom")
    table.add_column("lengths\nknown", no_wrap=True)
    for column in shown:
        table.add_column(column.header, justify="right", no_wrap=True)
    for row, name in enumerate(names):
        table.add_row(name, information[row], *(_styled(cells[column.path][row]) for column in shown))
    return table, [column_title(column) for column in columns if column not in shown]


def column_cells(column: Column, policies: Sequence[Mapping[str, Any]]) -> tuple[list[str], set[int]]:
    """A column's texts, policy by policy, and the places of the best."""
    values = [lookup(figures, column.path) for figures in policies]
    return _cells(column, policies), _best(column, values, [figures["num_finished"] for figures in policies])


def _fit(columns: Sequence[Column], widths: Mapping[str, int], space: int) -> tuple[int, list[Column]]:
    """The widest gap, and the columns, that fit into `space` characters beside the first two columns."""
    for gap in _GAPS:
        if sum(widths[c.path] + gap for c in columns) + gap <= space:
            return gap, list(columns)
    shown = list(columns)
    while sum(widths[c.path] + gap for c in shown) + gap > space:
        victim = max(shown, key=lambda c: c.rank)
        if victim.rank == 0:
            break
        shown.remove(victim)
    return gap, shown


def column_title(column: Column) -> str:
    """The name of a column in one line."""
    for path, title in (("latency_s", "latency"), ("ttft_s", "TTFT"), ("over_bound", "over bound,")):
        if column.path.startswith(path):
            return f"{title} {column.path.split('.')[1]}"
    return column.header.replace("-\n", "").replace("\n", " ")


def _width(header: str, cells: Sequence[str]) -> int:
    return max(len(text) for text in (*header.split("\n"), *cells))


def _styled(cell: str) -> Text:
    return Text(cell, style="bold" if "*" in cell else "")


def _cells(column: Column, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    values = [lookup(row, column.path) for row in rows]
    shown = [None if value is None else value * column.scale for value in values]
    decimals = _decimals(column, [value for value in shown if value is not None])
    cells = [MISSING if value is None else _number(value, column.count, decimals) for value in shown]
    if column.path == "latency_s.mean":
        halves = [lookup(row, "ci95.latency_s.mean") for row in rows]
        cells = [c if h is None else f"{c}±{_number(h, False, decimals)}" for c, h in zip(cells, halves, strict=True)]
    elif column.path == "vs_best.latency_ratio":
        cells = [_ratio(row) for row in rows]
    best = _best(column, values, [row["num_finished"] for row in rows])
    if best:
        cells = [f"{cell}{'*' if i in best else ' '}" for i, cell in enumerate(cells)]
    return cells


def _ratio(row: Mapping[str, Any]) -> str:
    """Mean latency as a multiple of the first row's, with its interval."""
    if row.get("vs_best") is None:
        return MISSING
    low, high = row["vs_best"]["ci95"]
    return "1" if low == high == 1.0 else f"{row['vs_best']['latency_ratio']:.2f} ({low:.2f}-{high:.2f})"


def _best(column: Column, values: Sequence[Any], finished: Sequence[float]) -> set[int]:
    eligible = {i: v for i, v in enumerate(values) if v is not None and finished[i] == max(finished)}
    if column.better is None or len(set(eligible.values())) < 2:
        return set()
    best = min(eligible.values()) if column.better == "low" else max(eligible.values())
    return {i for i, value in eligible.items() if value == best}


def _decimals(column: Column, values: Sequence[float]) -> int:
    """Decimals that give a typical value of the column three digits; one format for the whole column."""
    if column.decimals is not None:
        return column.decimals
    sizes = sorted(abs(value) for value in values if value and math.isfinite(value))
    if not sizes:
        return 0
    typical = math.floor(math.log10(sizes[len(sizes) // 2]))
    return min(max(2 - typical, 0), 3 if sizes[-1] < 1.0 else 2)


def _number(value: float, count: bool, decimals: int) -> str:
    if not count:
        return f"{value:.{decimals}f}"
    for limit, unit, letter in ((1e8, 1e6, "M"), (1e5, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / unit:.0f}{letter}"
    return f"{value:.0f}"
