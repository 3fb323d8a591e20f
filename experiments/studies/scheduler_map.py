"""Which scheduler wins where: the map and the table of docs/studies/which-scheduler-wins.md.

    python -m experiments.studies.scheduler_map --out docs/studies/which-scheduler-wins.md

Engines, traffic and loads; every policy on the same draws. A policy is named on some draws and measured on others, so
a lucky one gains nothing. `--runs FILE.jsonl` keeps what is finished and goes on there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.studies.scheduler_map_picture import draw
from experiments.studies.sections import show
from experiments.transfer.scenarios import Scenario, engine_config
from infermax_gym.agents.objectives import goodput_per_s
from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.engine import simulate
from infermax_gym.evaluation import Ratio, paired_ratio, run_contender
from infermax_gym.workload import Workload

ENGINES = (
    "llama-3.1-8b@rtx-4090",
    "qwen3-8b@l40s",
    "llama-3.1-8b@h100",
    "qwen3-30b-a3b@h100",
    "llama-3.1-70b@h100x4",
    "qwen3-32b@h200",
    "gpt-oss-120b@h200",
    "llama-3.1-70b@b200x2",
    "qwen3-235b-a22b@b200x4",
)
TRAFFIC = {
    "chat": "azure-conv",
    "code": "azure-code",
    "long chat": "mooncake-conversation",
    "documents": "long-document",
    "reasoning": "reasoning",
}
LOADS = (0.7, 0.9, 1.2)
DEFAULT = "vllm"
TODAY = (
    *("vllm-watermark", "vllm-long-prefill", "vllm-cadence", "vllm-prefill-slots", "vllm-min-chunk", "vllm-v0"),
    *("sarathi", "sarathi-2048", "trt-max-utilization", "trt-no-evict", "trt-sjf", "p-pas"),
)
PUBLISHED = (
    *("shortest-prompt-first", "hrrn", "srf", "srf-histogram", "larry", "least-attained-service"),
    *("slai", "edf", "llf"),
)
OURS = ("spf-share", "spf-aging-share", "spf-headroom-share", "hrrn-share", "fcfs-share", "newest-share")
AGENTS = ("any-engine",)
KINDS = {"default": (DEFAULT,), "today": TODAY, "published": PUBLISHED, "ours": (*OURS, *AGENTS)}
"""From what is there already to what is ours: of two that are level, the first is named."""
OBJECTIVES = ("mean latency", "goodput")
NUM_NAMING, NUM_MEASURED = 4, 6
LEVEL = 0.01
"""Two policies are level within this share."""
TTFT_TIMES, TPOT_TIMES = 5.0, 3.0
"""Limits, as multiples of the default's medians at half load."""

Figures = Mapping[str, Mapping[str, Sequence[float]]]
"""Objective, then policy: one figure for each draw."""


@dataclass(frozen=True)
class Place:
    """One scenario of the map."""

    engine: str
    traffic: str
    load: float

    @property
    def key(self) -> str:
        """For the file of runs."""
        return f"{self.engine} {self.traffic} {self.load}"


@cache
def limits_s(engine: str, traffic: str) -> tuple[float, float]:
    """TTFT and TPOT limits that suit an engine: multiples of the default's medians at half load."""
    run = simulate(Scenario(engine, TRAFFIC[traffic], 0.5, 9_000_000).workload(), engine_config(engine), _default())
    many = run.finished & (run.workload.num_output_tokens > 1)
    gaps = run.workload.num_output_tokens[many] - 1
    tpot_s = (run.finish_s[many] - run.first_token_s[many]) / gaps
    return TTFT_TIMES * float(np.median(run.ttft_s[run.finished])), TPOT_TIMES * float(np.median(tpot_s))


def _default() -> Any:
    return POLICIES[DEFAULT]


def workload(place: Place, draw_number: int) -> Workload:
    """The requests of a draw, with their limits."""
    seed = 9_100_000 + 1_000 * list(TRAFFIC).index(place.traffic) + 10 * LOADS.index(place.load)
    drawn = Scenario(place.engine, TRAFFIC[place.traffic], place.load, seed).workload(draw_number)
    ttft_s, tpot_s = limits_s(place.engine, place.traffic)
    count = len(drawn)
    return replace(drawn, ttft_slo_s=np.full(count, ttft_s), tpot_slo_s=np.full(count, tpot_s))


def measure(place: Place, contenders: Mapping[str, Any], num_draws: int) -> dict[str, dict[str, list[float]]]:
    """Mean latency in seconds and goodput per second, by policy and draw."""
    found: dict[str, dict[str, list[float]]] = {objective: {} for objective in OBJECTIVES}
    config = engine_config(place.engine)
    for number in range(num_draws):
        requests = workload(place, number)
        num_finished = 0
        for name, contender in contenders.items():
            run = run_contender(contender, requests, config).result
            num_finished = num_finished or int(run.finished.sum())
            # A policy that rejects requests, for which others have room, does not count.
            all_served = int(run.finished.sum()) == num_finished
            mean_s = float(run.latency_s[run.finished].mean()) if all_served else float("inf")
            found["mean latency"].setdefault(name, []).append(mean_s)
            found["goodput"].setdefault(name, []).append(goodput_per_s(run))
    return found


def losses(objective: str, values: Sequence[float]) -> NDArray[np.float64]:
    """Lower is better: latency as it is, goodput inverted."""
    return np.asarray(values) if objective == "mean latency" else 1.0 / np.asarray(values)


