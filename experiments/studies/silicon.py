"""Replays of measured serving benchmarks: how far engines of the table are from real ones.

    python -m experiments.studies.silicon SILICON_SAMPLE.csv

The file is `systems/silicon_sample.csv` in the wheel of aiconfigurator-core 0.12.0. Rows of InferenceMAX state their
protocol: C clients in closed loop send 10 C prompts, both lengths uniform in [0.8 L, L]. The file's other rows do not,
and are shown apart. The operators behind the table know nothing of the host, so what it adds is fitted here, one set of
constants for a backend: on rows of the H100 and the B200 alone. Rows of the H200 were never fitted to anything.

Artefacts are named before any replay, by measured figures alone. Of one engine and one pair of lengths, TPOT must not
fall by more than a tenth while clients are added: the fewest rows are left out that make this so. And a row whose TPOT
is that of a quarter of its clients, but whose TTFT is ten times theirs, ran under a limit on sequences that the file
does not state.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from rich.table import Table

from experiments.studies.sections import markdown, show
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.cost import CostModel
from infermax_gym.cost.engines import EngineName, engines
from infermax_gym.cost.roofline import ShapeError, estimate, known_devices, known_models
from infermax_gym.engine import EngineConfig, simulate
from infermax_gym.streams import stream
from infermax_gym.workload import Workload, closed_loop

_MODELS = {
    "Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Llama-3.1-70B": "llama-3.1-70b",
    "Qwen3-32B": "qwen3-32b",
    "gpt-oss-120b": "gpt-oss-120b",
    "Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
}
_WEIGHTS = {"": "bf16", "bf16": "bf16", "bfloat16": "bf16", "fp8": "fp8", "nvfp4": "nvfp4"}
_NATIVE = {"gpt-oss-120b": "mxfp4"}
_MIXTURES = ("gpt-oss-120b", "qwen3-235b-a22b")
_POLICY = {"vllm": "vllm", "sglang": "vllm", "trtllm": "trt-max-utilization"}
_BUDGET = {"vllm": 8_192, "sglang": 8_192, "trtllm": 16_384}  # of the benchmark, not of the backends' defaults
_BLOCK_SIZE = {"vllm": 16, "sglang": 1, "trtllm": 32}
HELD_OUT = ("h200", "b300")
_SHORTEST = 0.8  # of the stated length


@dataclass(frozen=True)
class Row:
    """A measured benchmark.

    Attributes:
        engine: by name, whether the table has it or not.
        num_clients: C.
        num_prompt_tokens: the longest prompt.
        num_output_tokens: the longest output.
        ttft_s: measured mean.
        tpot_s: measured mean.
        is_inferencemax: whether the protocol is known.
    """

    engine: EngineName
    num_clients: int
    num_prompt_tokens: int
    num_output_tokens: int
    ttft_s: float
    tpot_s: float
    is_inferencemax: bool

    @property
    def is_held_out(self) -> bool:
        """Whether nothing was fitted to it."""
        return self.engine.gpu in HELD_OUT


@dataclass(frozen=True)
class Host:
    """What the host adds, in seconds.

    Attributes:
        iteration_s: to each iteration.
        send_s: to each request, before the scheduler sees it.
    """

    iteration_s: float = 0.0
    send_s: float = 0.0

    def on(self, cost: CostModel) -> CostModel:
        """A cost model with the host in it."""
        return replace(cost, terms=(*cost.terms, ((self.iteration_s, *[0.0] * 8),)))


@dataclass(frozen=True)
class Replayed:
    """A benchmark and what the simulator makes of it."""

    row: Row
    ttft_s: float
    tpot_s: float

    @property
    def errors(self) -> tuple[float, float]:
        """Relative errors of TPOT and TTFT, with sign."""
        return self.tpot_s / self.row.tpot_s - 1.0, self.ttft_s / self.row.ttft_s - 1.0


def read(path: Path) -> list[Row]:
    """Rows of known models: aggregated serving, no data parallel attention, one pipeline stage.

    Repeats of a benchmark become one row, their geometric mean.
    """
    groups: dict[tuple[EngineName, int, int, int, bool], list[tuple[float, float]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            engine, source = _engine(line), line["silicon_data_source"]
            times = float(line["silicon_ttft_ms"] or 0) / 1e3, float(line["silicon_tpot_ms"] or 0) / 1e3
            if engine is None or min(times) <= 0.0:
                continue
            clients = re.search(r"silicon_concurrency=(\d+)", source)
            count = int(clients[1]) if clients else int(line["batch_size"])
            key = engine, int(line["isl"]), int(line["osl"]), count, "measured=" in source
            groups.setdefault(key, []).append(times)
    found = []
    for (name, isl, osl, clients_of, is_inferencemax), repeats in groups.items():
        ttft_s, tpot_s = np.exp(np.mean(np.log(repeats), axis=0))
        found.append(Row(name, clients_of, isl, osl, float(ttft_s), float(tpot_s), is_inferencemax))
    return found


def without_artefacts(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that hold together, and those left out so that they do."""
    groups: dict[tuple[EngineName, int, int, bool], list[Row]] = {}
    for row in rows:
        key = row.engine, row.num_prompt_tokens, row.num_output_tokens, row.is_inferencemax
        groups.setdefault(key, []).append(row)
    kept: list[Row] = []
    left_out: list[Row] = []
    for members in groups.values():
        ordered = sorted(members, key=lambda row: row.num_clients)
        rising = _longest_rising([row.tpot_s for row in ordered])
        for i, row in enumerate(ordered):
            (kept if i in rising and not any(_limited(row, other) for other in ordered) else left_out).append(row)
    return kept, left_out


