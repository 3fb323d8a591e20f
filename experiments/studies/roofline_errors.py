"""Errors of the roofline against measured iterations.

    python -m experiments.studies.roofline_errors
    python -m experiments.studies.roofline_errors --profiles FOLDER

The first compares with experiments/measurements. FOLDER has operator profiles, which are summed up to iterations, and
splitwise-sim's measurements (`*_dense.csv.gz`, `*_attention.csv.gz`, `*_per_sequence.csv.gz`,
`splitwise_perf_model.csv.gz`); they are other people's and not part of this project.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infermax_gym.cost.features import DECODE_CONTEXT, FEATURE_NAMES, NUM_TOKENS, PREFILL_CONTEXT
from infermax_gym.cost.roofline import Batch, Roofline, estimate, known_devices, known_models
from infermax_gym.cost.roofline.breakdown import seconds_of

MEASUREMENTS = Path(__file__).resolve().parent.parent / "measurements"
PROFILES = (
    ("rtx4090_llama-3.1-8b_tp1", "llama-3.1-8b", "rtx-4090", 1),
    ("rtxpro6000_llama-3.1-8b_tp1", "llama-3.1-8b", "rtx-pro-6000", 1),
    ("rtxpro6000_qwen3-32b_tp2", "qwen3-32b", "rtx-pro-6000", 2),
)
_TWICE_A_LAYER = "layernorm"
_ONCE = ("embedding", "final_layernorm")

Line = tuple[str, tuple[float, ...], float]
"""Kind of batch, features, measured seconds."""


def measured_here(model: str) -> Iterator[Line]:
    """Iterations of experiments/measurements."""
    with (MEASUREMENTS / f"h100_{model}.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            yield line["kind"], tuple(float(line[name]) for name in FEATURE_NAMES), float(line["seconds"])


def summed_profile(folder: Path, name: str, num_layers: int) -> Iterator[Line]:
    """Iterations summed up from an operator profile: a batch for each line of its attention table."""
    dense: dict[str, dict[float, float]] = defaultdict(dict)
    for line in _lines(folder / f"{name}_dense.csv.gz"):
        dense[line["layer"]][float(line["tokens"])] = float(line["time_us"])
    heads = {float(line["sequences"]): float(line["time_us"]) for line in _heads(folder, name)}
    for line in _lines(folder / f"{name}_attention.csv.gz"):
        yield _iteration(line, dense, heads, num_layers)


def _heads(folder: Path, name: str) -> Iterator[dict[str, str]]:
    return (line for line in _lines(folder / f"{name}_per_sequence.csv.gz") if line["layer"] == "lm_head")


def _iteration(
    line: dict[str, str], dense: dict[str, dict[float, float]], heads: dict[float, float], num_layers: int
) -> Line:
    chunk, resident, decodes, context = (
        int(float(line[name])) for name in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    )
    batch = Batch(int(chunk > 0), chunk, resident, decodes, context)
    layer_us, once_us = float(line["time_us"]), _at(heads, batch.num_prefills + decodes)
    for operator, times in dense.items():
        microseconds = _at(times, batch.num_tokens)
        if operator in _ONCE:
            once_us += microseconds
        else:
            layer_us += microseconds * (2 if operator == _TWICE_A_LAYER else 1)
    kind = "mixed" if chunk and decodes else "prefill" if chunk else "decode"
    return kind, batch.features, (num_layers * layer_us + once_us) * 1e-6


def _at(times: dict[float, float], size: float) -> float:
    sizes = sorted(times)
    return float(np.interp(size, sizes, [times[size] for size in sizes]))


def splitwise(folder: Path, device: str, num_devices: int) -> Iterator[Line]:
    """Prefills and decodes of Llama-2 70B that splitwise-sim measured; the median of repeats."""
    found: dict[tuple[str, Batch], list[float]] = defaultdict(list)
    for line in _lines(folder / "splitwise_perf_model.csv.gz"):
        if (line["model"], line["hardware"], line["tensor_parallel"]) != (
            "llama2-70b",
            f"{device}-80gb",
            str(num_devices),
        ):
            continue
        prompt, size = int(line["prompt_size"]), int(line["batch_size"])
        context = prompt + int(line["token_size"]) // 2
        found["prefill", Batch(size, prompt)].append(float(line["prompt_time"]))
        found["decode", Batch(num_decodes=size, context=context)].append(float(line["token_time"]))
    for (kind, batch), times in found.items():
        yield kind, batch.features, float(np.median(times)) * 1e-3


def _lines(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def report(title: str, roofline: Roofline, lines: Iterator[Line], without: tuple[str, ...] = ()) -> None:
    """Print mean absolute percentage error, 95th percentile and mean signed error by kind of batch."""
    errors: dict[str, list[float]] = defaultdict(list)
    most = roofline.memory.num_kv_tokens
    parts = [part for part in roofline.parts if part.name not in without]
    for kind, features, seconds in lines:
        if features[NUM_TOKENS] + features[PREFILL_CONTEXT] + features[DECODE_CONTEXT] > most:
            continue  # no engine can have this batch
        error = sum(seconds_of(part, features) for part in parts) / seconds - 1.0
        errors[kind].append(error)
        errors["all"].append(error)
    for kind in ("decode", "prefill", "mixed", "all"):
        if errors[kind]:
            found = 100.0 * np.array(errors[kind])
            mape, p95 = np.mean(np.abs(found)), np.percentile(np.abs(found), 95)
            print(f"| {title} | {kind} | {found.size:,} | {mape:.1f} | {p95:.1f} | {np.mean(found):+.1f} |")


def main() -> None:
    """Compare with all measurements that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=Path, help="folder with operator profiles")
    folder = parser.parse_args().profiles
    models, devices = known_models(), known_devices()
    print("| measured | batches | n | MAPE % | p95 % | mean error % |\n|---|---|---|---|---|---|")
    for model in ("llama-3.2-1b", "llama-3.1-8b", "qwen3-8b", "qwen3-32b"):
        report(f"{model}, H100", estimate(models[model], devices["h100"]), measured_here(model))
    if folder is None:
        return
    for name, model, device, num_devices in PROFILES:
        roofline = estimate(models[model], devices[device], num_devices)
        lines = summed_profile(folder, name, models[model].num_layers)
        report(f"{model}, {num_devices} x {device}, operators", roofline, lines, without=("all-reduce",))
    for device in ("a100", "h100"):
        for num_devices in (2, 4, 8):
            roofline = estimate(models["llama-2-70b"], devices[device], num_devices, max_num_batched_tokens=512)
            report(
                f"llama-2-70b, {num_devices} x {device}, splitwise", roofline, splitwise(folder, device, num_devices)
            )


if __name__ == "__main__":
    main()