def named(objective: str, figures: Figures, names: Sequence[str], num_naming: int = NUM_NAMING) -> str:
    """The first of some policies that is level with the best of them on the naming draws."""
    score = {
        name: float(np.mean(np.log(losses(objective, figures[objective][name])[:num_naming])))
        for name in names
        if name in figures[objective]
    }
    best = min(score.values())
    return next(name for name in score if score[name] <= best + np.log1p(LEVEL))


def against_default(objective: str, figures: Figures, name: str, num_naming: int = NUM_NAMING) -> Ratio:
    """Loss over the default's on the draws that named nobody."""
    ours, base = (losses(objective, figures[objective][who])[num_naming:] for who in (name, DEFAULT))
    return paired_ratio(ours, base)


@dataclass(frozen=True)
class Winner:
    """What the map shows of one scenario.

    Attributes:
        name: of the policy.
        kind: default, today, published or ours.
        ratio: latency over the default's, or goodput over the default's.
        clear: the interval is beyond 1.
    """

    name: str
    kind: str
    ratio: Ratio
    clear: bool


def kind_of(name: str) -> str:
    """Which kind a policy is of."""
    return next(kind for kind, names in KINDS.items() if name in names)


def winner(objective: str, figures: Figures, num_naming: int = NUM_NAMING) -> Winner:
    """Whom the naming draws name, and what it gains on the others; the default where it gains nothing for sure."""
    everybody = [name for names in KINDS.values() for name in names]
    name = named(objective, figures, everybody, num_naming)
    loss = against_default(objective, figures, name, num_naming)
    clear = loss.high < 1.0
    ratio = loss if objective == "mean latency" else Ratio(1 / loss.value, 1 / loss.high, 1 / loss.low)
    return Winner(name, kind_of(name), ratio, clear)


def table(results: Mapping[str, Figures]) -> str:
    """By traffic and load: what the best of each kind has over the default, over all engines."""
    kinds = [kind for kind in KINDS if kind != "default"]
    head = "| traffic | load | " + " | ".join(f"{o}: {k}" for o in OBJECTIVES for k in kinds) + " |\n"
    lines = [head, "|---|--:|" + "--:|" * (len(kinds) * len(OBJECTIVES)) + "\n"]
    for traffic in TRAFFIC:
        for load in LOADS:
            cells = []
            for objective in OBJECTIVES:
                ratios = [_over_engines(objective, results, traffic, load, kind) for kind in kinds]
                best = min(ratio.value for ratio in ratios) * (1 + LEVEL)
                cells += [_shown(objective, ratio, bold=ratio.value <= best and ratio.high < 1) for ratio in ratios]
            lines.append(f"| {traffic} | {load} | {' | '.join(cells)} |\n")
    return "".join(lines)


def _over_engines(objective: str, results: Mapping[str, Figures], traffic: str, load: float, kind: str) -> Ratio:
    """Loss over the default's: in each draw the mean over engines of the logarithm, then the interval over draws."""
    logs = []
    for engine in ENGINES:
        figures = results[Place(engine, traffic, load).key]
        name = named(objective, figures, (DEFAULT, *KINDS[kind]))
        ours, base = (losses(objective, figures[objective][who])[NUM_NAMING:] for who in (name, DEFAULT))
        logs.append(np.log(ours / base))
    means = np.exp(np.mean(logs, axis=0))
    return paired_ratio(means, np.ones_like(means))


def _shown(objective: str, loss: Ratio, bold: bool) -> str:
    if objective == "goodput":
        loss = Ratio(1 / loss.value, 1 / loss.high, 1 / loss.low)
    text = f"{loss.value:.2f} [{loss.low:.2f}, {loss.high:.2f}]"
    return f"**{text}**" if bold else text


def counts(results: Mapping[str, Figures]) -> str:
    """How often each kind wins clearly."""
    lines = ["| | default, or level with it | " + " | ".join(list(KINDS)[1:]) + " |\n", "|---|--:|--:|--:|--:|\n"]
    for objective in OBJECTIVES:
        found = [winner(objective, results[place.key]) for place in places()]
        clear = [one for one in found if one.clear]
        each = [sum(one.kind == kind for one in clear) for kind in list(KINDS)[1:]]
        lines.append(f"| {objective} | {len(found) - len(clear)} | {' | '.join(map(str, each))} |\n")
    return "".join(lines)


def places() -> list[Place]:
    """Every scenario of the map."""
    return [Place(engine, traffic, load) for engine in ENGINES for traffic in TRAFFIC for load in LOADS]


def contenders() -> dict[str, Any]:
    """Every policy of the map, the default first."""
    names = [name for names in KINDS.values() for name in names]
    return {name: load_agent(name) if name in AGENTS else QUICK[name] for name in names}


def all_results(path: Path | None) -> dict[str, Figures]:
    """Every scenario's figures; those in the file are not run again."""
    found: dict[str, Figures] = {}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            found.update(json.loads(line))
    who = contenders()
    for place in places():
        if place.key not in found:
            found[place.key] = measure(place, who, NUM_NAMING + NUM_MEASURED)
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({place.key: found[place.key]}) + "\n")
    return found


def main() -> None:
    """Run, print or write the tables, and draw the map."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="keep finished scenarios there, and go on")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="page to put the tables into; default: print them")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the map there")
    options = parser.parse_args()
    results = all_results(options.runs)
    show(counts(results), "counts", options.out)
    show(table(results), "table", options.out)
    if options.picture is not None:
        rows = [(traffic, load) for traffic in TRAFFIC for load in LOADS]
        panels = {
            objective: [
                [winner(objective, results[Place(engine, *row).key]) for engine in ENGINES] for row in rows
            ]
            for objective in OBJECTIVES
        }
        draw(options.picture, panels, rows, ENGINES)


if __name__ == "__main__":
    main()