def _limited(row: Row, other: Row) -> bool:
    """Whether a limit on sequences that is not stated held the row back, seen beside one of fewer clients."""
    fewer = 4 * other.num_clients <= row.num_clients
    return fewer and row.tpot_s <= 1.1 * other.tpot_s and row.ttft_s >= 10.0 * other.ttft_s


def _longest_rising(values: Sequence[float]) -> set[int]:
    """Places of the longest subsequence in which no value is below 0.9 of the one before it."""
    best: list[tuple[int, int]] = []  # length of the longest that ends here, and the place before
    for i, value in enumerate(values):
        before = max(((best[j][0], j) for j in range(i) if value >= 0.9 * values[j]), default=(0, -1))
        best.append((before[0] + 1, before[1]))
    place = max(range(len(values)), key=lambda i: best[i][0])
    found = set()
    while place >= 0:
        found.add(place)
        place = best[place][1]
    return found


def _engine(line: dict[str, str]) -> EngineName | None:
    model = _MODELS.get(line["model_path"].rpartition("/")[2])
    plain = line["mode"] == "agg" and line["attention_dp_size"] in ("", "1") and line["pp_size"] in ("", "1")
    if model is None or not plain or int(line["moe_ep_size"] or 1) > 1:
        return None
    weights = _NATIVE.get(model) or _WEIGHTS.get(line["gemm_quant_mode"] or line["precision"])
    if weights is None:
        return None
    gpu, tensor_parallel = line["system"].removesuffix("_sxm"), int(line["tp_size"] or 1)
    kinds = ("fp8", "bf16") if weights in ("fp8", "nvfp4") else ("bf16",)
    names = [EngineName(model, gpu, tensor_parallel, line["backend"], weights, kv) for kv in kinds]
    return next((name for name in names if str(name) in engines()), names[0])


Model = Callable[[EngineName], tuple[CostModel, int] | None]
"""What says the seconds of an iteration and the KV tokens of an engine; None where it knows nothing of it."""


def fitted(name: EngineName) -> tuple[CostModel, int] | None:
    """As the table has it."""
    engine = engines().get(str(name))
    return None if engine is None else (engine.cost, engine.num_kv_tokens)


@cache
def roofline(name: EngineName) -> tuple[CostModel, int] | None:
    """From data sheets and efficiencies."""
    weights = {"nvfp4": "fp4"}.get(name.weights_dtype, name.weights_dtype)
    model, device = known_models()[name.model], known_devices().get(name.gpu)
    if device is None:
        return None
    try:
        found = estimate(model, device, name.tensor_parallel, weights=weights, kv=name.kv_dtype)
    except ShapeError:  # such an engine cannot be
        return None
    return found.cost, found.memory.num_kv_tokens


def replay(row: Row, host: Host, model: Model = fitted, seed: int = 0) -> Replayed | None:
    """Serve the benchmark; None where the model knows nothing of the engine."""
    known = model(row.engine)
    if known is None:
        return None
    rng, count = stream(seed, "workload"), 10 * row.num_clients
    prompts = rng.integers(round(_SHORTEST * row.num_prompt_tokens), row.num_prompt_tokens + 1, count)
    outputs = rng.integers(max(1, round(_SHORTEST * row.num_output_tokens)), row.num_output_tokens + 1, count)
    backend = row.engine.backend
    config = EngineConfig(
        cost=host.on(known[0]),
        num_kv_tokens=known[1],
        block_size=_BLOCK_SIZE[backend],
        max_num_batched_tokens=_BUDGET[backend],
        max_num_seqs=max(row.num_clients, EngineConfig.max_num_seqs),
    )
    requests = closed_loop(Workload(np.zeros(count), prompts, outputs), row.num_clients, think_s=host.send_s)
    result = simulate(requests, config, POLICIES[_POLICY[backend]])
    tpot_s = (result.finish_s - result.first_token_s) / np.maximum(outputs - 1, 1)
    ttft_s = result.first_token_s - result.arrival_s
    return Replayed(row, float(np.nanmean(ttft_s)) + host.send_s, float(np.nanmean(tpot_s)))


def replays(rows: Sequence[Row], hosts: Mapping[str, Host], model: Model = fitted) -> list[Replayed]:
    """All rows of engines that the model knows."""
    found = (replay(row, hosts.get(row.engine.backend, Host()), model) for row in rows)
    return [one for one in found if one is not None]


