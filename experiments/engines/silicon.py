"""Last step: hold the table against measured benchmarks, and leave out what they contradict.

    python -m experiments.engines.silicon SILICON_SAMPLE.csv --out .

The file is systems/silicon_sample.csv of aiconfigurator-core 0.12.0; `experiments.studies.silicon` says how its rows
are replayed. Writes the `silicon` field of infermax_gym/cost/engines/table.jsonl and prints each engine's errors.
Engines whose TPOT is wrong by more than 30 % in the median move to experiments/engines/left_out.csv, and with them
those that rest on the same operators and have no measurement of their own. Measurements of the H200 choose nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies.silicon import HELD_OUT, read, replays, without_artefacts

MOST_TPOT_ERROR = 0.3


def main() -> None:
    """Replay, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="silicon_sample.csv")
    parser.add_argument("--out", type=Path, help="root of the checkout; without it nothing is written")
    options = parser.parse_args()
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in replays(without_artefacts(read(options.measured))[0], {}):
        errors[str(one.row.engine)].append(one.errors)
    found = {name: _figures(pairs) for name, pairs in errors.items()}
    for name, figures in found.items():
        print(name, figures, f"signed TPOT {float(np.median([tpot for tpot, _ in errors[name]])):+.3f}")
    if options.out is not None:
        _write(options.out, found)


def _figures(pairs: list[tuple[float, float]]) -> list[float]:
    """Number of measurements, median and 90th percentile of absolute errors: TPOT, then TTFT."""
    absolute = np.abs(np.array(pairs))
    spread = [float(np.quantile(absolute[:, i], q)) for i in (0, 1) for q in (0.5, 0.9)]
    return [len(pairs), *(round(value, 3) for value in spread)]


def contradicted(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Names of engines to leave out, with the reason."""
    wrong = {}
    for row in rows:
        if row["silicon"] is not None and row["silicon"][1] > MOST_TPOT_ERROR and row["gpu"] not in HELD_OUT:
            number, tpot = row["silicon"][:2]
            wrong[row["name"]] = f"silicon: TPOT is wrong by {100 * tpot:.0f} % in the median of {number} rows"
    kin = {_operators(row): row["name"] for row in rows if row["name"] in wrong}
    for row in rows:
        if row["silicon"] is None and _operators(row) in kin:
            wrong[row["name"]] = f"silicon: rests on the operators of {kin[_operators(row)]}, which was wrong"
    return wrong


def _operators(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["model"], row["gpu"], row["backend"], row["weights"]


def _write(root: Path, found: Mapping[str, list[float]]) -> None:
    table, left_out = root / "infermax_gym/cost/engines/table.jsonl", root / "experiments/engines/left_out.csv"
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["silicon"] = found.get(row["name"])
    wrong = contradicted(rows)
    kept = [row for row in rows if row["name"] not in wrong]
    table.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in kept), encoding="utf-8")
    with left_out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            if row["name"] in wrong:
                label = f"{row['model']}_{row['gpu']}x{row['tp']}_{row['backend']}_{row['weights']}_{row['kv']}"
                writer.writerow([label, wrong[row["name"]]])


if __name__ == "__main__":
    main()
