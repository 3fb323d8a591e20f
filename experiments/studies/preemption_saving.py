"""When preemption saves GPU cost, and how much: the tables and the picture of docs/studies/preemption.md.

    python -m experiments.studies.preemption_saving --out docs/studies/preemption.md

Three parts. `proven`: a handful of requests, both optima proven. `certified`: a hundred requests, the best plans that
search finds with and without preemption, and bounds on what could still be saved. `today`: the schedulers that engines
ship, at the engine's own memory. `--runs FILE.jsonl` keeps what is finished and goes on there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.preemption_free import best_paced_s, busy_bound_s
from experiments.studies.preemption_saving_picture import draw
from experiments.studies.sections import show
from experiments.transfer.scenarios import engine_config
from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.portfolio import solve
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.table.shares import decode_seconds
from infermax_gym.cost import COSTS
from infermax_gym.engine import Information
from infermax_gym.engine.policy import LengthEstimate
from infermax_gym.evaluation import Ratio, mean_and_ci95, paired_ratio, run_contender
from infermax_gym.streams import stream
from infermax_gym.workload import make_workload

Document = dict[str, Any]

PROVEN_CASES = (
    ("llama3-70b-a100x4", 2),
    ("llama3-70b-a100x4", 64),
    ("llama3-70b-a100x4", 512),
    ("llama-3.1-8b@h100", 2),
)
"""Engine and prompt; longer prompts on costs with several terms are not proven in minutes."""
PROVEN_MIXES = {"outputs of 12": (12, 12, 12, 12), "outputs of 4 to 20": (4, 8, 16, 20)}
PROVEN_KV = (1.15,)

CERTIFIED_ENGINES = ("llama-3.1-8b@h100",)
MIXES = {
    "short prompts, equal outputs": ((64, 0.0), (512, 0.0)),
    "short prompts, unequal outputs": ((64, 0.3), (512, 0.9)),
    "prompts as long as outputs": ((512, 0.3), (512, 0.9)),
    "long prompts, short outputs": ((2048, 0.5), (128, 0.9)),
}
"""Mean and spread of prompts and of outputs; uniform within mean x (1 - spread) and mean x (1 + spread)."""
HELD = (1.1, 2.0, 4.0, 8.0)
"""KV capacity over the longest request's peak."""
CERTIFIED_DRAWS, CERTIFIED_SCHEDULES = 3, 60

TODAY_ENGINES = ("qwen3-8b@l40s", "llama-3.1-8b@h100", "llama-3.1-70b@h100x4", "gpt-oss-120b@h200")
TODAY_TRAFFIC = {"chat": "azure-conv", "reasoning": "reasoning"}
TODAY_SHARES = (1.0, 0.25, 0.05)
TODAY_REQUESTS, TODAY_DRAWS = 2_000, 10
KNOWING = replace(
    POLICIES["trt-no-evict"], name="reserve-oracle", estimate=LengthEstimate.PREDICTED, information=Information.ORACLE
)
"""Reserves what a request will really need."""
TODAY_POLICIES: Mapping[str, Any] = {
    "vllm": POLICIES["vllm"],
    "mc-fcfs-oracle": POLICIES["mc-fcfs-oracle"],
    "reserve-oracle": KNOWING,
    "trt-no-evict": POLICIES["trt-no-evict"],
}


def _cost(engine: str) -> Any:
    return COSTS[engine] if engine in COSTS else engine_config(engine).cost


@dataclass(frozen=True)
class Proven:
    """A handful of requests on an engine."""

    engine: str
    prompt: int
    mix: str
    held: float

    @property
    def key(self) -> str:
        """For the file of runs."""
        return f"proven {self.engine} {self.prompt} {self.mix} {self.held}"

    def run(self, seconds: float) -> Document:
        """The optima, and whether they are proven."""
        lengths = [(self.prompt, output) for output in PROVEN_MIXES[self.mix]]
        peak = max(i + o - 1 for i, o in lengths)
        instance = Instance.of(lengths, int(self.held * peak), _cost(self.engine), max_num_batched_tokens=8_192)
        found = {
            variant: solve(instance, "makespan", variant=variant, time_limit_s=seconds)  # type: ignore[arg-type]
            for variant in ("preemptive", "no-preemption")
        }
        return {
            "saving": 1.0 - found["preemptive"].objective_s / found["no-preemption"].objective_s,
            "proven": all(one.status == "optimal" for one in found.values()),
        }


