"""Tenants or SLO classes side by side, policy by policy, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from infermax_gym.evaluation.figures import lookup, sorted_names
from infermax_gym.evaluation.table import MISSING

GROUPS_EXPLAINED = (
    "Evenness: Jain's index of service per backlogged second, 1 = even; gap: the most tokens (output tokens count "
    "twice) by which one group got ahead of another while both had requests waiting."
)
_COLUMNS = (
    ("latency\nmean s", "latency_s.mean", 1.0),
    ("\np99 s", "latency_s.p99", 1.0),
    ("TTFT\nmean s", "ttft_s.mean", 1.0),
    ("\np99 s", "ttft_s.p99", 1.0),
    ("longest\nwait s", "longest_wait_s", 1.0),
    ("SLO\n%", "slo_attainment", 100.0),
)


def group_table(policies: Mapping[str, Mapping[str, Any]], config_by: str) -> Table:
    """Rows: every policy with its evenness, then a line for each of its groups."""
    names = [name for name in sorted_names(policies) if "groups" in policies[name]]
    shown = [c for c in _COLUMNS if any(_values(policies[name], c[1]) for name in names)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("policy", no_wrap=True, vertical="bottom")
    table.add_column("even-\nness", justify="right", no_wrap=True)
    table.add_column("gap\ntokens", justify="right", no_wrap=True)
    table.add_column(config_by, no_wrap=True, vertical="bottom")
    for header in ("\nrequests", *(c[0] for c in shown)):
        table.add_column(header, justify="right", no_wrap=True)
    for name in names:
        fairness = policies[name]["fairness"]
        lead = (name, _text(fairness["jain_index"]), _whole(fairness["max_service_gap_tokens"]))
        for group, figures in policies[name]["groups"].items():
            cells = [_text(lookup(figures, path), scale) for _, path, scale in shown]
            table.add_row(*lead, group, _whole(figures["num_requests"]), *cells)
            lead = ("", "", "")
    return table


def _values(figures: Mapping[str, Any], path: str) -> list[Any]:
    return [v for group in figures["groups"].values() if (v := lookup(group, path)) is not None]


def _text(value: float | None, scale: float = 1.0) -> str:
    return MISSING if value is None else f"{value * scale:.{1 if scale > 1.0 else 2}f}"


def _whole(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"
