"""One run as files: a CSV line per request, a JSON line per iteration."""

from __future__ import annotations

import json
import math
from typing import TextIO

from infermax_gym.engine import STATUS_NAMES, SimulationResult

_REQUEST_COLUMNS = (
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
    workload = result.workload
    columns = (
        result.arrival_s,
        workload.num_prompt_tokens,
        workload.num_output_tokens,
        result.first_scheduled_s,
        result.first_token_s,
        result.finish_s,
        result.num_preemptions_of,
    )
    status = [STATUS_NAMES[code] for code in result.status.tolist()]
    file.write(",".join(_REQUEST_COLUMNS) + "\n")
    for request, row in enumerate(zip(*(column.tolist() for column in columns), status, strict=True)):
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
            "start_s": iteration.start_s,
            "end_s": iteration.end_s,
            "batch": iteration.batch,
            "preempted": iteration.preempted,
        }
        file.write(json.dumps(line) + "\n")


def _text(value: float | int | str) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)
