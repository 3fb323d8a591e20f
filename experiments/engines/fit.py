"""Second step: fit a cost model to each engine's samples, leave out what is not sound, write the table.

    python -m experiments.engines.fit SAMPLES --out .

writes infermax_gym/cost/engines/table.jsonl and experiments/engines/left_out.csv below `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engines.combinations import MODELS, Combination, combinations, limits_of
from infermax_gym.cost.engines import EngineName
from infermax_gym.cost.fitting import Fit, fit_cost

MOST_MAPE, MOST_P95 = 0.12, 0.35  # held-out errors beyond which the form does not hold
_ARTEFACT = 1.05  # an engine in fewer bits that decodes slower than this against BF16 is one
_BANDWIDTH = {"a100": 2.039, "h100": 3.35, "h200": 4.8, "b200": 7.7, "l40s": 0.864, "rtx-pro-6000": 1.792}  # TB/s
_GIGABYTES = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.56}


@dataclass(frozen=True)
class Fitted:
    """An engine and its fit.

    Attributes:
        one: the engine.
        fit: to its samples.
        kv_tokens: KV memory in tokens.
        version: of the backend.
    """

    one: Combination
    fit: Fit
    kv_tokens: int
    version: str

    @property
    def decode_s(self) -> float:
        """One decode behind 1,000 tokens."""
        return float(_seconds(self.fit, num_decodes=1, context=1_000))


def _seconds(fit: Fit, num_decodes: int, context: int) -> float:
    from infermax_gym.cost.pieces import seconds_of

    row = [[1, num_decodes, 0, 0, 0, 0, 1, num_decodes * context, num_decodes]]
    return float(seconds_of(fit.cost, np.array(row, np.float64))[0])


def main() -> None:
    """Fit everything and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="folder that experiments.engines.query wrote")
    parser.add_argument("--out", type=Path, default=Path(), help="root of the checkout")
    options = parser.parse_args()
    found = {
        one: fitted(one, path) for one in combinations() if (path := options.samples / f"{one.label}.npz").exists()
    }
    reasons = _no_samples(options.samples)
    for one, made in found.items():
        reason = unsound(made, found)
        if reason:
            reasons[one.label] = reason
    rows = [row_of(made) for one, made in found.items() if one.label not in reasons]
    table = options.out / "infermax_gym" / "cost" / "engines" / "table.jsonl"
    table.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")
    with open(options.out / "experiments/engines/left_out.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["engine", "reason"])
        writer.writerows((one.label, reasons[one.label]) for one in combinations() if one.label in reasons)
    print(f"{len(rows)} engines, {len(reasons)} left out")


def _no_samples(folder: Path) -> dict[str, str]:
    """Engines without samples and the reasons."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("left_out_*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            found |= {row["engine"]: row["reason"] for row in csv.DictReader(file)}
    return found


def fitted(one: Combination, path: Path) -> Fitted:
    """Fit one engine."""
    samples = np.load(path)
    fit = fit_cost(samples["features"], samples["seconds"], name=one.label, num_devices=one.tp)
    return Fitted(one, fit, int(samples["kv_tokens"]), str(samples["version"]))


def unsound(made: Fitted, others: dict[Combination, Fitted]) -> str | None:
    """Why an engine does not go into the table; None if it does."""
    one, error = made.one, made.fit.errors["all"]
    if error.mape > MOST_MAPE or error.p95 > MOST_P95:
        return f"the form does not hold: held-out error {100 * error.mape:.0f} %, p95 {100 * error.p95:.0f} %"
    if MODELS[one.model].is_moe:
        return None
    floor_s = 1e-3 * MODELS[one.model].size_b * _GIGABYTES[one.weights] / (one.tp * _BANDWIDTH[one.gpu])
    if made.decode_s < 0.9 * floor_s:
        return f"decodes in {1e3 * made.decode_s:.1f} ms; reading the weights takes {1e3 * floor_s:.1f} ms"
    wide = others.get(replace(one, weights="bf16", kv="bf16"))
    if wide is not None and one.weights != "bf16" and made.decode_s > _ARTEFACT * wide.decode_s:
        return f"decodes in {1e3 * made.decode_s:.1f} ms, slower than BF16 ({1e3 * wide.decode_s:.1f} ms)"
    return None


def row_of(made: Fitted) -> dict[str, Any]:
    """The line of the table."""
    one, cost = made.one, made.fit.cost
    limits = limits_of(one.gpu, one.backend)
    name = EngineName(one.model, one.gpu, one.tp, one.backend, one.weights, one.kv)
    return {
        "name": str(name),
        "model": one.model,
        "gpu": one.gpu,
        "tp": one.tp,
        "backend": one.backend,
        "version": made.version,
        "weights": one.weights,
        "kv": one.kv,
        "kv_tokens": made.kv_tokens // limits.block_size * limits.block_size,
        "block_size": limits.block_size,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "max_num_seqs": limits.max_num_seqs,
        "terms": _short(cost.terms),
        "min_terms": _short(getattr(cost, "min_terms", ())),
        "errors": {region: [round(e.mape, 4), round(e.p95, 4)] for region, e in made.fit.errors.items()},
        "silicon": None,
    }


def _short(terms: Any) -> Any:
    """Whole numbers without a fraction, the others with six digits."""
    if isinstance(terms, tuple):
        return [_short(part) for part in terms]
    return int(terms) if float(terms).is_integer() else float(f"{terms:.6g}")


if __name__ == "__main__":
    main()
