"""Selectors on engines, models and traffic kept back: the tables of docs/results.md and the board behind them.

    python -m experiments.transfer.compare --out docs/results.md --board docs/board/transfer.md
    python -m experiments.transfer.compare --split fresh --out docs/results.md
    python -m experiments.transfer.compare --split traces --out docs/results.md
    python -m experiments.transfer.compare --goodput --out docs/results.md

Every figure is a ratio on the same requests to the best policy that engines ship, chosen in hindsight for each run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.studies.sections import show
from experiments.transfer.experts import PUBLISHED
from experiments.transfer.runs import (
    BEST_PUBLISHED,
    ENGINES_SHIP,
    Run,
    by_scenario,
    compared,
    complete,
    load_runs,
    over_scenarios,
    ratios,
)
from experiments.transfer.scenarios import FRESH, REASONING, TEST, TRACES, Split, scenarios
from infermax_gym.baselines.catalogue import QUICK


@dataclass(frozen=True)
class Contest:
    """Who is compared on what.

    Attributes:
        split: where scenarios come from.
        engines: names of its engines.
        rules: untrained contenders.
        published: whether every published rule plays, too.
    """

    split: Split
    engines: tuple[str, ...]
    rules: tuple[str, ...]
    published: bool = False


_FRESH_ENGINES = (
    "qwen3-32b@h200/fp8",
    "qwen3-32b@l40sx2/sglang",
    "qwen3-32b@h200x4/trtllm",
    "gpt-oss-120b@h200x4/sglang",
    "gpt-oss-120b@h200/trtllm",
    "llama-3.1-405b@h200x8/trtllm",
    "llama-3.1-405b@h200x4/sglang/fp8-kv-bf16",
    *FRESH.estimated,
)

CONTESTS = {
    "test": Contest(
        TEST,
        (
            "qwen3-32b@l40sx2",
            "qwen3-32b@h200",
            "qwen3-32b@h200x4/sglang",
            "qwen3-32b@h200x2/trtllm",
            "gpt-oss-120b@l40sx2",
            "gpt-oss-120b@h200",
            "llama-3.1-405b@h200x8/fp8",
            "llama-3.1-405b@h200x8",
        ),
        ("shortest-prompt-first", "spf-headroom", "spf-share", "hrrn-share"),
    ),
    "fresh": Contest(FRESH, _FRESH_ENGINES, ("shortest-prompt-first", "spf-share", "hrrn-share")),
    "reasoning": Contest(
        REASONING,
        ("mistral-7b@l4", "llama-3.3-70b@gb200"),
        ("spf-share", "hrrn-share", "srpt-work-noisy-0.6", "rollout-informed"),
    ),
    "traces": Contest(TRACES, _FRESH_ENGINES, ("shortest-prompt-first", "spf-share", "hrrn-share")),
}
AGENTS = ("generalist", "any-engine")
GOODPUT_RULES = ("slai", "edf", "shortest-prompt-first", "spf-share")
GOODPUT_AGENTS = ("any-engine-goodput",)


def label(name: str) -> str:
    """As tables show it."""
    if name == BEST_PUBLISHED:
        return f"{name}, chosen in hindsight"
    return f"`{name}`" if name in QUICK else f"**{name}** (agent)"


def overall(runs: list[Run], names: tuple[str, ...]) -> str:
    """Latency of everybody over all scenarios."""
    lines = [
        "| policy | mean E2E / best default | worst scenario | above 1.02 | p99 E2E / that default's |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        mean, p99 = (ratios(runs, lambda r, of=of: of(r, name)) for of in (Run.mean, Run.p99))  # type: ignore[misc]  # noqa: B023
        above = f"{np.count_nonzero(mean > 1.02)} of {len(mean)}"
        lines.append(f"| {label(name)} | {over_scenarios(mean)} | {mean.max():.2f} | {above} | {over_scenarios(p99)} |")
    return "\n".join(lines)


def overall_goodput(runs: list[Run], names: tuple[str, ...]) -> str:
    """Goodput of everybody over all scenarios."""
    lines = [
        "| policy | goodput / best default's | worst scenario | below 0.99 | scenarios with 5 % more |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        goodput = by_scenario(runs, lambda r: r.goodput(name))  # noqa: B023
        below, more = (f"{np.count_nonzero(which)} of {len(goodput)}" for which in (goodput < 0.99, goodput >= 1.05))
        lines.append(f"| {label(name)} | {over_scenarios(goodput)} | {goodput.min():.2f} | {below} | {more} |")
    return "\n".join(lines)


def by_engine(runs: list[Run], name: str) -> str:
    """One contender, engine by engine."""
    lines = ["| engine | mean E2E / best default | worst scenario | p99 E2E / that default's |", "|---|---|---|---|"]
    for engine in dict.fromkeys(r.scenario.engine for r in runs):
        own = [r for r in runs if r.scenario.engine == engine]
        mean, p99 = ratios(own, lambda r: r.mean(name)), ratios(own, lambda r: r.p99(name))
        lines.append(f"| {engine} | {over_scenarios(mean)} | {mean.max():.2f} | {over_scenarios(p99)} |")
    return "\n".join(lines)


def board(runs: list[Run], names: tuple[str, ...]) -> str:
    """Every scenario: mean and p99 over the best default's."""
    lines = [
        "# Engines kept back, every scenario",
        "",
        "Written by `python -m experiments.transfer.compare --out docs/results.md --board docs/board/transfer.md`.",
        "",
        "Mean latency / p99 over those of the best default, geometric means over draws. "
        "[Results](../results.md) has the summary.",
        "",
        f"| scenario | best default, s | {' | '.join(names)} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for scenario in dict.fromkeys(r.scenario for r in runs):
        own = [r for r in runs if r.scenario == scenario]
        figures = " | ".join(
            f"{by_scenario(own, lambda r: r.mean(name))[0]:.2f} / {by_scenario(own, lambda r: r.p99(name))[0]:.2f}"  # noqa: B023
            for name in names
        )
        default_s = by_scenario(own, lambda r: r.default.mean_s)[0]
        lines.append(f"| {scenario.name} | {default_s:.1f} | {figures} |")
    return "\n".join(lines) + "\n"


def draw(series: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Mean latency over the best default's, scenario by scenario, each policy's in order: a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in series.items():
        share = (np.arange(len(values)) + 0.5) / len(values)
        axes.plot(share, np.sort(values), label=name, linewidth=2.5 if name in AGENTS else 1.5)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(yscale="log", ylim=(0.1, 3.0), xlabel="share of scenarios", ylabel="mean E2E / best default")
    axes.set_yticks([0.1, 0.2, 0.5, 1.0, 2.0, 3.0], ["0.1", "0.2", "0.5", "1", "2", "3"])
    axes.minorticks_off()
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main(arguments: list[str] | None = None) -> int:
    """Print or write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--split", choices=list(CONTESTS), default="test", help="which engines and traffic")
    parser.add_argument("--goodput", action="store_true", help="goodput instead of latency")
    parser.add_argument("--draws", type=int, default=2, help="workloads drawn for each scenario")
    parser.add_argument("--engines", metavar="NAMES", help="of the split, separated by commas")
    parser.add_argument("--only", metavar="NAMES", help="contenders that play; no table")
    parser.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="keeps every figure and is used again")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="gets the tables between its markers")
    parser.add_argument("--board", type=Path, metavar="PAGE.md", help="gets a line for each scenario (latency)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="gets the ratios of all scenarios (latency)")
    options = parser.parse_args(arguments)
    contest = CONTESTS[options.split]
    names = (*GOODPUT_RULES, *GOODPUT_AGENTS) if options.goodput else (*contest.rules, *AGENTS)
    published = PUBLISHED if contest.published and not options.goodput else ()
    drawn = scenarios(contest.split, options.engines.split(",") if options.engines else contest.engines)
    runs = load_runs(options.runs)
    if options.only is not None:
        complete(runs, drawn, options.draws, options.only.split(","))
        return 0
    complete(runs, drawn, options.draws, [*ENGINES_SHIP, *names, *(name for name in published if name not in names)])
    found = compared(runs, drawn, options.draws)
    marker = "transfer" if options.split == "test" else f"transfer-{options.split}"
    if options.goodput:
        show(overall_goodput(found, names), f"{marker}-goodput", options.out)
        return 0
    names = (BEST_PUBLISHED, *names) if published else names
    show(
        f"{overall(found, names)}\n\n`any-engine`, engine by engine:\n\n{by_engine(found, 'any-engine')}",
        marker,
        options.out,
    )
    if options.board is not None:
        options.board.parent.mkdir(exist_ok=True)
        options.board.write_text(board(found, names), encoding="utf-8")
    if options.picture is not None:
        shown = [name for name in ("generalist", "shortest-prompt-first", "rollout", "any-engine") if name in names]
        draw({name: by_scenario(found, lambda r, name=name: r.mean(name)) for name in shown}, options.picture)  # type: ignore[misc]
    return 0


if __name__ == "__main__":
    sys.exit(main())