@dataclass(frozen=True)
class Certified:
    """Many requests on an engine: draw number `draw`."""

    engine: str
    mix: str
    held: float
    draw: int

    @property
    def key(self) -> str:
        """For the file of runs."""
        return f"certified {self.engine} {self.mix} {self.held} {self.draw}"

    def instance(self) -> Instance:
        """The problem: the more memory, the more requests, so that beginning and end weigh alike."""
        count = round(max(12 * self.held, 24))
        rng = stream(self.draw, "workload")
        drawn = [
            rng.integers(round(mean * (1 - spread)), round(mean * (1 + spread)), count, endpoint=True)
            for mean, spread in MIXES[self.mix]
        ]
        lengths = [(max(int(i), 1), max(int(o), 1)) for i, o in zip(*drawn, strict=True)]
        peak = max(i + o - 1 for i, o in lengths)
        return Instance.of(lengths, int(self.held * peak), _cost(self.engine), max_num_batched_tokens=8_192)

    def run(self, schedules: float) -> Document:
        """What search finds with and without preemption, and what the bounds leave."""
        instance = self.instance()
        with_s, without_s = (
            solve(instance, "makespan", variant=variant, max_evaluations=int(schedules)).objective_s  # type: ignore[arg-type]
            for variant in ("preemptive", "no-preemption")
        )
        without_s = min(without_s, best_paced_s(instance))
        with_s = min(with_s, without_s)
        return {
            "found": 1.0 - with_s / without_s,
            "at_most": 1.0 - certify(instance.workload(), instance.engine()).busy_s / without_s,
            "at_least": max(0.0, 1.0 - with_s / busy_bound_s(instance)),
        }


@dataclass(frozen=True)
class Today:
    """A backlog on an engine with a share of its memory: draw number `draw`."""

    engine: str
    traffic: str
    share: float
    draw: int

    @property
    def key(self) -> str:
        """For the file of runs."""
        return f"today {self.engine} {self.traffic} {self.share} {self.draw}"

    def run(self, _: float) -> Document:
        """GPU seconds of each policy, and the preemptions of those that preempt."""
        drawn = make_workload(TODAY_TRAFFIC[self.traffic], TODAY_REQUESTS, seed=7_000 + self.draw)
        backlog = replace(drawn, arrival_s=np.zeros(len(drawn)))
        config = engine_config(self.engine)
        peak = int((drawn.num_prompt_tokens + drawn.num_output_tokens).max())
        config = replace(config, num_kv_tokens=max(int(self.share * config.num_kv_tokens), peak + config.block_size))
        runs = {
            name: run_contender(policy, backlog, config, predict=predictions).result
            for name, policy in TODAY_POLICIES.items()
        }
        return {name: [run.busy_s, run.num_preemptions] for name, run in runs.items()}


def problems() -> list[Proven | Certified | Today]:
    """Everything that is run, the cheap first."""
    return [
        *(
            Today(engine, traffic, share, draw)
            for engine in TODAY_ENGINES
            for traffic in TODAY_TRAFFIC
            for share in TODAY_SHARES
            for draw in range(TODAY_DRAWS)
        ),
        *(
            Certified(engine, mix, held, draw)
            for engine in CERTIFIED_ENGINES
            for draw in range(CERTIFIED_DRAWS)
            for mix in MIXES
            for held in HELD
        ),
        *(
            Proven(engine, prompt, mix, held)
            for engine, prompt in PROVEN_CASES
            for mix in PROVEN_MIXES
            for held in PROVEN_KV
        ),
    ]


def all_runs(path: Path | None, seconds: float) -> dict[str, Document]:
    """Every problem; those in the file are not run again."""
    found: dict[str, Document] = {}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            found.update(json.loads(line))
    for problem in problems():
        if problem.key not in found:
            found[problem.key] = problem.run(CERTIFIED_SCHEDULES if isinstance(problem, Certified) else seconds)
            if path is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({problem.key: found[problem.key]}) + "\n")
    return found


def proven_table(runs: Mapping[str, Document]) -> str:
    """What optimal preemption saves over the optimum without it."""
    columns = [(mix, held) for mix in PROVEN_MIXES for held in PROVEN_KV]
    lines = [
        "| engine | prompts | " + " | ".join(f"{mix}, KV {held:g} P" for mix, held in columns) + " |\n",
        "|---|--:|" + "--:|" * len(columns) + "\n",
    ]
    for engine, prompt in PROVEN_CASES:
        cells = []
        for mix, held in columns:
            one = runs[Proven(engine, prompt, mix, held).key]
            cells.append(f"{abs(one['saving']):.1%}" + ("" if one["proven"] else " (not proven)"))
        lines.append(f"| `{engine}` | {prompt} | {' | '.join(cells)} |\n")
    return "".join(lines)


