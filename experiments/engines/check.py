"""Third step: hold the table against end-to-end measurements, and leave out what they contradict.

    python -m experiments.engines.check SILICON_SAMPLE.csv --out .

replays the file's benchmarks (see `experiments.studies.silicon`), writes each engine's errors into
infermax_gym/cost/engines/table.jsonl, and moves engines whose TPOT is off by more than a quarter in the median to
experiments/engines/left_out.csv, with their relatives: the same weights on the same GPU and backend, of the same model
in other numbers of GPUs, where those have no measurements that speak for them.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.silicon import Host, Replayed, read, replay, without_artefacts
from infermax_gym.cost.engines import Engine, EngineName, engines

MOST_TPOT_ERROR = 0.25


def errors_of(found: Sequence[Replayed]) -> dict[str, list[float]]:
    """By engine: benchmarks, median and 90th percentile of the absolute error of TPOT, and of TTFT."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        groups.setdefault(one.row.engine.name, []).append(one.errors)
    table = {}
    for name, errors in groups.items():
        size = np.abs(errors)
        middle, high = np.median(size, axis=0), np.quantile(size, 0.9, axis=0)
        figures = (middle[0], high[0], middle[1], high[1])
        table[name] = [len(errors), *(round(float(value), 4) for value in figures)]
    return table


def contradicted(errors: Mapping[str, Sequence[float]], table: Mapping[str, Engine]) -> dict[str, str]:
    """Engines to leave out, with the reason."""
    reasons = {
        name: f"TPOT is off by {figures[1]:.0%} in the median of {figures[0]:.0f} measured benchmarks"
        for name, figures in errors.items()
        if figures[1] > MOST_TPOT_ERROR
    }
    for failed in list(reasons):
        for name, one in table.items():
            if _kin(one) == _kin(table[failed]) and name not in errors:
                reasons[name] = f"the same operators as {failed}, which measured benchmarks contradict"
    return reasons


def _kin(one: Engine) -> tuple[str, str, str, str]:
    return one.model, one.gpu, one.backend, one.weights_dtype


def main() -> None:
    """Replay, then write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="silicon_sample.csv")
    parser.add_argument("--out", type=Path, default=Path(), help="root of the checkout")
    options = parser.parse_args()
    rows, _ = without_artefacts(read(options.file))
    errors = errors_of([replay(row, Host()) for row in rows])
    reasons = contradicted(errors, engines())
    table = options.out / "infermax_gym" / "cost" / "engines" / "table.jsonl"
    lines = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    kept = [{**line, "silicon": errors.get(_name(line))} for line in lines if _name(line) not in reasons]
    table.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept), encoding="utf-8")
    with open(options.out / "experiments/engines/left_out.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(sorted(reasons.items()))
    print(f"{len(errors)} engines held against measurements, {len(reasons)} left out, {len(kept)} kept")
    for name, reason in sorted(reasons.items()):
        print(f"  {name}: {reason}")


def _name(line: Mapping[str, Any]) -> str:
    return str(EngineName(line["model"], line["gpu"], line["tp"], line["backend"], line["weights"], line["kv"]))


if __name__ == "__main__":
    main()
