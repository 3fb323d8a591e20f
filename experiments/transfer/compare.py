"""Selectors on engines, models and traffic kept back: the table of docs/results.md and the board behind it.

    python -m experiments.transfer.compare --out docs/results.md --board docs/board/transfer.md
    python -m experiments.transfer.compare --goodput --out docs/results.md

Every figure is a ratio on the same requests to the best policy that engines ship, chosen in hindsight for each run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.studies.sections import show
from experiments.transfer.experts import DEFAULTS, PUBLISHED
from experiments.transfer.measure import Figures, best_defaults, figures, limited
from experiments.transfer.scenarios import TEST, Scenario, scenarios
from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.engine import EngineConfig, SimulationResult
from infermax_gym.evaluation import paired_ratio
from infermax_gym.evaluation.contenders import run_contender
from infermax_gym.workload import Workload

ENGINES = (
    "qwen3-32b@l40sx2",
    "qwen3-32b@h200",
    "qwen3-32b@h200x4/sglang",
    "qwen3-32b@h200x2/trtllm",
    "gpt-oss-120b@l40sx2",
    "gpt-oss-120b@h200",
    "llama-3.1-405b@h200x8/fp8",
    "llama-3.1-405b@h200x8",
)
RULES = ("shortest-prompt-first", "spf-headroom", "spf-share", "hrrn-share", "rollout")
AGENTS = ("generalist", "any-engine")
GOODPUT_RULES = ("slai", "edf", "shortest-prompt-first", "spf-share", "rollout-goodput")
GOODPUT_AGENTS = ("any-engine-goodput",)
BEST_PUBLISHED = "best published"

Play = Callable[[Workload, EngineConfig], SimulationResult]


@dataclass(frozen=True)
class Run:
    """Everybody on one draw of a scenario.

    Attributes:
        scenario: which.
        default: of the best default by mean latency ...
        default_goodput: ... and the most goodput of any, requests per second.
        reached: by contender.
    """

    scenario: Scenario
    default: Figures
    default_goodput: float
    reached: Mapping[str, Figures]

    def mean(self, name: str) -> float:
        """Mean latency over the default's."""
        return self.reached[name].mean_s / self.default.mean_s

    def p99(self, name: str) -> float:
        """The same of p99."""
        return self.reached[name].p99_s / self.default.p99_s

    def goodput(self, name: str) -> float:
        """Goodput over the default's."""
        return self.reached[name].goodput / self.default_goodput


def contenders(names: Sequence[str]) -> dict[str, Play]:
    """By name."""

    def play(name: str) -> Play:
        who = QUICK[name] if name in QUICK else load_agent(name)
        return lambda workload, engine: run_contender(who, workload, engine).result

    return {name: play(name) for name in names}


def run(scenario: Scenario, number: int, plays: Mapping[str, Play], published: Sequence[str] = PUBLISHED) -> Run:
    """Everybody on draw `number` of a scenario, and the best of some published rules."""
    engine = scenario.config
    workload = limited(scenario.workload(number), engine)
    rivals = best_defaults(workload, engine, DEFAULTS)
    reached = {name: figures(play(workload, engine)) for name, play in plays.items()}
    best = best_defaults(workload, engine, published) if published else rivals
    found = Figures(best.mean.mean_s, best.mean.p99_s, best.goodput.goodput)
    return Run(scenario, rivals.mean, rivals.goodput.goodput, {BEST_PUBLISHED: found, **reached})


def geometric_mean(values: list[float]) -> float:
    """Of ratios."""
    return float(np.exp(np.mean(np.log(values))))


def by_cell(runs: list[Run], ratio: Callable[[Run], float]) -> NDArray[np.float64]:
    """(scenarios,) ratios, geometric means over draws."""
    names = list(dict.fromkeys(one.scenario.name for one in runs))
    return np.array([geometric_mean([ratio(r) for r in runs if r.scenario.name == name]) for name in names])


def label(name: str) -> str:
    """As tables show it."""
    if name == BEST_PUBLISHED:
        return f"{name}, chosen in hindsight"
    return f"`{name}`" if name in QUICK else f"**{name}** (agent)"


def overall(runs: list[Run]) -> str:
    """Latency of everybody over all scenarios."""
    lines = [
        "| policy | mean E2E / best default | worst scenario | above 1.02 | p99 E2E / that default's |",
        "|---|---|---|---|---|",
    ]
    for name in (BEST_PUBLISHED, *RULES, *AGENTS):
        mean = paired_ratio([r.reached[name].mean_s for r in runs], [r.default.mean_s for r in runs])
        tail = paired_ratio([r.reached[name].p99_s for r in runs], [r.default.p99_s for r in runs])
        cells = by_cell(runs, lambda r, name=name: r.mean(name))  # type: ignore[misc]
        above = f"{np.count_nonzero(cells > 1.02)} of {len(cells)}"
        lines.append(f"| {label(name)} | {mean} | {cells.max():.2f} | {above} | {tail} |")
    return "\n".join(lines)


