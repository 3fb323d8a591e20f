"""The page docs/schedulers.md: every scheduler on four workloads, and how sensitive LARRY is to its constants.

    python -m experiments.studies.compare_schedulers --out docs/schedulers.md   everything (a few minutes)
    python -m experiments.studies.compare_schedulers --quick   one seed of 300 requests: to see what the page looks like

Without `--out` the page is printed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym.agents.storage import load_agent
from infermax_gym.baselines.catalogue import QUICK
from infermax_gym.baselines.predict import predictions
from infermax_gym.baselines.table.adaptive import FASTSERVE, LTR
from infermax_gym.baselines.table.sizes import LARRY
from infermax_gym.engine import EngineConfig, Policy
from infermax_gym.engine.policy import PreemptMode
from infermax_gym.evaluation import Scenario, evaluate, information_of
from infermax_gym.evaluation.figures import lookup
from infermax_gym.workload import make_workload

CLASSES = ("none", "bound", "predicted", "oracle")


@dataclass(frozen=True)
class Setting:
    """A workload on an engine."""

    title: str
    preset: str
    rate: float
    num_kv_tokens: int
    num_requests: int = 1000

    def cell(self, num_requests: int | None = None) -> Scenario:
        """What all schedulers share."""
        count = num_requests or self.num_requests
        config = EngineConfig(num_kv_tokens=self.num_kv_tokens)
        return Scenario(lambda seed: make_workload(self.preset, count, seed=seed, rate=self.rate), config)


SETTINGS = (
    Setting("chat", "azure-conv", 4.0, 20_000),
    Setting("code", "azure-code", 4.0, 20_000),
    Setting("mixed", "mixed", 3.0, 40_000),
    Setting("reasoning", "reasoning", 1.0, 40_000),
)
TWINS = ("infermax-",)
"""Rows that repeat others with the rounding of another simulator."""


FOR_LIMITS = "rollout-goodput"
"""Looks at limits alone, of which this page has no figure."""
AGENTS = ("any-engine",)
"""Trained schedulers that are for any engine."""


def compared() -> dict[str, Any]:
    """The schedulers of the page."""
    rules = {name: each for name, each in QUICK.items() if not name.startswith(TWINS) and name != FOR_LIMITS}
    return rules | {name: load_agent(name) for name in AGENTS}


Tables = dict[str, dict[str, Any]]
"""Title of a setting, then scheduler: its figures."""


def measure(
    contenders: dict[str, Any], seeds: Sequence[int], num_requests: int | None, path: Path | None = None
) -> Tables:
    """Figures by setting and scheduler; those in the file are not run again."""
    found: Tables = {setting.title: {} for setting in SETTINGS}
    if path is not None and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            for title, figures in json.loads(line).items():
                found[title].update(figures)
    for name in sorted(contenders, key=lambda name: name.startswith("rollout")):  # the slowest last
        contender = contenders[name]
        for setting in SETTINGS:
            if name not in found[setting.title]:
                one = evaluate(setting.cell(num_requests), {name: contender}, seeds, predictions).summary()
                found[setting.title].update(one)
                if path is not None:
                    with path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({setting.title: one}) + "\n")
    return found


def number(value: float | None) -> str:
    """Three digits."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def main_table(tables: Sequence[Any], contenders: dict[str, Any]) -> str:
    """One line per scheduler, by class and then by its mean rank; the best of a class and column is bold."""
    head = "| scheduler | " + " | ".join(f"{s.title}: mean | p99 | TTFT" for s in SETTINGS) + " |\n"
    head += "|---|" + "--:|" * (3 * len(SETTINGS)) + "\n"
    paths = ("latency_s.mean", "latency_s.p99", "ttft_s.mean")
    lines = []
    for kind in CLASSES:
        members = [name for name, each in contenders.items() if information_of(each) == kind]
        ranks = np.zeros(len(members))
        for table in tables:
            means = [lookup(table[name], "latency_s.mean") for name in members]
            ranks += np.log(means)
        lines.append(f"| *lengths known: {kind}* |" + " |" * (3 * len(SETTINGS)) + "\n")
        best = {
            (i, path): min(lookup(table[name], path) for name in members)
            for i, table in enumerate(tables)
            for path in paths
        }
        for index in np.argsort(ranks, kind="stable"):
            name = members[index]
            cells = []
            for i, table in enumerate(tables):
                for path in paths:
                    value = lookup(table[name], path)
                    text = number(value)
                    cells.append(f"**{text}**" if value == best[i, path] else text)
            lines.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return head + "".join(lines)


