"""Real traces as traffic that nobody trained on; they lie beside the repository (`shared/data`) and may be absent."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from infermax_gym.streams import stream
from infermax_gym.workload import Workload, load_workload

TRACE = "trace-"
"""How the name of a trace as traffic begins."""

FILES = {
    "trace-azure-conv": "azure2023_conv_head.csv",
    "trace-azure-code": "azure2023_code_head.csv",
    "trace-mooncake": "mooncake_conversation_head.jsonl",
}


def folder() -> Path | None:
    """Where the traces are: below INFERMAX_SHARED, or `shared` beside the repository; None where they are not."""
    named = os.environ.get("INFERMAX_SHARED")
    path = (Path(named) if named else Path(__file__).resolve().parents[3] / "shared") / "data"
    return path if all((path / name).is_file() for name in FILES.values()) else None


def drawn_trace(name: str, count: int, seed: int, rate: float | None) -> Workload:
    """A stretch of a trace that begins anywhere, its arrivals stretched to a mean rate.

    Args:
        name: a key of `FILES`.
        count: requests; all of a trace that has fewer.
        seed: of where it begins.
        rate: requests per second; None leaves the arrivals as they are.

    Raises:
        FileNotFoundError: the traces are not there.
    """
    trace = _trace(name)
    count = min(count, len(trace))
    start = int(stream(seed, "workload").integers(len(trace) - count + 1))
    part = trace.trace_slice(start, count)
    return part if rate is None else part.with_rate(rate)


@cache
def _trace(name: str) -> Workload:
    where = folder()
    if where is None:
        raise FileNotFoundError("the traces are not there; INFERMAX_SHARED says which folder has data/ with them")
    return load_workload(where / FILES[name])
