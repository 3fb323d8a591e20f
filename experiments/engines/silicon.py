"""Check the table against end-to-end measurements: silicon_sample.csv of aiconfigurator-core 0.12.0.

    python -m experiments.engines.silicon VENV/.../aiconfigurator_core/systems/silicon_sample.csv --gpu h100 --out .

A benchmark of C clients is replayed as a closed batch of 10 C requests with at most C running, lengths uniform in
[0.8 L, L]; the first token of a request counts from when its client's last one ended. Writes the `silicon` field of
infermax_gym/cost/engines/table.jsonl and prints each engine's errors. Engines whose TPOT is wrong by more than 30 % in
the median move to experiments/engines/left_out.csv, but none of the H200, whose measurements choose nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.engines.combinations import GPUS, MODELS
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost.engines import Engine, engines
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.workload import Workload

_DTYPES = {"": ("bf16",), "fp8": ("fp8",), "fp4": ("nvfp4", "mxfp4")}
_FEWEST_ROWS = 5
MOST_TPOT_ERROR = 0.3
_TEST_GPU = "h200"
_ALIASES = {"meta-llama/Llama-3.1-70B": "llama-3.1-70b", "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b"}
_ALIASES |= {"nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b"}


def main() -> None:
    """Replay, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="silicon_sample.csv")
    parser.add_argument("--gpu", choices=list(GPUS), help="only this GPU")
    parser.add_argument("--backend", help="only this backend")
    parser.add_argument("--out", type=Path, help="root of the checkout; without it nothing is written")
    options = parser.parse_args()
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows(options.measured):
        one = engine_of(row)
        if one is None or options.gpu not in (None, one.gpu) or options.backend not in (None, one.backend):
            continue
        tpot_ms, ttft_ms = closed_batch(one, int(row["batch_size"]), int(row["isl"]), int(row["osl"]))
        errors[one.name].append(
            (tpot_ms / float(row["silicon_tpot_ms"]) - 1.0, ttft_ms / float(row["silicon_ttft_ms"]) - 1.0)
        )
    found = {name: _figures(pairs) for name, pairs in errors.items() if len(pairs) >= _FEWEST_ROWS}
    for name, figures in found.items():
        print(name, figures, f"signed TPOT {float(np.median([tpot for tpot, _ in errors[name]])):+.3f}")
    if options.out is not None:
        _write(options.out, found)


def _rows(path: Path) -> Iterable[Mapping[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def engine_of(row: Mapping[str, str]) -> Engine | None:
    """The engine of the table that a measurement is of; None if there is none, or if it is no closed loop."""
    models = {model.path: name for name, model in MODELS.items()} | _ALIASES
    model, gpu = models.get(row["model_path"]), {system: gpu for gpu, (system, _) in GPUS.items()}.get(row["system"])
    plain = row["moe_ep_size"] in ("", "0", "1") and row["attention_dp_size"] in ("", "0", "1")
    concurrency = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
    if model is None or gpu is None or row["mode"] != "agg" or not plain or concurrency is None:
        return None
    if not (row["silicon_tpot_ms"] and row["silicon_ttft_ms"]):
        return None
    for one in engines().values():
        key = (one.model, one.gpu, one.tensor_parallel, one.backend)
        if key == (model, gpu, int(row["tp_size"]), row["backend"]) and one.weights_dtype in _DTYPES.get(
            row["precision"], ()
        ):
            return one
    return None


def closed_batch(one: Engine, concurrency: int, prompt: int, output: int) -> tuple[float, float]:
    """Mean TPOT and mean TTFT in milliseconds of so many clients with lengths up to those."""
    rng = np.random.default_rng(0)
    count = 10 * concurrency
    prompts, outputs = (rng.integers(max(1, round(0.8 * most)), most + 1, count) for most in (prompt, output))
    workload = Workload(np.zeros(count), prompts, outputs)
    config = EngineConfig(
        one.cost, one.num_kv_tokens, one.block_size, one.max_num_batched_tokens, min(concurrency, one.max_num_seqs)
    )
    done = simulate(workload, config, POLICIES["vllm-v1"])
    sent_s = np.concatenate([np.zeros(concurrency), np.sort(done.finish_s)[: count - concurrency]])
    tpot_s = (done.finish_s - done.first_token_s) / np.maximum(outputs - 1, 1)
    return 1e3 * float(tpot_s.mean()), 1e3 * float((np.sort(done.first_token_s) - sent_s).mean())


def _figures(pairs: list[tuple[float, float]]) -> list[float]:
    """Number of measurements, median and 90th percentile of absolute errors: TPOT, then TTFT."""
    absolute = np.abs(np.array(pairs))
    spread = [float(np.quantile(absolute[:, i], q)) for i in (0, 1) for q in (0.5, 0.9)]
    return [len(pairs), *(round(value, 3) for value in spread)]


def _write(root: Path, found: Mapping[str, list[float]]) -> None:
    table, left_out = root / "infermax_gym/cost/engines/table.jsonl", root / "experiments/engines/left_out.csv"
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    kept: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for row in rows:
        row["silicon"] = found.get(row["name"], row["silicon"])
        wrong = row["silicon"] is not None and row["silicon"][1] > MOST_TPOT_ERROR and row["gpu"] != _TEST_GPU
        (failed if wrong else kept).append(row)
    table.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in kept), encoding="utf-8")
    with left_out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in failed:
            label = f"{row['model']}_{row['gpu']}x{row['tp']}_{row['backend']}_{row['weights']}_{row['kv']}"
            number, tpot = row["silicon"][:2]
            writer.writerow([label, f"silicon: TPOT is wrong by {100 * tpot:.0f} % in the median of {number} rows"])


if __name__ == "__main__":
    main()