def larry_variants() -> dict[str, Policy]:
    """LARRY with other constants, and without each of its parts."""
    variants = {f"aging {a:g}": replace(LARRY, name=f"aging {a:g}", load_aging=a) for a in (0.0, 0.002, 0.02, 0.2, 2.0)}
    parts: dict[str, dict[str, Any]] = {
        "no histogram": {"admission_check": Policy("x").admission_check},
        "newest evicted": {"run_order": Policy("x").run_order},
    }
    return variants | {name: replace(LARRY, name=name, **change) for name, change in parts.items()}


NEVER_WAIT = 10**9
"""Tokens on their way that no transfer ever exceeds: swaps cost nothing."""


def swap_variants() -> dict[str, Policy]:
    """FastServe and LTR with other ways to preempt, and with other guards against starvation."""
    recompute = {"preempt_mode": PreemptMode.RECOMPUTE, "overlap_swaps": False, "swap_lag_tokens": 0}
    beside = {"preempt_mode": PreemptMode.SWAP, "overlap_swaps": True}
    changes: dict[str, tuple[Policy, dict[str, Any]]] = {
        "`fastserve`": (FASTSERVE, {}),
        "starving looked for in every iteration": (FASTSERVE, {"starvation_every": 1}),
        "every swap waited for": (FASTSERVE, {"swap_lag_tokens": 0}),
        "both": (FASTSERVE, {"starvation_every": 1, "swap_lag_tokens": 0}),
        "nobody lifted": (FASTSERVE, {"starvation_s": 0.0}),
        "recomputed": (FASTSERVE, recompute),
        "swaps for nothing": (FASTSERVE, {"swap_lag_tokens": NEVER_WAIT}),
        "`ltr`": (LTR, {}),
        "swapped, every swap waited for": (LTR, {"preempt_mode": PreemptMode.SWAP}),
        "swapped beside the computation": (LTR, {**beside, "swap_lag_tokens": 1024}),
        "`ltr`, swaps for nothing": (LTR, {**beside, "swap_lag_tokens": NEVER_WAIT}),
        "`ltr`, nobody lifted": (LTR, {"starvation_iterations": 0}),
    }
    return {name: replace(policy, name=name, **change) for name, (policy, change) in changes.items()}


def variants_table(tables: Sequence[Any], names: Sequence[str]) -> str:
    """Mean latency, p99, TTFT and preemptions of each variant on each workload."""
    head = "| | " + " | ".join(f"{s.title}: mean | p99 | TTFT | preempted" for s in SETTINGS) + " |\n"
    head += "|---|" + "--:|" * (4 * len(SETTINGS)) + "\n"
    lines = []
    for name in names:
        cells = []
        for table in tables:
            row = table[name]
            cells += [number(lookup(row, path)) for path in ("latency_s.mean", "latency_s.p99", "ttft_s.mean")]
            cells.append(f"{row['num_preemptions']:.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |\n")
    return head + "".join(lines)


def throughput_table(tables: Sequence[Any], names: Sequence[str]) -> str:
    """Output tokens per second and preemptions per 1,000 requests."""
    head = "| | " + " | ".join(f"{s.title}: TTFT | tokens/s | preempted" for s in SETTINGS) + " |\n"
    head += "|---|" + "--:|" * (3 * len(SETTINGS)) + "\n"
    lines = []
    for name in names:
        cells = []
        for table in tables:
            row = table[name]
            cells += [
                number(lookup(row, "ttft_s.mean")),
                f"{row['throughput_tokens_per_s']:.0f}",
                f"{row['num_preemptions']:.0f}",
            ]
        lines.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return head + "".join(lines)


