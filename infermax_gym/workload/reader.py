"""`read_workload`: a trace file as a `Workload`, whatever its format."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.streams import stream
from infermax_gym.workload.arrivals import Poisson
from infermax_gym.workload.blocks import Block, first_fault
from infermax_gym.workload.csv_reader import CsvReader
from infermax_gym.workload.jsonl_reader import JsonlReader
from infermax_gym.workload.source import open_trace
from infermax_gym.workload.workload import Workload, WorkloadError

_FIELDS = {"prompt": "num_prompt_tokens", "output": "num_output_tokens"}


def read_workload(
    path: str | Path,
    *,
    skip: int = 0,
    first: int | None = None,
    time_scale: float = 1.0,
    rate: float | None = None,
    seed: int = 0,
) -> Workload:
    """Read a trace; its format is told from the header or first line (see docs/workloads.md).

    Rows of failed requests (no prompt or no output tokens) in production traces are dropped and counted in
    `metadata["num_dropped"]`; `skip` and `first` count the requests that remain. Reading stops at the last row
    needed, so what is wrong further down goes unnoticed. Arrivals count from the first request kept, times the scale.

    Args:
        path: of the file.
        skip: requests to leave out at the beginning.
        first: how many requests to keep at most; all by default.
        time_scale: factor on the arrival times; below 1 raises the load.
        rate: stretch the arrivals to this mean rate, in requests per second (instead of `time_scale`). A file of
            lengths without arrivals needs it: its requests arrive as a Poisson process of that rate.
        seed: of those arrivals.

    Returns:
        A workload named after the file.

    Raises:
        WorkloadError: an option or the file is not usable; one line with file, line number and fault.
    """
    check_selection(skip, first, time_scale, rate)
    requests = _Requests(path, skip, math.inf if first is None else skip + first)
    with open_trace(path) as text:
        reader = _reader(text, path)
        if not reader.trace.arrival and rate is None:
            raise WorkloadError(
                f"{path}: holds lengths but no arrival times; give a rate in requests per second (--rate)"
            )
        _collect(reader, requests)
    columns = requests.columns()
    arrival = columns.pop("arrival", None)
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
        name=Path(path).stem,
        metadata={
            "format": reader.trace.name,
            "path": str(path),
            "skip": skip,
            "first": first,
            "time_scale": time_scale,
            "rate": rate,
            "seed": seed,
            "num_dropped": requests.num_dropped,
        },
    )
    return workload if arrival is None else retimed(workload, time_scale, rate)


def check_selection(skip: int, first: int | None, time_scale: float, rate: float | None) -> None:
    """Raise `WorkloadError` if the options that choose requests and their times are out of range or clash."""
    if skip < 0:
        raise WorkloadError(f"skip must not be negative, got {skip}")
    if first is not None and first < 1:
        raise WorkloadError(f"first must be at least 1, got {first}")
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


def _reader(text: Any, path: str | Path) -> CsvReader | JsonlReader:
    head: list[str] = []
    for line in text:
        head.append(line)
        if line.strip():
            break
    else:
        raise WorkloadError(f"{path}: the file is empty")
    lines = itertools.chain(head, text)
    if head[-1].lstrip().startswith("{"):
        return JsonlReader(lines, head[-1], f"{path}:{len(head)}")
    return CsvReader(lines, path)


def _collect(reader: CsvReader | JsonlReader, requests: _Requests) -> None:
    """Read until `requests` are complete, and raise the first fault on the way."""
    previous = -math.inf
    for block in reader.blocks():
        fault = first_fault(block, reader.trace, previous)
        if requests.add(block if fault is None else block.head(fault.row), reader.trace.drops_empty):
            return  # whatever is wrong further down does not matter
        if fault is not None:
            raise WorkloadError(f"{requests.path}:{block.lines[fault.row]}: {fault.message}")
        if "arrival" in block.columns:
            previous = block.columns["arrival"][-1]


@dataclass
class _Requests:
    """The rows kept so far: those that were served, from number `start` up to `stop`."""

    path: str | Path
    start: int
    stop: float
    blocks: list[Block] = field(default_factory=list)
    num_dropped: int = 0
    num_seen: int = 0

    def add(self, block: Block, drops_empty: bool) -> bool:
        """Keep what is wanted of a block; True once nothing after it is."""
        columns = block.columns
        keep = np.ones(len(block), np.bool_)
        if drops_empty:
            keep = (columns["prompt"] > 0) & (columns["output"] > 0)
        number = self.num_seen + np.cumsum(keep) - 1  # of each row among those served
        num_served = int(keep.sum())
        between = (number >= self.start - 1) & (number < self.stop - 1)
        self.num_dropped += int((between & ~keep).sum())
        self.num_seen += num_served
        if self.num_seen > self.start:
            self.blocks.append(block.take(keep & (number >= self.start) & (number < self.stop)))
        return self.num_seen >= self.stop

    def columns(self) -> dict[str, NDArray[Any]]:
        """All kept rows; raises if there are none."""
        if not self.blocks:
            message = "holds a header but no requests"
            if self.num_seen:
                message = f"skip={self.start} leaves no request; the file has {self.num_seen}"
            elif self.num_dropped:
                message = f"holds no request that was served; all {self.num_dropped} rows have a count of 0"
            raise WorkloadError(f"{self.path}: {message}")
        names = self.blocks[0].columns
        return {name: np.concatenate([block.columns[name] for block in self.blocks]) for name in names}


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
