"""Last step: the tables of docs/costs.md, from what ships and what is left out.

    python -m experiments.engines.page --out docs/costs.md

replaces what is between the page's markers.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from experiments.engines.combinations import MODELS
from infermax_gym.cost.engines import Engine, engines

BEGIN, END = "<!-- begin: python -m experiments.engines.page -->", "<!-- end -->"
_LEFT_OUT = Path(__file__).parent / "left_out.csv"
_REASONS = (
    (r"data missing", "the package has no measurement of an operator (attention with a window, or experts)"),
    (r"KV tokens$", "the weights leave no room for KV"),
    (r"form does not hold", "the fit misses held-out batches by more than 12 % on average or 35 % at p95"),
    (r"of these GPUs as on", "dense models prefill at least 1.5 times slower than on half as many of these GPUs"),
    (r"nobody would serve", "32 decodes take over 1.75 times what another backend takes on the same GPUs"),
    (r"^silicon", "TPOT is wrong by more than 30 % against real engines"),
    (r"slower than BF16|reading the weights", "decodes slower than BF16, or faster than the weights can be read"),
)


def main() -> None:
    """Write the tables into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the page; without it the tables are printed")
    options = parser.parse_args()
    if options.out is None:
        print(tables())
        return
    page = options.out.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    options.out.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{rest[rest.index(END) :]}", encoding="utf-8")


def tables() -> str:
    """All of them in Markdown."""
    found = list(engines().values())
    parts = [
        f"The table has {len(found)} engines: the GPUs that share a replica, by model and GPU.",
        _by_model(found),
        "Held-out error of the fits in percent: mean absolute error, its median and 90th percentile over engines.",
        _errors(found),
        "Against real engines, where measurements exist: median / 90th percentile of absolute errors in percent.",
        _silicon(found),
        "Combinations that were tried and left out (`experiments/engines/left_out.csv` names each):",
        _left_out(),
    ]
    return "\n\n".join(parts)


def _by_model(found: Iterable[Engine]) -> str:
    sizes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one in found:
        sizes[one.model, one.gpu].add(one.tensor_parallel)
    gpus = list(dict.fromkeys(gpu for _, gpu in sizes))
    lines = [f"| model | {' | '.join(gpus)} |", "|---" * (len(gpus) + 1) + "|"]
    for model in dict.fromkeys(model for model, _ in sizes):
        cells = (", ".join(map(str, sorted(sizes[model, gpu]))) if (model, gpu) in sizes else "" for gpu in gpus)
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _errors(found: Iterable[Engine]) -> str:
    kinds: dict[str, list[Engine]] = defaultdict(list)
    for one in found:
        kind = "mixture of experts" if MODELS[one.model].is_moe else f"dense, {one.weights_dtype}"
        kinds[kind].append(one)
    lines = ["| | engines | convex | all | decode | prefill | mixed | p95, all |", "|---|---|---|---|---|---|---|---|"]
    for kind, group in sorted(kinds.items()):
        cells = [_spread([100 * one.errors[r].mape for one in group]) for r in ("all", "decode", "prefill", "mixed")]
        last = _spread([100 * one.errors["all"].p95 for one in group])
        convex = sum(not one.min_terms for one in group)
        lines.append(f"| {kind} | {len(group)} | {convex} | {' | '.join(cells)} | {last} |")
    return "\n".join(lines)


def _silicon(found: Iterable[Engine]) -> str:
    lines = ["| engine | measurements | TPOT | TTFT |", "|---|---|---|---|"]
    for one in sorted(found, key=lambda one: one.name):
        if one.silicon is not None:
            check = one.silicon
            tpot = f"{100 * check.tpot_median:.0f} / {100 * check.tpot_p90:.0f}"
            ttft = f"{100 * check.ttft_median:.0f} / {100 * check.ttft_p90:.0f}"
            lines.append(f"| {one.name} | {check.num_rows} | {tpot} | {ttft} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{np.median(values):.1f} / {np.quantile(values, 0.9):.1f}"


def _left_out() -> str:
    with _LEFT_OUT.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        reason = next(text for pattern, text in _REASONS if re.search(pattern, row["reason"]))
        model, size, backend, *_ = row["engine"].split("_")
        groups[reason].append(f"{model}@{size} {backend}")
    lines = ["| why | how many | which |", "|---|---|---|"]
    for reason, names in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"| {reason} | {len(names)} | {_shortened(names)} |")
    return "\n".join(lines)


def _shortened(names: Iterable[str]) -> str:
    """Model and GPU of each, with the numbers of GPUs and the backends."""
    where: dict[str, set[str]] = defaultdict(set)
    for name in names:
        engine, backend = name.split(" ")
        model, gpu = re.fullmatch(r"(.+?)@(.+)x\d+", engine).groups()  # type: ignore[union-attr]
        where[f"{model}@{gpu}"].add(backend)
    return "; ".join(f"{engine} ({', '.join(sorted(backends))})" for engine, backends in sorted(where.items()))


if __name__ == "__main__":
    main()