TEXT = """\
# Schedulers compared

<!-- Written by `python -m experiments.studies.compare_schedulers --out docs/schedulers.md`; edit there. -->

Every scheduler on four workloads, with too little memory on purpose: with plenty of it schedulers hardly differ.
[The table of policies](policies.md) has sources and deviations, [the engine](engine.md) the exact rules.
[Which scheduler wins where](studies/which-scheduler-wins.md) asks the same of today's GPUs.

- Figures are seconds, means over {SEEDS} seeds. `mean` and `p99` are of latency, arrival to last token. `TTFT` is
  the mean.
- The engine is llama2-7b on one A100: blocks of 16 tokens, at most 512 tokens and 256 requests per iteration.
- Groups say what a scheduler is told of output lengths. In a group the lowest geometric mean over workloads is first.
- The fastest of a group is bold.
- `srpt-work`, `mc-sf-work` and `spf-past-future` have a constant each that was chosen on these presets (seed 0). That
  flatters them a little.

| | workload | requests | rate | KV tokens |
|---|---|--:|--:|--:|
{SETTINGS}

{TABLE}

## What wins, and why

- **Chat and code: short prompts first.** Prefills are the work, and prompts are known. So no prediction is needed.
  `spf-headroom`, `larry` and `slai` halve FCFS's mean and more. The longest prompts pay in p99. `hrrn` and
  `spf-aging-headroom` give a little of the mean back for a good part of it.
- **Reasoning and mixed: whoever has had least.** Outputs are heavy-tailed, and prompts say nothing about them.
  `least-attained-service` gets short answers through and recomputes the long ones. Predicted lengths do better still.
- **Sizes without units.** The `-share` policies take their budget from the engine's cost. On chat and
  code they are a tenth behind the rules tuned for this engine, on the others level. On other engines they replace them.
- **Nothing told, everything tried.** `rollout` runs twelve policies on copies of the engine, with imagined lengths, and
  goes on with the best: first of those told nothing. `rollout-informed` does so with noisy lengths, and is first of its
  group. `any-engine` is a trained network that chooses among policies. Trained on larger engines, it is in the middle
  here.
- **Work, not output length.** With true lengths `sjf-oracle` and `srpt-oracle` lose to rules that know nothing, where
  prompts are the work. `srpt-work-oracle` and `mc-sf-work-oracle` count the tokens still to prefill as well. That
  repairs it, even with noisy lengths. `srpt-oracle` evicts half-done prompts for shorter answers, again and again.
- **Looking ahead at memory** (`mc-sf-*`, `past-future-*`, `a-max`) all but ends preemption. Learned from finished
  requests it costs little: `spf-past-future` is nearly `spf-headroom`, without a number to tune.
- **Reservations against a bound** (`trt-no-evict`, `lightllm-safe`, `vtc`) are as bad as the bound is loose. They are
  bearable on chat and hopeless on reasoning. `vtc-sarathi` is the way to be fair. With one tenant, as here, it is
  `sarathi`. Try `infermax bench --workload tenants --by tenant`.
- **Eviction in turns.** `fastserve` and `ltr` suffer where memory holds a few dozen requests. Moving KV takes what the
  order gains (see below). With plenty of memory they are level with the rest, or better.
- **An order is not everything.** `random-order` has FCFS's mean on `sarathi`'s batches. Who goes first matters only if
  it is chosen by size or service. `ewsjf` puts short prompts first and stays far behind `hrrn`. It stands on
  `vllm-0.13`, which admits prompts piece by piece into memory that does not last.
- **Waiting on purpose** (`wait-threshold`) does not pay here. A batch's fixed cost is small beside the wait.

## What preemption costs FastServe and LTR

Both put short answers first by pushing others out. The table says what that costs, and what makes it dear:

{SWAPS}

Their orders are not to blame: **with swaps for nothing both are the best of their class on mixed**. Elsewhere they are
then as good as orders by answers are. What they lose they lose to transfers. Three things decide how much:

- **Whether the batch waits.** FastServe swaps beside the computation. An iteration waits only for what exceeds
  `swap_lag_tokens`, 1,024 tokens on their way. Waiting for every swap makes it two to three times as bad on chat and
  reasoning.
- **How often starving requests are lifted.** FastServe looks every 1,000 iterations. A look in every iteration is
  ruin. Under overload everybody waits for more than 3 s, so everybody is lifted and preempts everybody else.
- **How many fit.** On chat some twenty requests fill memory, and prompts are as much work as answers. The guard alone
  makes `fastserve` swap all of memory again and again. Without it the mean is a tenth.

vLLM's LTR recomputes who is displaced, or swaps and waits. Under tight memory either ruins it. Swaps beside the
computation would save most.

## Known deviations

- `fastserve` moves KV beside the computation. A request that comes back runs at once, before its blocks have arrived.
- `trail` and `ltr` get predictions from an oracle with log-normal error. TRAIL's is of what remains, renewed every 8
  tokens. LTR's 200 and 10 steps are iterations.
- `a-min` keeps the tokens of evicted requests, as this engine always does.
- `past-future` takes a quantile where the paper samples. `mc-sf-beta` clears the newest fifth where the paper tosses
  coins.
- `cacheopt-like` and `echo-like` have the rules that are settings of the algorithm. They lack shared reservations and
  prefix plans.
- `wait-threshold` is WAIT with one type. `nested-wait` decides in Python, so it is not in this table. It opens its
  gates when nothing else could run.
- `sorted-f-oracle` picks batches among prefixes of four sorted orders. `ewsjf` has queues of equal width and no tuning.
- `rank-*` evict the worst of their order, where INFERMAX evicts the last to have joined.
- `proserve-like` and `fluid-gate` are readings of abstracts. The idea is theirs, the formulas are ours.

## Not in the table, and why

- **Rules for limits alone.** `rollout-goodput` counts requests in time, which this page does not show.
- **Parts of a fleet.** D2LPM, GoRouting, the routing half of Gate-and-Route and SAL choose between engines. INFERMAX's
  `dual_schedulers` hands over from a prefill to a decode engine. See [fleets](cluster.md).
- **KV that is not one contiguous prefix.** INFERMAX's `overload` runs requests with KV that is not there. Its
  `partial_evict_block` keeps part of a victim's. CacheOPT lends blocks. This engine has whole requests. With
  `--prefix-caching` a victim finds again what nobody has overwritten.
- **Chunks by stage.** Sarathi's dynamic schedule shrinks chunks as a prompt proceeds, for equal iterations.
  `dynamic-chunk` asks for that length directly. Its simple chunker takes turns of prefill and decode iterations, which
  no knob does.
- **WAIT with several types** needs rates and lengths per type in advance, which traces do not have.
- **GSA and GBA** (2601.22996): only their guarantees are known to us, not their rules.
- **RAD** (2508.01002) rounds batches to tile sizes of the matrix kernels. No cost model here has tiles.
- **Other orders of SGLang.** With one bound for all outputs `lof` is FCFS, and `random` is `random-order`. `dfs-weight`
  and `routing-key` serve neighbours in the prefix tree together, which sharing inside a batch does here anyway.
- **Other predictors of LTR.** Its classes are `sjf-classes`, its oracle orders `sjf-oracle` and `srpt-oracle`, its MLFQ
  is FastServe's. "The first 15 tokens, then by estimate" changes the key in mid-answer, which no knob does.
- **VTC that charges predicted outputs in advance.** Charges are a knob, when they fall due is not.

## LARRY

The paper (2410.17840) claims better TTFT and throughput than practical systems at few preemptions. Its formula is not
public, so ours is a reading:

- the key is known tokens - `load_aging` x waiting requests x seconds waited;
- admission is by the histogram of like requests;
- the fewest cached tokens are evicted first.

Against practical policies, preemptions per 1,000 requests:

{PRACTICAL}

- **TTFT is far better** than that of vLLM and Sarathi on every workload.
- **Throughput is the same** within a few per cent. Memory and the token budget set it. Only `vllm-0.13` loses much.
- **Preemptions are few against `vllm-0.13` only.** On mixed they are several times those of `sarathi`, and always above
  those of `srf-histogram`.
- `spf-headroom` is simpler and does as well.

So the first claim is reproduced, the second only against `vllm-0.13`, the third in part.
[LARRY and SAL](studies/larry-and-sal.md) measures both on today's engines.

Its constants and parts (`larry` is aging 0.02):

{LARRY}

Aging hardly matters while queues are short, since it multiplies by their length. Under overload it trades the mean for
the p99, from shortest first (0) to nearly FCFS (2). The histogram keeps preemptions down. Whom to evict matters less.
"""

