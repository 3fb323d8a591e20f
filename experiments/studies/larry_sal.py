"""What LARRY and SAL of arXiv 2410.17840 gain on real engines: the tables and the picture of a study page.

    python -m experiments.studies.larry_sal --out docs/studies/larry-and-sal.md

LARRY orders the requests of one engine, SAL chooses among four. Every policy and router faces the same draws.
`--runs FILE.jsonl` keeps what is finished and goes on there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.studies.sections import show
from experiments.transfer.scenarios import engine_config
from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, simulate_fleet
from infermax_gym.engine import EngineConfig, Policy, SimulationResult, simulate
from infermax_gym.evaluation import Ratio, paired_ratio, run_contender
from infermax_gym.workload import Workload, make_workload

ENGINES = ("qwen3-8b@l40s", "llama-3.1-70b@h100x4", "gpt-oss-120b@h200")
TRAFFIC = {"chat": "azure-conv", "conversations": "conversations"}
LOADS = (0.9, 1.1, 1.5)
SCHEDULERS = ("vllm", "vllm-v0", "sarathi", "srf-histogram", "hrrn", "shortest-prompt-first", "sjf-noisy-0.6", "larry")
BALANCERS = {
    "round-robin": "round robin",
    "kv-share": "least loaded (KV)",
    "queued-tokens": "fewest queued tokens",
    "least-outstanding": "join the shortest queue",
    "power-of-two": "power of two choices",
    "prefix-aware": "prefix-aware",
    "sal": "SAL",
}
NUM_REPLICAS, NUM_DRAWS, REQUESTS = 4, 12, 1_500
FIGURES = ("TTFT", "latency")
BASES = {"engine": "vllm", "fleet": "round-robin", "both": "vllm, round-robin"}
PAIRS = (("vllm", "round-robin"), ("larry", "round-robin"), ("vllm", "sal"), ("larry", "sal"))

Runs = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
"""Scenario, then contender: for each draw the `FIGURES`."""


@dataclass(frozen=True)
class Place:
    """An engine under traffic: `part` says whether schedulers, routers, or both of them are compared."""

    part: str
    engine: str
    traffic: str
    load: float

    @property
    def key(self) -> str:
        """For the file of runs."""
        return f"{self.part} {self.engine} {self.traffic} {self.load}"

    @property
    def config(self) -> EngineConfig:
        """The engine as it is served today: with its prefix cache."""
        return replace(engine_config(self.engine), prefix_caching=True)

    def workload(self, number: int) -> Workload:
        """The requests of a draw: so many for each replica, at the load."""
        replicas = 1 if self.part == "engine" else NUM_REPLICAS
        rate = self.load * replicas * capacity_per_s(self.engine, self.traffic)
        return make_workload(TRAFFIC[self.traffic], REQUESTS * replicas, seed=5_000 + number, rate=rate)


@cache
def capacity_per_s(engine: str, traffic: str) -> float:
    """The most requests that one replica finishes per second under vLLM's default, as more and more come.

    Far beyond capacity the prefix cache forgets conversations before their next turn, so a backlog would tell less.
    """
    config = replace(engine_config(engine), prefix_caching=True)
    drawn = make_workload(TRAFFIC[traffic], 2 * REQUESTS, seed=4_999)
    offered = best = _middle_rate(simulate(drawn.with_rate(1_000.0), config, POLICIES["vllm"]))
    while best >= 0.8 * offered:
        offered *= 1.15
        best = max(best, _middle_rate(simulate(drawn.with_rate(offered), config, POLICIES["vllm"])))
    return best


def _middle_rate(run: SimulationResult) -> float:
    finish_s = np.sort(run.finish_s[run.finished])
    first, last = len(finish_s) // 4, 3 * len(finish_s) // 4
    return float((last - first) / (finish_s[last] - finish_s[first]))


def _figures(run: Any) -> list[float]:
    done = run.finished
    return [float(run.ttft_s[done].mean()), float(run.latency_s[done].mean())]


def _on_engine(name: str) -> Callable[[Place, int], list[float]]:
    def play(place: Place, number: int) -> list[float]:
        found = run_contender(QUICK[name], place.workload(number), place.config, seed=number, predict=predictions)
        return _figures(found.result)

    return play


def _on_fleet(policy: Policy, router: str) -> Callable[[Place, int], list[float]]:
    def play(place: Place, number: int) -> list[float]:
        fleet = Fleet.uniform(NUM_REPLICAS, place.config, policy)
        return _figures(simulate_fleet(place.workload(number), fleet, ROUTERS[router], seed=number).pooled)

    return play


def contenders(part: str) -> dict[str, Callable[[Place, int], list[float]]]:
    """What is compared, by name; the first is the base."""
    if part == "engine":
        return {name: _on_engine(name) for name in SCHEDULERS}
    if part == "fleet":
        return {name: _on_fleet(POLICIES["vllm"], name) for name in BALANCERS}
    return {f"{policy}, {router}": _on_fleet(POLICIES[policy], router) for policy, router in PAIRS}


def places() -> list[Place]:
    """Every scenario."""
    return [
        Place(part, engine, traffic, load)
        for part in BASES
        for engine in ENGINES
        for traffic in TRAFFIC
        for load in LOADS
    ]


def all_runs(path: Path | None, num_draws: int) -> Runs:
    """Every scenario; those in the file are not run again."""
    found: dict[str, Any] = {}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            found.update(json.loads(line))
    for place in places():
        if place.key not in found:
            who = contenders(place.part)
            found[place.key] = {name: [play(place, k) for k in range(num_draws)] for name, play in who.items()}
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({place.key: found[place.key]}) + "\n")
    return found


def against_base(runs: Runs, part: str, name: str, traffic: str, load: float, figure: str) -> Ratio:
    """A figure over the base's: geometric over the engines within each draw, then the interval over draws."""
    index, logs = FIGURES.index(figure), []
    for engine in ENGINES:
        scenario = runs[Place(part, engine, traffic, load).key]
        ours, base = (np.array(scenario[who])[:, index] for who in (name, BASES[part]))
        logs.append(np.log(ours / base))
    means = np.exp(np.mean(logs, axis=0))
    return paired_ratio(means, np.ones_like(means))


