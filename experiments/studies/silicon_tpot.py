"""Errors of the roofline's time per output token against InferenceMAX's measurements.

    python -m experiments.studies.silicon_tpot silicon_sample.csv

The file comes with aiconfigurator-core 0.12.0 and is not part of this project. C clients send requests of 0.9 ISL and
0.9 OSL tokens one after the other; on average a share of C chunks / OSL of the iterations also prefills, in chunks of
8,192 tokens at most. That is a mean, not a replay: no waiting, no limit of the KV.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from infermax_gym.cost.roofline import Roofline, ShapeError, estimate, known_devices, known_models
from infermax_gym.cost.roofline.breakdown import seconds_of

_MODELS = {
    "Llama-3.1-70B": "llama-3.1-70b",
    "Llama-3.3-70B": "llama-3.3-70b",
    "Qwen3-32B": "qwen3-32b",
    "gpt-oss-120b": "gpt-oss-120b",
    "Qwen3-235B": "qwen3-235b-a22b",
}
_DEVICES = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "b300_sxm": "b300"}
_WEIGHTS = {"fp8": "fp8", "fp8_block": "fp8", "bfloat16": "bf16", "nvfp4": "fp4"}
_MEAN_LENGTH = 0.9
_CHUNK = 8192


def main() -> None:
    """Compare and print the median error of each backend, model, device and format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    errors: dict[tuple[str, ...], list[float]] = defaultdict(list)
    with parser.parse_args().file.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            roofline = _roofline(line)
            if roofline is not None:
                key: tuple[str, ...] = (line["backend"], roofline.shape.name, roofline.device.name, roofline.weights)
                errors[key].append(_tpot_s(roofline, line) / (1e-3 * float(line["silicon_tpot_ms"])) - 1.0)
    print("| backend | model | device | weights | n | median error % | p90 % | median signed % |\n" + "|---" * 8 + "|")
    for name, found in sorted(errors.items()):
        percent = 100.0 * np.array(found)
        spread = f"{np.median(np.abs(percent)):.1f} | {np.percentile(np.abs(percent), 90):.1f}"
        print(f"| {' | '.join(name)} | {percent.size} | {spread} | {np.median(percent):+.1f} |")


def _roofline(line: Mapping[str, str]) -> Roofline | None:
    """The roofline of a measurement; None for models, systems and ways to share a model that it does not describe."""
    model = next((name for part, name in _MODELS.items() if part in line["model_path"]), None)
    weights = "mxfp4" if model == "gpt-oss-120b" else _WEIGHTS.get(line["gemm_quant_mode"])
    alone = all(int(line[name] or 1) == 1 for name in ("pp_size", "attention_dp_size"))
    if model is None or weights is None or line["system"] not in _DEVICES or line["mode"] != "agg" or not alone:
        return None
    kv = "fp8" if model.startswith("llama") and weights != "bf16" else "bf16"
    device = known_devices()[_DEVICES[line["system"]]]
    try:
        return estimate(known_models()[model], device, int(line["tp_size"]), weights=weights, kv=kv)
    except ShapeError:
        return None


def _tpot_s(roofline: Roofline, line: Mapping[str, str]) -> float:
    """Mean seconds of an iteration while so many clients are served."""
    clients = int(line["batch_size"])
    prompt, output = _MEAN_LENGTH * int(line["isl"]), _MEAN_LENGTH * int(line["osl"])
    decodes = (1.0, clients * (prompt + output / 2.0), float(clients))
    prefill_tokens = clients * prompt / output  # of a mean iteration
    chunk = min(prompt, _CHUNK)
    share = min(1.0, prefill_tokens / chunk)
    tokens, count = prefill_tokens / share, clients / output / share
    alone = (1.0, float(clients), 0.0, 0.0, 0.0, 0.0, *decodes)
    beside = (1.0, clients + tokens, 1.0, count * prompt**2, max(1.0, count), 0.0, *decodes)
    means = [sum(seconds_of(part, features) for part in roofline.parts) for features in (alone, beside)]
    return (1.0 - share) * means[0] + share * means[1]


if __name__ == "__main__":
    main()
