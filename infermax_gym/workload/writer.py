"""`write_workload`: a `Workload` as the project's own CSV."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infermax_gym.files import atomic_text
from infermax_gym.workload.csv_reader import PREFIX_COLUMN
from infermax_gym.workload.workload import Workload, WorkloadError


def write_workload(workload: Workload, path: str | Path) -> None:
    """Write a workload as CSV, columns that hold only defaults left out.

    `read_workload` gives it back exactly, up to three things that the format does not say: arrivals count from the
    first request, names are sorted and only those in use are kept, and `name` and `metadata` are those of the file.

    Raises:
        WorkloadError: the file cannot be written, a tenant or SLO class has a name that a line cannot hold, or requests
            are sent when others have ended, which the format does not say.
    """
    if workload.is_closed_loop:
        raise WorkloadError(f"{workload.name}: a CSV holds arrivals; write it before closed_loop or as_sessions")
    columns = _columns(workload)
    try:
        with atomic_text(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
    except OSError as error:
        raise WorkloadError(f"{path}: cannot be written ({error.strerror or error})") from None


def _columns(workload: Workload) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {
        "arrival_s": workload.arrival_s.tolist(),  # csv writes a float so that it reads back to the same bits
        "num_prompt_tokens": workload.num_prompt_tokens.tolist(),
        "num_output_tokens": workload.num_output_tokens.tolist(),
    }
    for name in ("tenant", "slo_class"):
        names = [_plain(text) for text in getattr(workload, f"{name}_names")]
        if names != ["default"]:
            columns[name] = [names[index] for index in getattr(workload, name).tolist()]
    if workload.priority.any():
        columns["priority"] = workload.priority.tolist()
    if (workload.session != np.arange(len(workload))).any():
        columns["session"] = workload.session.tolist()
    if (workload.turn != 1).any():
        columns["turn"] = workload.turn.tolist()
    for name in ("ttft_slo_s", "tpot_slo_s"):
        limits = getattr(workload, name)
        if not np.isinf(limits).all():
            columns[name] = limits.tolist()
    if workload.prefix_block_size:
        edges, hashes = workload.prefix_start.tolist(), list(map(str, workload.prefix_blocks.tolist()))
        cells = [" ".join(hashes[a:b]) for a, b in itertools.pairwise(edges)]
        columns[f"{PREFIX_COLUMN}{workload.prefix_block_size}"] = cells
    return columns


def _plain(name: str) -> str:
    if not name or name != name.strip() or not name.isprintable():
        raise WorkloadError(
            f"the name {name!r} cannot be written: it is empty, or holds outer spaces or control characters"
        )
    return name
