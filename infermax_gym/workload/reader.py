"""`read_workload`: a trace file as a `Workload`, whatever its format."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.streams import stream
from infermax_gym.workload.arrivals import Poisson
from infermax_gym.workload.blocks import first_fault
from infermax_gym.workload.csv_reader import CsvReader
from infermax_gym.workload.document_reader import DocumentReader, is_vllm
from infermax_gym.workload.formats import BAILIAN, MOONCAKE, detect_json
from infermax_gym.workload.jsonl_reader import JsonlReader
from infermax_gym.workload.selection import Requests, Selection
from infermax_gym.workload.source import open_trace, stem
from infermax_gym.workload.workload import Workload, WorkloadError

Reader = CsvReader | JsonlReader | DocumentReader

MAX_NUM_REQUESTS = 50_000_000
"""Of one workload: some 10 GB of memory."""

_FIELDS = {"prompt": "num_prompt_tokens", "output": "num_output_tokens"}


def read_workload(
    path: str | Path,
    *,
    skip: int = 0,
    first: int | None = None,
    from_s: float | None = None,
    to_s: float | None = None,
    model: str | None = None,
    log_type: str | None = None,
    time_scale: float = 1.0,
    rate: float | None = None,
    seed: int = 0,
    content: bytes | None = None,
) -> Workload:
    """Read a trace; its format is told from the header or first line (see docs/workloads.md).

    Rows of failed requests (no prompt or no output tokens) in production traces are dropped and counted in
    `metadata["num_dropped"]`; `skip` and `first` count the requests that remain. Reading stops at the last row
    needed, so what is wrong further down goes unnoticed. Arrivals count from the first request kept, times the scale.

    Args:
        path: of the file.
        skip: requests to leave out at the beginning.
        first: how many requests to keep at most; all by default.
        from_s: keep requests that arrive so many seconds after the first of the file, or later; the clock is that of
            the file, before any scaling. `skip` and `first` count what this and the next three leave.
        to_s: keep requests that arrive before that time, on the same clock.
        model: keep requests to this model (BurstGPT); upper and lower case are the same.
        log_type: keep rows of this `Log Type` (BurstGPT) or `type` (Qwen-Bailian).
        time_scale: factor on the arrival times; below 1 raises the load.
        rate: stretch the arrivals to this mean rate, in requests per second (instead of `time_scale`). A file of
            lengths without arrivals needs it: its requests arrive as a Poisson process of that rate.
        seed: of those arrivals.
        content: of the file, where it can be read only once (`workload.source.kept_content`).

    Returns:
        A workload named after the file.

    Raises:
        WorkloadError: an option or the file is not usable; one line with file, line number and fault.
    """
    selection = Selection(skip, first, from_s, to_s, model, log_type)
    check_timing(time_scale, rate)
    with open_trace(path, content) as text:
        reader = _reader(text, path, selection)
        selection.check(reader.trace, path)
        requests = Requests(path, selection, reader.trace)
        if not reader.trace.arrival and rate is None:
            raise WorkloadError(
                f"{path}: holds lengths but no arrival times; give a rate in requests per second (--rate)"
            )
        _collect(reader, requests)
    columns = requests.columns()
    arrival = columns.pop("arrival", None)
    if reader.trace is BAILIAN:
        columns["session"] = np.unique(columns["session"], return_inverse=True)[1]  # 0, 1, ... as they begin
    if arrival is None:
        assert rate is not None
        arrival_s = Poisson(rate).sample(workload_stream(seed), len(columns["prompt"]))
    else:
        arrival_s = (arrival - arrival[0]) / reader.trace.ticks_per_s
    workload = Workload(
        arrival_s=arrival_s,
        **_by_name(columns, reader.names),
        prefix_blocks=np.concatenate([block.prefix_blocks for block in requests.blocks]),
        prefix_start=_edges([block.num_blocks for block in requests.blocks], len(arrival_s)),
        prefix_block_size=reader.prefix_block_size,
        name=stem(path),
        metadata={
            "format": reader.trace.name,
            "path": str(path),
            "skip": skip,
            "first": first,
            **{name: getattr(selection, name) for name in selection.files_only},
            "time_scale": time_scale,
            "rate": rate,
            "seed": seed,
            "num_dropped": requests.num_dropped,
        },
    )
    return workload if arrival is None else retimed(workload, time_scale, rate)


def check_timing(time_scale: float, rate: float | None) -> None:
    """Raise `WorkloadError` if the options that set arrival times are out of range or clash."""
    if not 0.0 < time_scale < math.inf:
        raise WorkloadError(f"time scale must be positive and finite, got {time_scale}")
    if rate is not None and not 0.0 < rate < math.inf:
        raise WorkloadError(f"rate must be positive and finite, got {rate}")
    if rate is not None and time_scale != 1.0:
        raise WorkloadError(f"give a time scale ({time_scale}) or a rate ({rate}), not both")


def retimed(workload: Workload, time_scale: float, rate: float | None) -> Workload:
    """The workload with its arrivals scaled, or stretched to a mean rate."""
    if rate is not None:
        return workload.with_rate(rate)
    return workload if time_scale == 1.0 else workload.scaled(time_scale)


def workload_stream(seed: int) -> np.random.Generator:
    """The generator of everything random about a workload; `WorkloadError` if the seed is not usable."""
    try:
        return stream(seed, "workload")
    except ValueError as error:
        raise WorkloadError(str(error)) from None


def _reader(text: Iterable[str], path: str | Path, selection: Selection) -> Reader:
    head: list[str] = []
    for line in text:
        head.append(line)
        if line.strip():
            break
    else:
        raise WorkloadError(f"{path}: the file is empty")
    lines, begin, wanted = itertools.chain(head, text), head[-1].strip(), tuple(selection.labels)
    if begin.startswith("{"):
        try:
            record = json.loads(begin)
        except (ValueError, RecursionError):
            if begin[-1] in "{[,":  # one object over several lines
                return DocumentReader(lines, path, wanted)
            return JsonlReader(lines, MOONCAKE, path)  # reported with its line when the block is parsed
        if is_vllm(record):
            return DocumentReader(lines, path, wanted)
        trace = detect_json(record, f"{path}:{len(head)}")
        selection.check(trace, path)
        return JsonlReader(lines, trace, path, wanted)
    return DocumentReader(lines, path, wanted) if begin.startswith("[") else CsvReader(lines, path, wanted)


def _collect(reader: Reader, requests: Requests) -> None:
    """Read until `requests` are complete, and raise the first fault on the way."""
    previous = None
    for block in reader.blocks():
        fault = first_fault(block, reader.trace, previous)
        if requests.add(block if fault is None else block.head(fault.row)):
            return  # whatever is wrong further down does not matter
        if requests.num_seen - requests.selection.skip > MAX_NUM_REQUESTS:
            raise WorkloadError(
                f"{requests.path}: holds more than {MAX_NUM_REQUESTS:,} requests; take a part of them (first, --first)"
            )
        if fault is not None:
            raise WorkloadError(f"{reader.place(block.lines[fault.row])}: {fault.message}")
        if "arrival" in block.columns and len(block):
            previous = block.columns["arrival"][-1]


def _by_name(columns: dict[str, NDArray[Any]], names: dict[str, dict[str, int]]) -> dict[str, Any]:
    """`Workload` arguments; names are sorted, so that their indices do not depend on which row comes first."""
    values: dict[str, Any] = {_FIELDS.get(name, name): column for name, column in columns.items()}
    for column, index in names.items():
        name_of = list(index)  # in the order of the codes
        used = sorted(np.unique(columns[column]).tolist(), key=lambda code: _name_order(name_of[code]))
        rank = np.zeros(len(name_of), np.int64)
        rank[used] = np.arange(len(used))
        values[column] = rank[columns[column]]
        values[f"{column}_names"] = tuple(name_of[code] for code in used)
    return values


def _name_order(name: str) -> tuple[float, str]:
    """Names that are numbers sort by value, before all others."""
    return (float(name) if name.isascii() and name.isdigit() else math.inf), name


def _edges(num_blocks: Sequence[NDArray[np.int64]], num_requests: int) -> NDArray[np.int64]:
    """`prefix_start` from the number of blocks of each request, if the format has any."""
    counts = np.concatenate(num_blocks)
    edges = np.zeros(num_requests + 1, np.int64)
    if len(counts):
        np.cumsum(counts, out=edges[1:])
    return edges
