"""The page docs/schedulers.md: every scheduler on four workloads, and how sensitive LARRY is to its constants.

    python -m experiments.studies.compare_schedulers --out docs/schedulers.md   everything (a few minutes)
    python -m experiments.studies.compare_schedulers --quick   one seed of 300 requests: to see what the page looks like

Without `--out` the page is printed.
"""

from __future__ import annotations

import argparse
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


AGENTS = ("any-engine",)
"""Trained schedulers that are for any engine."""


def compared() -> dict[str, Any]:
    """The schedulers of the page."""
    rules = {name: each for name, each in QUICK.items() if not name.startswith(TWINS)}
    return rules | {name: load_agent(name) for name in AGENTS}


def measure(setting: Setting, contenders: dict[str, Any], seeds: Sequence[int], num_requests: int | None) -> Any:
    """Figures by scheduler."""
    return evaluate(setting.cell(num_requests), contenders, seeds, predictions).summary()


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

What each scheduler is, its source and its deviations: [policies.md](policies.md); the rules exactly:
[engine.md](engine.md). Seconds; means over {SEEDS} seeds of the workload; llama2-7b on one A100, blocks of 16,
512 tokens and 256 requests per iteration; the fastest of a class in bold. Inside a class ("lengths known" says
what a scheduler is told of output lengths) they are in order of mean latency, geometric over the workloads.
Memory is scarce on purpose: with plenty of it schedulers hardly differ.
The weights of the `srpt-work` and `mc-sf-work` policies and the quantile of `spf-past-future` were chosen among a few
values on these presets (seed 0), so their ranks here are flattered a little.

| | workload | requests | rate | KV tokens |
|---|---|--:|--:|--:|
{SETTINGS}

`mean` and `p99` are of latency, arrival to last token; `TTFT` is the mean.

{TABLE}

## What wins, and why

- **Chat and code: short prompts first.** Prefills are the work, prompts are known, so no prediction is needed:
  `spf-headroom`, `larry` and `slai` halve FCFS's mean and more. Their p99 is that of the longest prompts;
  `hrrn` and `spf-aging-headroom` give a little of the mean back for a good part of it.
- **Reasoning and mixed: whoever has had least.** Outputs are heavy-tailed and prompts say nothing about them.
  `least-attained-service` gets the short answers through at the price of recomputing the long; a known or
  predicted length does better still.
- **Nothing told, everything tried.** `rollout` runs four policies on copies of the engine with imagined lengths
  every 2 s and goes on with the best: near the best of its class everywhere, and first overall. It is what a
  learned scheduler has to beat.
- **Work, not output length.** With true lengths `sjf-oracle` and `srpt-oracle` lose to rules that know nothing
  where prompts are the work; counting the tokens still to prefill as well (`srpt-work-oracle`,
  `mc-sf-work-oracle`) repairs it, and needs no exact lengths to do so. `srpt-oracle` on chat is a warning: it
  evicts half-done prompts for shorter answers, and computes them again and again.
- **Looking ahead at memory** (`mc-sf-*`, `past-future-*`, `a-max`) all but ends preemption. Learned from
  finished requests it costs little: `spf-past-future` is nearly `spf-headroom`, without a number to tune.
- **Reservations against a bound** (`trt-no-evict`, `lightllm-safe`, `vtc`) are as bad as the bound is loose:
  bearable on chat, hopeless on reasoning. `vtc-sarathi` is the way to be fair; with one tenant, as here, it is
  `sarathi`, like `priority-fcfs` with one class. Try `infermax bench --workload tenants --by tenant`.
- **Eviction in turns.** `fastserve` and `ltr` suffer where memory holds a few dozen requests: time slices, or the
  guard against starvation, make requests preempt each other, and moving KV takes what the order gains (more
  below). With plenty of memory they are level with the rest, or better: `infermax bench --workload azure-conv
  --first 800 --rate 4 --kv-tokens 200000 --policies fastserve,ltr,sarathi` gives 3.9, 4.7 and 4.7 s.
- **An order is not everything.** `random-order` has FCFS's mean on `sarathi`'s batches: who goes first matters only
  if it is chosen by size or by service. And `ewsjf`, short prompts first, stays far behind `hrrn`, as it stands on
  `vllm-0.13`, which admits prompts piece by piece into memory that does not last.
- **Waiting on purpose** (`wait-threshold`) does not pay here: a batch's fixed cost is small beside what the
  wait costs.

## What preemption costs FastServe and LTR

Both put short answers first by pushing others out; the table says what that costs, and whose cost it is:

{SWAPS}

Their orders are not to blame: **with swaps for nothing both are the best of their class on mixed**, and elsewhere as
good as orders by answers are, FCFS's mean or better. What they lose they lose to transfers. Three things decide how
much:

- **Whether the batch waits.** FastServe swaps ahead of need, beside the computation. With `swap_lag_tokens` an
  iteration waits only for what exceeds 1,024 tokens on their way, and nobody is preempted or brought back while
  more than that is pending (docs/engine.md). Waiting for every swap makes it two to three times as bad on chat and
  reasoning.
