"""Results for people, on a console. Works on the JSON object alone, so stored results render the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermax_gym.evaluation.figures import lookup
from infermax_gym.evaluation.group_table import GROUPS_EXPLAINED, group_table
from infermax_gym.evaluation.table import MISSING, comparison_table

_SPREADS = (("latency s", "latency_s"), ("TTFT s", "ttft_s"), ("TPOT s", "tpot_s"), ("gap between tokens s", "itl_s"))
_TOTALS = (
    ("requests finished", "num_finished"),
    ("requests rejected", "num_rejected"),
    ("makespan s", "makespan_s"),
    ("busy s", "busy_s"),
    ("iterations", "num_iterations"),
    ("preemptions", "num_preemptions"),
    ("tokens recomputed", "num_recomputed_tokens"),
    ("output tokens per s", "throughput_tokens_per_s"),
    ("requests per s", "throughput_requests_per_s"),
    ("goodput per s", "goodput_per_s"),
    ("SLO attainment", "slo_attainment"),
    ("KV utilization", "kv_utilization"),
    ("prefix hit rate", "prefix_hit_rate"),
    ("GPU cost USD", "gpu_cost_usd"),
    ("wall s", "wall_s"),
)


def render_comparison(document: Mapping[str, Any], console: Console) -> None:
    """Print a `bench` document: caption, table, and what the reader has to know to read it."""
    policies = document["policies"]
    table, dropped = comparison_table(policies, console.width)
    for line in caption(document):
        console.print(Text(line))
    console.print()
    console.print(table)
    console.print()
    if any("groups" in figures for figures in policies.values()):
        console.print(group_table(policies, config_by=document["config"].get("by") or "group"))
        console.print()
        console.print(Text(GROUPS_EXPLAINED, style="dim"))
    for line in _footnotes(document, dropped):
        console.print(Text(line, style="dim"))


def render_run(document: Mapping[str, Any], console: Console) -> None:
    """Print a document with a single policy: one line per figure, distributions in columns."""
    ((name, figures),) = document["policies"].items()
    for line in caption(document):
        console.print(Text(line))
    console.print(Text(f"policy    {name} (lengths known: {figures['information']})"))
    console.print()
    spreads = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    spreads.add_column("")
    kinds = ("mean", "p50", "p90", "p99", "max")
    for kind in kinds:
        spreads.add_column(kind, justify="right")
    for label, path in _SPREADS:
        spreads.add_row(label, *(_significant(lookup(figures, f"{path}.{kind}")) for kind in kinds))
    console.print(spreads)
    console.print()
    for label, path in _TOTALS:
        value = lookup(figures, path)
        if value is not None:
            console.print(Text(f"{label:<26}{_significant(value)}"))


def caption(document: Mapping[str, Any]) -> list[str]:
    """Workload and engine in words."""
    config = document["config"]
    requests = config.get("num_requests")
    span, rate = config.get("span_s"), config.get("mean_rate_per_s")
    workload = f"workload  {config['workload']}"
    if requests is not None:
        workload += f": {requests:,} requests"
    if span and rate:
        workload += f" over {_significant(float(span))} s ({_significant(float(rate))} per s)"
    elif (config.get("traffic") or {}).get("concurrency"):
        workload += f", sent by {config['traffic']['concurrency']:,} clients that wait for their answers"
    elif span == 0.0 and (requests or 0) > 1:
        workload += ", all at once"
    if config.get("seeds", 1) > 1:
        workload += ", seed 0"
    if config.get("windows"):
        workload += f", the first of {config['windows']} {'seeds' if config.get('windows_are_seeds') else 'windows'}"
    lines = [workload]
    if not config.get("fleet"):
        lines.append(f"engine    {engine_in_words(config)}")
    if config.get("replicas"):
        lines.append(f"fleet     {fleet_in_words(config)}, {signals_in_words(config)}")
    if config.get("slo"):
        lines.append(f"SLO       {slo_in_words(config)}")
    return lines


def engine_in_words(config: Mapping[str, Any]) -> str:
    """Cost models, memory and caps."""
    costs, tokens = config.get("costs", [config["cost"]]), config.get("kv_tokens_of", [config["kv_tokens"]])
    engines = "; ".join(f"{name}, {count:,} KV tokens" for name, count in zip(costs, tokens, strict=True))
    cached = ", prefix caching" if config.get("prefix_caching") else ""
    cached += ", decided one iteration ahead" if config.get("async_scheduling") else ""
    return (
        f"{engines} (blocks of {config['block_size']}{cached}), "
        f"{config['max_num_batched_tokens']:,} tokens and {config['max_num_seqs']:,} requests per iteration"
    )


def fleet_in_words(config: Mapping[str, Any]) -> str:
    """The replicas, and how requests move between them."""
    if config.get("fleet"):
        words = "; ".join(
            f"{part['count']:,} x {part['cost']}, {part['kv_tokens']:,} KV tokens"
            + (f", {part['policy']}" if part["policy"] else "")
            for part in config["fleet"]
        )
    else:
        count, prompts = config["replicas"], config.get("prefill_replicas")
        words = f"{count:,} replica{'s' if count > 1 else ''}"
        words += f" that decode, {prompts:,} that compute prompts ({config['prefill_router']})" if prompts else ""
    if config.get("migrate"):
        words += f", requests move every {config['migrate_period_s']:g} s"
    return words


def slo_in_words(config: Mapping[str, Any]) -> str:
    """The limits, one after another."""
    return ", ".join(f"{name.upper()} <= {value:g} s" for name, value in config["slo"].items())


def signals_in_words(config: Mapping[str, Any]) -> str:
    """How old the router's signals are."""
    age = config["staleness_s"]
    if age == 0.0:
        return "load signals as of each arrival"
    counting = "counting" if config["counts_routed"] else "not counting"
    return f"load signals {age:g} s apart, {counting} what was routed since"


