"""Second step: fit a cost model to each engine's samples, leave out what is not sound, write the table.

    python -m experiments.engines.fit SAMPLES --out .

writes infermax_gym/cost/engines/table.jsonl and experiments/engines/left_out.csv below `--out`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engines.combinations import BACKENDS, MODELS, Combination, combinations, limits_of
from infermax_gym.cost.engines import EngineName
from infermax_gym.cost.fitting import Fit, fit_cost
from infermax_gym.cost.pieces import seconds_of

MOST_MAPE, MOST_P95 = 0.12, 0.35  # held-out errors beyond which the form does not hold
_ARTEFACT = 1.05  # fewer bits that decode slower than this against BF16
_SLOWER_BACKEND = 1.75  # a mixture of experts whose decodes take so much longer than another backend's
_SLOWER_SPLIT = 1.5  # GPUs whose prefills take so much longer than on half as many, over all dense models
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

    @cached_property
    def steps_s(self) -> tuple[float, float, float]:
        """Seconds of 1 decode and of 32 decodes behind 1,000 tokens each, and of a prompt of 2,048 tokens."""
        batches = [(1, n, 0, 0, 0, 0, 1, 1_000 * n, n) for n in (1, 32)] + [(1, 2_048, 1, 2_048**2, 1, 0, 0, 0, 0)]
        one, many, prefill = seconds_of(self.fit.cost, np.array(batches, np.float64)).tolist()
        return one, many, prefill


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


def unsound(made: Fitted, others: Mapping[Combination, Fitted]) -> str | None:
    """Why an engine does not go into the table; None if it does."""
    error = made.fit.errors["all"]
    if error.mape > MOST_MAPE or error.p95 > MOST_P95:
        return f"the form does not hold: held-out error {100 * error.mape:.0f} %, p95 {100 * error.p95:.0f} %"
    return _badly_split(made.one, others) or (_odd_experts if MODELS[made.one.model].is_moe else _odd_weights)(
        made, others
    )


def _badly_split(one: Combination, others: Mapping[Combination, Fitted]) -> str | None:
    """Whether all-reduces make so many of these GPUs slower than half of them; all dense models have a say."""
    if one.tp == 1:
        return None
    ratios = [
        made.steps_s[2] / others[half].steps_s[2]
        for other, made in others.items()
        if (other.gpu, other.tp) == (one.gpu, one.tp)
        and not MODELS[other.model].is_moe
        and (half := replace(other, tp=other.tp // 2)) in others
    ]
    ratio = float(np.median(ratios)) if ratios else 0.0
    if ratio <= _SLOWER_SPLIT:
        return None
    return f"prefills of dense models take {ratio:.1f} times as long on {one.tp} of these GPUs as on {one.tp // 2}"


def _odd_experts(made: Fitted, others: Mapping[Combination, Fitted]) -> str | None:
    """Whether another backend decodes much faster on the same GPUs."""
    alike = [replace(made.one, backend=backend) for backend in BACKENDS]
    fastest = min((others[one] for one in alike if one in others), key=lambda other: other.steps_s[1])
    if made.steps_s[1] <= _SLOWER_BACKEND * fastest.steps_s[1]:
        return None
    times = f"{1e3 * made.steps_s[1]:.1f} ms, with {fastest.one.backend} {1e3 * fastest.steps_s[1]:.1f} ms"
    return f"32 decodes take {times}: a kernel nobody would serve with"


def _odd_weights(made: Fitted, others: Mapping[Combination, Fitted]) -> str | None:
    """Whether a dense model decodes faster than its weights can be read, or slower than in BF16."""
    one = made.one
    decode_ms = 1e3 * made.steps_s[0]
    floor_ms = MODELS[one.model].size_b * _GIGABYTES[one.weights] / (one.tp * _BANDWIDTH[one.gpu])
    if decode_ms < 0.9 * floor_ms:
        return f"decodes in {decode_ms:.1f} ms; reading the weights takes {floor_ms:.1f} ms"
    wide = others.get(replace(one, weights="bf16", kv="bf16"))
    if wide is not None and one.weights != "bf16" and decode_ms > _ARTEFACT * 1e3 * wide.steps_s[0]:
        return f"decodes in {decode_ms:.1f} ms, slower than BF16 ({1e3 * wide.steps_s[0]:.1f} ms)"
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
        "min_terms": _short(cost.min_terms),
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
