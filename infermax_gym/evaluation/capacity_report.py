"""Capacities and fleet sizes for people, from the JSON object alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermax_gym.evaluation.report import engine_in_words, fleet_in_words, signals_in_words, slo_in_words
from infermax_gym.evaluation.table import MISSING


def render_capacity(document: Mapping[str, Any], console: Console) -> None:
    """Print a `capacity` document: what was asked, a row per fleet, the best first, and how to read it."""
    config = document["config"]
    sizing = "fleets" in document
    console.print(Text(f"workload  {config['workload']}: {config['requests_per_replica']:,} requests per replica"))
    if config.get("fleet"):
        console.print(Text(f"fleet     {fleet_in_words(config)}"))
    else:
        console.print(Text(f"engine    {engine_in_words(config)}"))
    console.print(Text(f"router    {signals_in_words(config)}"))
    console.print(Text(f"SLO       {slo_in_words(config)}, for {100 * config['attainment']:g} % of the requests"))
    console.print()
    if "clients" in document:
        console.print(_clients(document["clients"]))
    else:
        console.print(_sizes(document["fleets"]) if sizing else _capacities(document["capacity"]))
    console.print()
    for line in _size_notes(config) if sizing else _capacity_notes(config):
        console.print(Text(line, style="dim"))


def _capacities(rows: list[Mapping[str, Any]]) -> Table:
    table = _table(rows, "replicas", "requests\nper s", "per replica\nper s", "USD\nper h")
    ranked = sorted(rows, key=lambda row: (row["num_replicas"], -_or(row["rate_per_s"], math.inf)))
    for row in ranked:
        rate = _with_interval(row["rate_per_s"], row["ci95_per_s"])
        per_replica = _number(row["rate_per_replica_per_s"])
        cells = (f"{row['num_replicas']:,}", rate, per_replica, _number(row["cost_usd_per_h"]))
        table.add_row(*_names(row, rows), *cells)
    return table


def _clients(rows: list[Mapping[str, Any]]) -> Table:
    table = _table(rows, "replicas", "clients", "per replica", "USD\nper h")
    ranked = sorted(rows, key=lambda row: (row["num_replicas"], -_or(row["clients"], math.inf)))
    for row in ranked:
        clients, per_replica = _with_interval(row["clients"], row["ci95"]), _number(row["clients_per_replica"])
        table.add_row(
            *_names(row, rows), f"{row['num_replicas']:,}", clients, per_replica, _number(row["cost_usd_per_h"])
        )
    return table


def _sizes(rows: list[Mapping[str, Any]]) -> Table:
    table = _table(rows, "replicas", "within SLO\n%", "USD\nper h")
    ranked = sorted(rows, key=lambda row: (_or(row["cost_usd_per_h"], math.inf), _or(row["num_replicas"], math.inf)))
    for row in ranked:
        count = MISSING if row["num_replicas"] is None else f"{row['num_replicas']:,}"
        half = row["ci95"]
        share = _with_interval(100.0 * row["attainment"], None if half is None else 100.0 * half)
        table.add_row(*_names(row, rows), count, share, _number(row["cost_usd_per_h"]))
    return table


def _has_several_engines(rows: Sequence[Mapping[str, Any]]) -> bool:
    return len({(row["cost"], row["kv_tokens"]) for row in rows}) > 1


def _names(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Policy and router, and the engine where there are several."""
    return [*([row["cost"]] if _has_several_engines(rows) else []), row["policy"], row["router"]]


def _table(rows: Sequence[Mapping[str, Any]], *headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    if _has_several_engines(rows):
        table.add_column("cost model", no_wrap=True, vertical="bottom")
    table.add_column("policy", overflow="fold", vertical="bottom")
    table.add_column("router", no_wrap=True, vertical="bottom")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True, vertical="bottom")
    return table


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or math.isnan(value) else value


def _number(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{value:.2f}"


def _with_interval(value: float | None, half: float | None) -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.2f}" if half is None or math.isnan(half) else f"{value:.2f} ± {half:.2f}"


def _capacity_notes(config: Mapping[str, Any]) -> list[str]:
    lines = []
    if config["seeds"] > 1:
        many = "windows" if config.get("windows") else "seeds"
        lines.append(f"Means over {config['seeds']} {many}, the same requests for every row; 95 % intervals after ±.")
    lines.append("A run begins empty and is finite: with more requests per replica, capacities fall to their limit.")
    return lines


def _size_notes(config: Mapping[str, Any]) -> list[str]:
    lines = [f"Fewest replicas for {config['for_rate']:g} requests per s."]
    if config["seeds"] > 1:
        lines.append(
            f"Means over {config['seeds']} seeds; the lower end of the 95 % interval (after ±) reaches the target."
        )
    return lines