def savings(runs: Mapping[str, Document], mix: str, held: float, engine: str, what: str) -> list[float]:
    """One figure of all draws."""
    return [float(runs[Certified(engine, mix, held, draw).key][what]) for draw in range(CERTIFIED_DRAWS)]


def certified_table(runs: Mapping[str, Document]) -> str:
    """What was found, with its interval over draws, and what the bounds still allow."""
    lines = ["| engine | requests | " + " | ".join(f"KV {held:g} P" for held in HELD) + " |\n"]
    lines.append("|---|---|" + "--:|" * len(HELD) + "\n")
    for engine in CERTIFIED_ENGINES:
        for mix in MIXES:
            cells = []
            for held in HELD:
                mean, half = mean_and_ci95(savings(runs, mix, held, engine, "found"))
                least, most = (
                    float(np.mean(savings(runs, mix, held, engine, what))) for what in ("at_least", "at_most")
                )
                cells.append(f"{mean:.1%} ± {half:.1%} ({least:.1%} to {most:.1%})")
            lines.append(f"| `{engine}` | {mix} | {' | '.join(cells)} |\n")
    return "".join(lines)


def fixed_share(engine: str, traffic: str, share: float) -> float:
    """What a decode of one token costs, over an iteration with as many mean requests as memory holds."""
    config = engine_config(engine)
    drawn = make_workload(TODAY_TRAFFIC[traffic], TODAY_REQUESTS, seed=7_000)
    context = float((drawn.num_prompt_tokens + 0.5 * drawn.num_output_tokens).mean())
    together = min(share * config.num_kv_tokens / context, config.max_num_seqs)
    one, full = (
        float(decode_seconds(config.cost, np.array([count]), tokens)[0])
        for count, tokens in ((1.0, 0.0), (together, context))
    )
    return one / full


def today_table(runs: Mapping[str, Document]) -> str:
    """GPU seconds of `vllm`, which preempts, over those that reserve, with paired intervals."""
    lines = [
        "| engine | traffic | share of its KV | fixed | preemptions per 1,000 | over looking ahead "
        "| over reserving true lengths | over reserving the longest |\n",
        "|---|---|--:|--:|--:|--:|--:|--:|\n",
    ]
    for engine in TODAY_ENGINES:
        for traffic in TODAY_TRAFFIC:
            for share in TODAY_SHARES:
                draws = [runs[Today(engine, traffic, share, draw).key] for draw in range(TODAY_DRAWS)]
                often = np.mean([one["vllm"][1] for one in draws]) / TODAY_REQUESTS * 1_000
                ratios = [_over(draws, other) for other in list(TODAY_POLICIES)[1:]]
                shown = " | ".join(f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in ratios)
                fixed = f"{fixed_share(engine, traffic, share):.0%}"
                lines.append(f"| `{engine}` | {traffic} | {share:g} | {fixed} | {often:.0f} | {shown} |\n")
    return "".join(lines)


def _over(draws: Sequence[Document], other: str) -> Ratio:
    return paired_ratio([one["vllm"][0] for one in draws], [one[other][0] for one in draws])


TABLES: dict[str, Callable[[Mapping[str, Document]], str]] = {
    "proven": proven_table,
    "certified": certified_table,
    "today": today_table,
}


def main() -> None:
    """Run, print or write the tables, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each optimum that is to be proven")
    parser.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="keep finished problems there, and go on")
    parser.add_argument("--out", type=Path, metavar="PAGE.md", help="page to put the tables into; default: print them")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the picture there")
    options = parser.parse_args()
    runs = all_runs(options.runs, options.seconds)
    for name, table in TABLES.items():
        show(table(runs), name, options.out)
    if options.picture is not None:
        (engine,) = CERTIFIED_ENGINES
        mixes = {
            mix: {
                what: [savings(runs, mix, held, engine, what) for held in HELD]
                for what in ("found", "at_least", "at_most")
            }
            for mix in MIXES
        }
        draw(options.picture, engine, mixes, HELD)


if __name__ == "__main__":
    main()
