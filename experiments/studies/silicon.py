"""Replays of measured serving benchmarks: how far engines of the table are from real ones.

    python -m experiments.studies.silicon SILICON_SAMPLE.csv

The file is `systems/silicon_sample.csv` in the wheel of aiconfigurator-core 0.12.0 (facts of the public InferenceMAX
runs). A benchmark is a closed loop: C clients send 10 C prompts, lengths uniform in [0.8 L, L]. Rows of the H200 and
the B300 were looked at by nobody who fitted anything.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost.engines import Engine, EngineName, engines
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.streams import stream
from infermax_gym.workload import Workload

_MODELS = {
    "Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Llama-3.1-70B": "llama-3.1-70b",
    "Qwen3-32B": "qwen3-32b",
    "gpt-oss-120b": "gpt-oss-120b",
    "Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
}
_WEIGHTS = {"": "bf16", "bf16": "bf16", "fp8": "fp8", "nvfp4": "nvfp4"}
_NATIVE = {"gpt-oss-120b": "mxfp4"}
_MIXTURES = ("gpt-oss-120b", "qwen3-235b-a22b")
_POLICY = {"vllm": "vllm-v1-full-isl", "sglang": "vllm-v1-full-isl", "trtllm": "trt-max-utilization"}
_BUDGET = {"vllm": 8_192, "sglang": 8_192, "trtllm": 16_384}  # of the benchmark, not of the backends' defaults
_HELD_OUT = ("h200", "b300")
_SHORTEST = 0.8  # of the stated length


@dataclass(frozen=True)
class Row:
    """A measured benchmark.

    Attributes:
        engine: of the table.
        num_clients: C.
        num_prompt_tokens: the longest prompt.
        num_output_tokens: the longest output.
        ttft_s: measured mean.
        tpot_s: measured mean.
    """

    engine: Engine
    num_clients: int
    num_prompt_tokens: int
    num_output_tokens: int
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True)
class Replayed:
    """A benchmark and what the engine of the table makes of it."""

    row: Row
    ttft_s: float
    tpot_s: float

    @property
    def errors(self) -> tuple[float, float]:
        """Relative errors of TPOT and TTFT, with sign."""
        return self.tpot_s / self.row.tpot_s - 1.0, self.ttft_s / self.row.ttft_s - 1.0


def read(path: Path) -> Iterator[Row]:
    """Rows whose engine is in the table: aggregated serving, no data parallel attention, one pipeline stage."""
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            engine = _engine(line)
            if engine is None:
                continue
            clients = re.search(r"silicon_concurrency=(\d+)", line["silicon_data_source"])
            ttft_s, tpot_s = float(line["silicon_ttft_ms"] or 0) / 1e3, float(line["silicon_tpot_ms"] or 0) / 1e3
            if ttft_s > 0.0 and tpot_s > 0.0:
                clients_of = int(clients[1]) if clients else int(line["batch_size"])
                yield Row(engine, clients_of, int(line["isl"]), int(line["osl"]), ttft_s, tpot_s)


def _engine(line: dict[str, str]) -> Engine | None:
    model = _MODELS.get(line["model_path"].rpartition("/")[2])
    plain = line["mode"] == "agg" and line["attention_dp_size"] in ("", "1") and line["pp_size"] in ("", "1")
    if model is None or not plain or int(line["moe_ep_size"] or 1) > 1:
        return None
    weights = _NATIVE.get(model) or _WEIGHTS.get(line["gemm_quant_mode"] or line["precision"])
    gpu = line["system"].removesuffix("_sxm")
    if weights is None:
        return None
    for kv in ("fp8", "bf16") if weights in ("fp8", "nvfp4") else ("bf16",):
        name = EngineName(model, gpu, int(line["tp_size"] or 1), line["backend"], weights, kv)
        if str(name) in engines():
            return engines()[str(name)]
    return None


def replay(row: Row, turnaround_s: float, seed: int = 0) -> Replayed:
    """Serve the benchmark in closed loop: a client sends its next prompt a turnaround after its last token.

    With C sequences at most and requests served in order, the k-th request is sent when the (k - C)-th ends.
    """
    rng, count = stream(seed, "workload"), 10 * row.num_clients
    prompts = rng.integers(round(_SHORTEST * row.num_prompt_tokens), row.num_prompt_tokens + 1, count)
    outputs = rng.integers(max(1, round(_SHORTEST * row.num_output_tokens)), row.num_output_tokens + 1, count)
    engine = row.engine
    config = EngineConfig(
        cost=engine.cost,
        num_kv_tokens=engine.num_kv_tokens,
        block_size=engine.block_size,
        max_num_batched_tokens=_BUDGET[engine.backend],
        max_num_seqs=row.num_clients,
    )
    result = simulate(Workload(np.zeros(count), prompts, outputs), config, POLICIES[_POLICY[engine.backend]])
    sent = np.concatenate([np.zeros(row.num_clients), np.sort(result.finish_s)[: count - row.num_clients]])
    ttft_s = result.first_token_s - sent + turnaround_s
    tpot_s = (result.finish_s - result.first_token_s) / np.maximum(outputs - 1, 1)
    return Replayed(row, float(np.mean(ttft_s)), float(np.mean(tpot_s)))


def percentiles(found: Sequence[Replayed], which: int) -> str:
    """Median and 90th percentile of absolute errors, and the median with its sign, in percent."""
    errors = 100.0 * np.array([one.errors[which] for one in found])
    size = np.abs(errors)
    return f"{np.median(size):.0f} / {np.quantile(size, 0.9):.0f} ({np.median(errors):+.0f})"


def table_of(found: Sequence[Replayed]) -> Table:
    """Errors by backend, kind of model, model and GPU."""
    table = Table(
        "backend", "model", "GPU", "engines", "rows", "TPOT %", "TTFT %", title="median / p90 (signed median)"
    )
    groups: dict[tuple[str, str, str], list[Replayed]] = {}
    for one in found:
        engine = one.row.engine
        kind = "all mixtures" if engine.model in _MIXTURES else "all dense"
        held = "held out (H200)" if engine.gpu in _HELD_OUT else "others"
        for key in (
            (engine.backend, kind, "all"),
            (engine.backend, kind, held),
            (engine.backend, f"{engine.model} {engine.weights_dtype}", engine.gpu),
        ):
            groups.setdefault(key, []).append(one)
    for key, members in sorted(groups.items()):
        names = {one.row.engine.name for one in members}
        table.add_row(*key, str(len(names)), str(len(members)), percentiles(members, 0), percentiles(members, 1))
    return table


def main() -> None:
    """Replay every row, or every N-th, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="silicon_sample.csv")
    parser.add_argument("--every", type=int, default=1, help="only every N-th row")
    parser.add_argument("--turnaround", type=float, default=0.0, help="seconds between a client's answer and its next")
    parser.add_argument("--out", type=Path, help="a CSV with a line for each row")
    options = parser.parse_args()
    rows = list(read(options.file))[:: options.every]
    console = Console(width=140)
    found = [replay(row, options.turnaround) for row in track(rows, "replaying", console=Console(stderr=True))]
    console.print(table_of(found))
    if options.out:
        write(found, options.out)


def write(found: Sequence[Replayed], path: Path) -> None:
    """The errors, a line for each benchmark."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["engine", "clients", "isl", "osl", "tpot_s", "tpot_error", "ttft_s", "ttft_error"])
        for one in found:
            row = one.row
            tpot, ttft = one.errors
            sizes = (row.engine.name, row.num_clients, row.num_prompt_tokens, row.num_output_tokens)
            writer.writerow([*sizes, row.tpot_s, f"{tpot:.4f}", row.ttft_s, f"{ttft:.4f}"])


if __name__ == "__main__":
    main()