def overall_goodput(runs: list[Run]) -> str:
    """Goodput of everybody over all scenarios."""
    lines = [
        "| policy | goodput / best default's | worst scenario | below 0.99 | scenarios with 5 % more |",
        "|---|---|---|---|---|",
    ]
    for name in (*GOODPUT_RULES, *GOODPUT_AGENTS):
        ratio = paired_ratio([r.reached[name].goodput for r in runs], [r.default_goodput for r in runs])
        cells = by_cell(runs, lambda r, name=name: r.goodput(name))  # type: ignore[misc]
        below, more = (f"{np.count_nonzero(which)} of {len(cells)}" for which in (cells < 0.99, cells >= 1.05))
        lines.append(f"| {label(name)} | {ratio} | {cells.min():.2f} | {below} | {more} |")
    return "\n".join(lines)


def by_engine(runs: list[Run], name: str) -> str:
    """One contender, engine by engine."""
    lines = [
        "| engine | mean E2E / best default | worst cell | p99 E2E / that default's | mean E2E / best published rule |",
        "|---|---|---|---|---|",
    ]
    for engine in dict.fromkeys(r.scenario.engine for r in runs):
        own = [r for r in runs if r.scenario.engine == engine]
        reached = [r.reached[name].mean_s for r in own]
        mean = paired_ratio(reached, [r.default.mean_s for r in own])
        tail = paired_ratio([r.reached[name].p99_s for r in own], [r.default.p99_s for r in own])
        published = paired_ratio(reached, [r.reached[BEST_PUBLISHED].mean_s for r in own])
        worst = by_cell(own, lambda r: r.mean(name)).max()
        lines.append(f"| {engine} | {mean} | {worst:.2f} | {tail} | {published} |")
    return "\n".join(lines)


def board(runs: list[Run]) -> str:
    """Every scenario: mean and p99 over the best default's."""
    names = (BEST_PUBLISHED, *RULES, *AGENTS)
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
    for cell in dict.fromkeys(r.scenario.name for r in runs):
        own = [r for r in runs if r.scenario.name == cell]
        ratios = " | ".join(
            f"{geometric_mean([r.mean(name) for r in own]):.2f} / {geometric_mean([r.p99(name) for r in own]):.2f}"
            for name in names
        )
        default_s = geometric_mean([r.default.mean_s for r in own])
        lines.append(f"| {cell} | {default_s:.1f} | {ratios} |")
    return "\n".join(lines) + "\n"


def draw(ratios: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """Mean latency over the best default's, scenario by scenario, each policy's in order: a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in ratios.items():
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
    parser.add_argument("--goodput", action="store_true", help="goodput instead of latency")
    parser.add_argument("--draws", type=int, default=3, help="workloads drawn for each scenario")
    parser.add_argument("--engines", default=",".join(ENGINES), help="names of the test split, separated by commas")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="gets the tables between its markers")
    parser.add_argument("--board", type=Path, metavar="PAGE.md", help="gets a line for each scenario (latency)")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="gets the ratios of all scenarios (latency)")
    options = parser.parse_args(arguments)
    names = (*GOODPUT_RULES, *GOODPUT_AGENTS) if options.goodput else (*RULES, *AGENTS)
    plays, published = contenders(names), () if options.goodput else PUBLISHED
    runs: list[Run] = []
    for scenario in scenarios(TEST, options.engines.split(",")):
        runs += [run(scenario, number, plays, published) for number in range(options.draws)]
        print(f"{scenario.name}: {runs[-1].mean(names[-1]):.2f}", file=sys.stderr, flush=True)
    marker = "transfer-goodput" if options.goodput else "transfer"
    if options.goodput:
        text = overall_goodput(runs)
    else:
        text = f"{overall(runs)}\n\n`any-engine`, engine by engine:\n\n{by_engine(runs, 'any-engine')}"
    show(text, marker, options.out)
    if options.board is not None and not options.goodput:
        options.board.parent.mkdir(exist_ok=True)
        options.board.write_text(board(runs), encoding="utf-8")
    if options.picture is not None and not options.goodput:
        shown = ("generalist", "shortest-prompt-first", "rollout", "any-engine")
        draw({name: by_cell(runs, lambda r, name=name: r.mean(name)) for name in shown}, options.picture)  # type: ignore[misc]
    return 0


if __name__ == "__main__":
    sys.exit(main())