def _footnotes(document: Mapping[str, Any], dropped: Sequence[str]) -> list[str]:
    policies, config = document["policies"], document["config"]
    lines = ["* best of the column. Means are over finished requests."]
    if any("ci95" in row for row in policies.values()):
        many = f"{config['windows']} windows" if config.get("windows") else f"{config['seeds']} seeds"
        lines.append(f"Means over {many}; 95 % intervals after ± and in parentheses.")
    shortfalls = {name: row for name, row in policies.items() if row["num_finished"] < row["num_requests"]}
    if shortfalls:
        worst = max(shortfalls.values(), key=lambda row: row["num_requests"] - row["num_finished"])
        rejected = worst["num_rejected"]
        missing = worst["num_requests"] - worst["num_finished"]
        lines.append(
            f"Not all requests finished: {len(shortfalls)} of {len(policies)} policies miss up to {missing:,.0f} "
            f"({rejected:,.0f} rejected because they can never fit)."
        )
    lines += _yardsticks(document)
    if dropped:
        lines.append(f"Left out, too wide for this output: {', '.join(dropped)}; --json has everything.")
    return lines


def _yardsticks(document: Mapping[str, Any]) -> list[str]:
    """What the bounds are, and how good the searched schedules."""
    if "bounds" not in document:
        return []
    latency, makespan = (_significant(document["bounds"][f"{x}_s"]) for x in ("latency", "makespan"))
    lines = [f"Over bound: no schedule has a mean latency below {latency} s, or a makespan below {makespan} s."]
    for name, row in document["policies"].items():
        note = row.get("optimum")
        if note is not None:
            above = note["gap"] / (1.0 - note["gap"])
            how = "proven optimal" if note["status"] == "optimal" else f"at most {above:.1%} above the optimum"
            lines.append(f"{name}: {how}, knowing all lengths and arrivals; {note['seconds']:g} s of search.")
    return lines


def _significant(value: float | int | None) -> str:
    if value is None:
        return MISSING
    if isinstance(value, int):
        return f"{value:,}"
    decimals = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(decimals, 0), 6)}f}"