PRACTICAL = ("larry", "vllm-v0", "vllm-0.13", "vllm", "sarathi", "srf-histogram", "spf-headroom", "slai")


def page(seeds: Sequence[int], num_requests: int | None, runs: Path | None = None) -> str:
    """The page."""
    contenders, variants, swapping = compared(), larry_variants(), swap_variants()
    tables = list(measure({**contenders, **variants, **swapping}, seeds, num_requests, runs).values())
    settings = "".join(
        f"| {s.title} | `{s.preset}` | {num_requests or s.num_requests:,} | {s.rate:g}/s | {s.num_kv_tokens:,} |\n"
        for s in SETTINGS
    )
    text = TEXT
    for mark, table in (
        ("SETTINGS", settings),
        ("SEEDS", f"{len(seeds)}"),
        ("TABLE", main_table(tables, contenders)),
        ("PRACTICAL", throughput_table(tables, PRACTICAL)),
        ("LARRY", variants_table(tables, list(variants))),
        ("SWAPS", variants_table(tables, list(swapping))),
    ):
        text = text.replace("{" + mark + "}", table.rstrip("\n"))
    return text


def main() -> None:
    """Run, and print or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed of 300 requests")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the page there; default: print it")
    parser.add_argument("--runs", type=Path, metavar="FILE.jsonl", help="keep finished schedulers there, and go on")
    options = parser.parse_args()
    text = page((0,), 300, options.runs) if options.quick else page((0, 1, 2), None, options.runs)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