_STEPS_S = {"iteration_s": 5e-4, "send_s": 5e-3}


def fit_host(rows: Sequence[Row]) -> Host:
    """The constants with the least error of TPOT, then of TTFT, one step after another."""
    host = Host()
    for which, (name, step_s) in enumerate(_STEPS_S.items()):
        loss = _loss(rows, host, which)
        while True:
            other = replace(host, **{name: getattr(host, name) + step_s})
            found = _loss(rows, other, which)
            if found >= loss:
                break
            host, loss = other, found
    return host


def _loss(rows: Sequence[Row], host: Host, which: int) -> float:
    errors = np.abs([one.errors[which] for one in replays(rows, {row.engine.backend: host for row in rows[:1]})])
    return float(np.median(errors) + 0.5 * np.quantile(errors, 0.9))


def percentiles(found: Sequence[Replayed], which: int) -> str:
    """Median and 90th percentile of absolute errors, and the median with its sign, in percent."""
    errors = 100.0 * np.array([one.errors[which] for one in found])
    size = np.abs(errors)
    return f"{np.median(size):.0f} / {np.quantile(size, 0.9):.0f} ({np.median(errors):+.0f})"


def table_of(found: Sequence[Replayed]) -> Table:
    """Errors by backend, kind of model, model and GPU."""
    table = Table("backend", "model", "GPU", "engines", "rows", "TPOT %", "TTFT %")
    groups: dict[tuple[str, str, str], list[Replayed]] = {}
    for one in found:
        engine = one.row.engine
        kind = "mixtures of experts" if engine.model in _MIXTURES else "dense models"
        held = "H200, held out" if one.row.is_held_out else "the others"
        own = f"{engine.model} {engine.weights_dtype}"
        for what, where in ((kind, "all"), (kind, held), (own, engine.gpu)):
            groups.setdefault((engine.backend, what, where), []).append(one)
    for key, members in sorted(groups.items()):
        names = {one.row.engine for one in members}
        table.add_row(*key, str(len(names)), str(len(members)), percentiles(members, 0), percentiles(members, 1))
    return table


def section(path: Path) -> str:
    """The section of docs/validation.md: host constants, artefacts, errors, and those of a roofline."""
    rows, left_out = without_artefacts(read(path))
    lines, hosts = [_INTRODUCTION], {}
    for backend in sorted({row.engine.backend for row in rows}):
        own = [row for row in rows if row.engine.backend == backend and row.is_inferencemax and not row.is_held_out]
        own = [row for row in own if fitted(row.engine) is not None]
        if own:
            host = hosts[backend] = fit_host(own)
            lines.append(
                f"- {backend}: {host.iteration_s * 1e3:.1f} ms an iteration, {host.send_s * 1e3:.0f} ms to send a "
                f"request; fitted to {len(own)} rows."
            )
    known = [row for row in rows if row.is_inferencemax]
    others = [row for row in rows if not row.is_inferencemax]
    for chosen, model, title in (
        (known, fitted, "Engines of the table"),
        (known, roofline, "The roofline ([roofline.md](roofline.md)), also of engines that the table lacks"),
        (others, fitted, "Engines of the table, on rows whose protocol is not stated"),
        (others, roofline, "The roofline, on these"),
    ):
        lines += ["", f"{title}:", "", markdown(table_of(replays(chosen, hosts, model)))]
    lines += ["", f"Left out as artefacts: {len(left_out)} rows.", ""]
    for row in left_out:
        sizes = f"{row.num_prompt_tokens}/{row.num_output_tokens}, {row.num_clients} clients"
        lines.append(f"- {row.engine} {sizes}: TPOT {row.tpot_s * 1e3:.1f} ms, TTFT {row.ttft_s * 1e3:.0f} ms")
    return "\n".join(lines)


_INTRODUCTION = """\
## Measured benchmarks

`python -m experiments.studies.silicon SILICON_SAMPLE.csv --out docs/validation.md` writes this section. The file is
`systems/silicon_sample.csv` in the wheel of aiconfigurator-core 0.12.0, with InferenceMAX's rows of April 2026.

- Each row is a closed loop of C clients. They send 10 C prompts, with both lengths uniform in [0.8 L, L].
- A cell has the median and 90th percentile of the absolute error in percent, and the median with its sign.
- Nothing was fitted to rows of the H200, and they chose nothing. They are the test. Of the others, those that
  contradict an engine by over 30 % took it out of the table ([costs.md](costs.md)).
- An artefact is named by measured figures alone, before any replay. Adding clients must not lower TPOT by over a tenth.
  And a TTFT ten times that of a quarter of the clients, at the same TPOT, tells of a limit on sequences.

Operators know nothing of the host. What it adds is fitted by backend, to rows of the H100 and B200:
"""


def main() -> None:
    """Print the section, or put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="silicon_sample.csv")
    parser.add_argument("--out", type=Path, help="the page; without it the section is printed")
    options = parser.parse_args()
    show(section(options.file), "silicon", options.out)


if __name__ == "__main__":
    main()
