"""The study of docs/cluster.md: every router on three fleets, over loads, and on signals of every age.

    python -m experiments.studies.compare_routers [--picture FILE.png]

Prints the tables of the page; with --picture also draws its figure. Eight replicas of llama2-7b-a100 under vllm-0.13,
2,000 requests for each, five seeds; the same requests for every router.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import router_predictions
from infermax_gym.baselines.routers import ROUTERS
from infermax_gym.cluster import Fleet, simulate_fleet, summarize_fleet
from infermax_gym.engine import EngineConfig
from infermax_gym.evaluation import mean_and_ci95, paired_ratio
from infermax_gym.workload import Workload, make_workload

NUM_REPLICAS = 8
SEEDS = range(5)
RATES = (2.5, 3.0, 3.3, 3.6, 3.8, 4.0)
TICKS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
AGES_S = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DRAWN = ("round-robin", "power-of-two", "least-outstanding", "vllm-dp", "lmetric", "sal")
BASE = "least-outstanding"
LOOKING_AHEAD = ("block", "block-predicted")
"""Look at replicas as they are at each arrival: no signal of theirs is ever old."""


@dataclass(frozen=True)
class Setting:
    """What all routers of a column face."""

    workload: str = "azure-conv"
    rate_per_replica: float = 3.6
    num_kv_tokens: int = 100_000
    staleness_s: float = 0.0
    counts_routed: bool = True
    prefix_caching: bool = False


CELLS = {
    "conversations": Setting(),
    "conversations, 40,000 KV tokens": Setting(rate_per_replica=3.0, num_kv_tokens=40_000),
    "code": Setting("azure-code", 2.0),
    "chats with prefix caches": Setting("conversations", 3.0, prefix_caching=True),
}


@cache
def requests(name: str, seed: int) -> Workload:
    """The requests of a seed."""
    return make_workload(name, 2_000 * NUM_REPLICAS, seed=seed)


@cache
def figures(router: str, setting: Setting) -> dict[str, NDArray[np.float64]]:
    """(num seeds,) of each figure that the tables show."""
    rows = []
    for seed in SEEDS:
        workload = requests(setting.workload, seed).with_rate(setting.rate_per_replica * NUM_REPLICAS)
        fleet = Fleet.uniform(
            NUM_REPLICAS,
            EngineConfig(num_kv_tokens=setting.num_kv_tokens, prefix_caching=setting.prefix_caching),
            POLICIES["vllm-0.13"],
            staleness_s=setting.staleness_s,
            counts_routed=setting.counts_routed,
        )
        row = ROUTERS[router]
        predicted_lengths = router_predictions(row, workload, seed)
        s = summarize_fleet(simulate_fleet(workload, fleet, row, seed=seed, predicted=predicted_lengths))
        hits = s["prefix_hit_rate"] or 0.0
        rows.append((s["ttft_s"]["mean"], s["ttft_s"]["p99"], s["latency_s"]["mean"], s["num_preemptions"], hits))
    names = ("ttft", "ttft_p99", "latency", "preemptions", "hits")
    return dict(zip(names, np.array(rows).T, strict=True))


def print_table(title: str, setting: Setting) -> None:
    """One row per router, the best TTFT first."""
    print(f"\n### {title}\n")
    hits = setting.prefix_caching
    print("| router | TTFT mean s | of least-outstanding | TTFT p99 s | latency mean s | preempted |", end="")
    print(" prefix hits |" if hits else "")
    print("| --- " + "| ---: " * (6 if hits else 5) + "|")
    base = figures(BASE, setting)
    for name in sorted(ROUTERS, key=lambda name: figures(name, setting)["ttft"].mean()):
        f = figures(name, setting)
        mean, half = mean_and_ci95(f["ttft"])
        ratio = "1" if name == BASE else _ratio(f["ttft"], base["ttft"])
        cells = (f"{mean:.3f} ± {half:.3f}", ratio, f"{f['ttft_p99'].mean():.2f}", f"{f['latency'].mean():.2f}")
        print(f"| `{name}` | {' | '.join(cells)} | {f['preemptions'].mean():,.0f} |", end="")
        print(f" {f['hits'].mean():.0%} |" if hits else "")


def print_ages() -> None:
    """Mean TTFT over the age of the signals, with and without counting."""
    print("\n### Old signals: mean TTFT in seconds, conversations at 3.6 per second and replica\n")
    print("| router | exact | " + " | ".join(f"{age:g} s" for age in AGES_S) + " | not counted: ", end="")
    print(" | ".join(f"{age:g} s" for age in AGES_S) + " |")
    print("| --- " + "| ---: " * (1 + 2 * len(AGES_S)) + "|")
    for name in (name for name in ROUTERS if name not in LOOKING_AHEAD):
        cells = [figures(name, setting)["ttft"].mean() for setting in (Setting(), *_ages(True), *_ages(False))]
        print(f"| `{name}` | " + " | ".join(f"{value:.3f}" for value in cells) + " |")


def _ages(counts: bool) -> list[Setting]:
    return [Setting(staleness_s=age, counts_routed=counts) for age in AGES_S]


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> str:
    ratio = paired_ratio(a, b)
    return f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def draw(path: Path) -> None:
    """Mean TTFT over load and over the age of signals, as three panels with one scale."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    colors = dict(zip(DRAWN, ("#8c8c8c", "#56b4e9", "#0072b2", "#009e73", "#e69f00", "#d55e00"), strict=True))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.9), sharey=True, layout="constrained")
    panels: Sequence[tuple[str, str, Iterable[float], Sequence[Setting]]] = (
        ("exact signals", "requests per second and replica", RATES, [Setting(rate_per_replica=r) for r in RATES]),
        ("old signals, own requests counted", "seconds between snapshots", AGES_S, _ages(True)),
        ("old signals, not counted", "seconds between snapshots", AGES_S, _ages(False)),
    )
    for panel, (title, label, xs, settings) in zip(axes, panels, strict=True):
        for name, color in colors.items():
            ys = [figures(name, setting)["ttft"].mean() for setting in settings]
            width = 2.2 if name == "sal" else 1.5
            panel.plot(list(xs), ys, color=color, marker="o", markersize=3, linewidth=width, label=name)
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel(label)
        panel.set_yscale("log")
        panel.grid(axis="y", which="major", color="#e6e6e6", linewidth=0.8)
        panel.set_axisbelow(True)
    for panel in axes[1:]:
        panel.set_xscale("log")
        panel.set_xticks(AGES_S, [f"{age:g}" for age in AGES_S])
        panel.minorticks_off()
    axes[0].set_ylabel("mean time to first token, s")
    axes[0].set_yticks(TICKS_S, [f"{tick:g}" for tick in TICKS_S])
    axes[0].minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(DRAWN), frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the tables; draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    for title, setting in CELLS.items():
        rate = f"{setting.rate_per_replica:g} requests per second and replica"
        print_table(f"{title}, {rate}", setting)
    print_ages()
    if options.picture:
        draw(options.picture)


if __name__ == "__main__":
    main()