def table(runs: Runs, part: str, figure: str) -> str:
    """One line for each contender; bold is whoever is level with the best of its column."""
    names = list(contenders(part))
    columns = [(traffic, load) for traffic in TRAFFIC for load in LOADS]
    cells = [[against_base(runs, part, name, *column, figure) for column in columns] for name in names]
    lowest = [min(line[k].value for line in cells) for k in range(len(columns))]
    lines = [
        f"| {figure}, over `{BASES[part]}`'s | " + " | ".join(f"{t}, {load:g}" for t, load in columns) + " |\n",
        "|---|" + "--:|" * len(columns) + "\n",
    ]
    for name, line in zip(names, cells, strict=True):
        shown = [_shown(ratio, best) for ratio, best in zip(line, lowest, strict=True)]
        title = f"{BALANCERS[name]} (`{name}`)" if name in BALANCERS else f"`{name}`"
        lines.append(f"| {title} | {' | '.join(shown)} |\n")
    return "".join(lines)


def _shown(ratio: Ratio, lowest: float) -> str:
    if ratio.low == ratio.high == 1.0:
        return "1"
    text = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"**{text}**" if ratio.low <= lowest else text


COLOURS = {"chat": "#0072b2", "conversations": "#d55e00"}
PARTS = {"engine": "On one engine: TTFT over vLLM's default", "fleet": "In front of four: TTFT over round robin"}


def draw(path: Path, runs: Runs) -> None:
    """TTFT of everybody over the base's, with intervals: a line of panels for LARRY and one for SAL."""
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "infermax_gym"}):
        import matplotlib.pyplot as plt

        figure, grid = plt.subplots(2, len(LOADS), figsize=(10.4, 5.8), facecolor="white", sharey="row", sharex="row")
        for line, (part, title) in zip(grid, PARTS.items(), strict=True):
            names = [name for name in contenders(part) if name != BASES[part]]
            for axes, load in zip(line, LOADS, strict=True):
                axes.axvline(1.0, color="#5b6773", linewidth=0.8)
                for shift, (traffic, colour) in zip((-0.13, 0.13), COLOURS.items(), strict=True):
                    for k, name in enumerate(names):
                        ratio = against_base(runs, part, name, traffic, load, "TTFT")
                        axes.plot([ratio.low, ratio.high], [k + shift] * 2, color=colour, linewidth=2.2, alpha=0.55)
                        marker = "o" if traffic == "chat" else "D"
                        axes.plot(ratio.value, k + shift, marker, color=colour, markersize=5)
                axes.set_xscale("log")
                axes.set_ylim(-0.6, len(names) - 0.4)
                axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
                axes.set_axisbelow(True)
                axes.spines[["top", "right", "left"]].set_visible(False)
                axes.tick_params(axis="y", length=0)
                axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
                axes.set_title(f"load {load:g}", fontsize=9, color="#5b6773")
            line[0].set_yticks(range(len(names)), [BALANCERS.get(name, name) for name in names])
            line[0].get_yticklabels()[-1].set_fontweight("bold")
            low, high = line[0].get_xlim()
            ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= tick <= high]
            line[0].set_xticks(ticks)
            line[0].minorticks_off()
            line[1].set_xlabel("times the base's; less is better", color="#5b6773")
            line[0].annotate(title, (0, 1.17), xycoords="axes fraction", fontsize=11, ha="left")
        handles = [
            plt.Line2D([], [], color=colour, marker="oD"[k], linestyle="none", label=traffic)
            for k, (traffic, colour) in enumerate(COLOURS.items())
        ]
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False)
        figure.tight_layout(rect=(0, 0.04, 1, 1), h_pad=2.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def main() -> None:
    """Run, print or write the tables, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=NUM_DRAWS, metavar="K", help="draws of each scenario")
    parser.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="keep finished scenarios there, and go on")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="page to put the tables into; default: print them")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the picture there")
    options = parser.parse_args()
    runs = all_runs(options.runs, options.draws)
    for part, figure in (("engine", "TTFT"), ("fleet", "TTFT"), ("both", "TTFT"), ("both", "latency")):
        show(table(runs, part, figure), f"{part}-{figure.lower()}", options.out)
    if options.picture is not None:
        draw(options.picture, runs)


if __name__ == "__main__":
    main()
