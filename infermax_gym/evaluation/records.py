"""One run as files: a CSV line per request, a JSON line per iteration."""

from __future__ import annotations

import json
import math
from typing import TextIO

from infermax_gym.engine import SimulationResult
from infermax_gym.engine.result import STATUS_NAMES

REQUEST_COLUMNS = (
    "request",
    "arrival_s",
    "num_prompt_tokens",
    "num_output_tokens",
    "first_scheduled_s",
    "first_token_s",
    "finish_s",
    "num_preemptions",
    "status",
)


def write_requests_csv(result: SimulationResult, file: TextIO) -> None:
    """Write one line per request, times in seconds with every digit, empty where something never happened."""
    file.write(",".join(REQUEST_COLUMNS) + "\n")
    columns = [getattr(result, name).tolist() for name in REQUEST_COLUMNS[1:-1]]
    status = [STATUS_NAMES[code] for code in result.status.tolist()]
    for request, row in enumerate(zip(*columns, status, strict=True)):
        file.write(f"{request},{','.join(_text(value) for value in row)}\n")


def write_schedule_jsonl(result: SimulationResult, file: TextIO) -> None:
    """Write one object per iteration: when, who got how many tokens, and who was preempted.

    Raises:
        ValueError: the run did not record its schedule.
    """
    if result.schedule is None:
        raise ValueError("the run has no schedule; simulate with record_schedule=True")
    for iteration in result.schedule:
        line = {
            "start_s": float(iteration.start_s),
            "end_s": float(iteration.end_s),
            "batch": [[int(request), int(num_tokens)] for request, num_tokens in iteration.batch],
            "preempted": [int(request) for request in iteration.preempted],
        }
        file.write(json.dumps(line) + "\n")


def _text(value: float | int | str) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)