- **How often starving requests are lifted.** FastServe looks every 1,000 iterations. A look in every iteration is
  ruin: under overload everybody waits for more than 3 s, so everybody is lifted, and preempts everybody else.
- **How many fit.** On chat some twenty requests of a thousand tokens fill memory, and prompts are as much work as
  answers: there the guard alone makes `fastserve` swap all of memory again and again (207 s; 23.9 s without the
  guard). That is the rule, not the simulator: whoever is lifted displaces, whatever that costs.

vLLM's LTR recomputes who is displaced, or swaps and waits. That is what `ltr` does, and under tight memory either
ruins it; swaps beside the computation would save most.

## Known deviations

`fastserve` moves KV beside the computation; a request that comes back runs at once, while its blocks are still on
their way. `trail` and `ltr` get their predictions from an oracle with log-normal error (of TRAIL, on what remains,
renewed every 8 tokens); LTR's 200 and 10 steps are iterations here. `a-min` keeps the tokens of evicted requests, as
this engine always does.
`past-future` takes a quantile where the paper samples. `cacheopt-like` and `echo-like` have the rules that are
settings of the algorithm, not the sharing of reservations or the prefix plans. `wait-threshold` is WAIT with
one type; `nested-wait`, in Python and so not in this table, opens its gates when nothing else could run.
`sorted-f-oracle` picks batches among prefixes of four sorted orders. `rank-*` evict the worst of their order, where
INFERMAX evicts the last to have joined. `mc-sf-beta` clears the newest fifth where the paper tosses coins. `ewsjf`
has queues of equal width and no tuning. `proserve-like` and `fluid-gate` are readings of abstracts: the idea is
theirs, the formulas are ours.

## Not in the table, and why

- **Parts of a fleet.** D2LPM, ProServe's GoRouting, the routing half of Gate-and-Route and SAL choose between
  engines; INFERMAX's `dual_schedulers` hands over from a prefill to a decode engine. See [cluster.md](cluster.md).
- **KV that is not one contiguous prefix.** INFERMAX's `overload` lets a request run with KV that is not there, its
  `partial_evict_block` keeps part of a victim's, CacheOPT lends reserved but unused blocks. This engine has whole
  requests (with `--prefix-caching` a victim finds again what nobody has overwritten).
- **Chunks by stage.** Sarathi's dynamic schedule shrinks chunks as a prompt proceeds, so that iterations stay equally
  long; `dynamic-chunk` asks for that length directly. Its simple chunker, which takes turns of prefill and decode
  iterations, has no policy: after a prefill iteration no knob forbids the next.
- **WAIT with several types** needs arrival rates and lengths per type in advance, which traces do not have;
  `wait-threshold` and `nested-wait` do without.
- **GSA and GBA** (2601.22996): only their guarantees are known to us, not their rules.
- **RAD** (2508.01002) rounds batches to tile sizes of the matrix kernels; no cost model here has tiles.
- **Other orders of SGLang.** With one bound for all outputs `lof` is FCFS; `random` is `random-order`; `dfs-weight` and
  `routing-key` serve neighbours in the prefix tree together, which sharing inside a batch does here anyway.
- **Other predictors of LTR.** Its classes are `sjf-classes`, its oracle orders `sjf-oracle` and `srpt-oracle`, its MLFQ
  is FastServe's; "the first 15 tokens, then by estimate" is a change of key in mid-answer that no knob has.
- **VTC that charges predicted outputs in advance**: charges are a knob, when they fall due is not.

## LARRY

The paper (2410.17840) claims better TTFT and throughput than practical systems at few preemptions. Its formula
is not public; ours is a reading: key = known tokens - `load_aging` x waiting requests x seconds waited,
admission by the histogram of like requests, the fewest cached tokens evicted first. Against practical policies
(preemptions per 1,000 requests):

{PRACTICAL}

With this reading **TTFT is far better** than that of vLLM and Sarathi on every workload, **throughput the
same** within a few per cent (memory and the token budget set it; only `vllm-0.13`, which admits prompts piece by
piece, loses much), and **preemptions are few against `vllm-0.13` only**: of Sarathi's order on chat and
reasoning, several times as many on mixed, always above `srf-histogram`'s. So the first claim is reproduced, the
second only against `vllm-0.13`, the third in part. `spf-headroom`, simpler, does as well.

Its constants and parts (`larry` is aging 0.02):

{LARRY}

Aging hardly matters while queues are short: it multiplies by the queue's length. Under overload it trades the
mean for the p99, from shortest first (0) to nearly FCFS (2). The histogram is what keeps preemptions down; whom
to evict matters less.
"""

PRACTICAL = ("larry", "vllm-v0", "vllm-0.13", "vllm", "sarathi", "srf-histogram", "spf-headroom", "slai")


def page(seeds: Sequence[int], num_requests: int | None) -> str:
    """The page."""
    contenders, variants, swapping = compared(), larry_variants(), swap_variants()
    tables = [measure(setting, {**contenders, **variants, **swapping}, seeds, num_requests) for setting in SETTINGS]
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
    options = parser.parse_args()
    text = page((0,), 300) if options.quick else page((0, 1, 2), None)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
