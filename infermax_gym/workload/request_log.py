"""What happened to each request of a real engine: `RequestLog`, and `read_request_log` for the files that hold one.

Formats, told from the content (CSV, also .gz; one JSON object a line; one JSON document):
- CSV or JSON lines with `num_prompt_tokens`, `num_output_tokens` and seconds on one clock: the arrival (`arrival_s` or
  `queued_s`), `first_token_s`, the last token (`finish_s` or `last_token_s`) and, where it is known, when the request
  was first scheduled (`first_scheduled_s` or `scheduled_s`). What `infermax simulate --requests-out` writes is one.
- a folder: the step log of `infermax_gym.vllm`.
- the result of `vllm bench serve --save-result --save-detailed`, which has `start_times`, `ttfts` and `itls`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.workload.source import open_trace, stem, whole
from infermax_gym.workload.step_log import read_steps
from infermax_gym.workload.workload import Workload, WorkloadError

_NAMES: dict[str, tuple[str, ...]] = {
    "arrival": ("arrival_s", "queued_s"),
    "prompt": ("num_prompt_tokens",),
    "output": ("num_output_tokens",),
    "first_token": ("first_token_s",),
    "finish": ("finish_s", "last_token_s"),
}
_SCHEDULED = ("first_scheduled_s", "scheduled_s")
_BENCH = ("input_lens", "output_lens", "start_times", "ttfts", "itls")
_MOST_TOKENS = 2**40


@dataclass(frozen=True, eq=False)
class RequestLog:
    """Requests of a real engine in order of arrival, on a clock that starts with the first of them.

    Attributes:
        workload: arrivals and lengths.
        first_scheduled_s: (n,) when each first got tokens; nan where that is not known.
        first_token_s: (n,) when its first output token appeared.
        finish_s: (n,) when its last one did.
        num_dropped: requests of the file that failed or did not finish.
    """

    workload: Workload
    first_scheduled_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    num_dropped: int = 0

    def __len__(self) -> int:
        return len(self.workload)

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        """(n,) first token - arrival, seconds."""
        return self.first_token_s - self.workload.arrival_s

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        """(n,) (finish - first token) / (output tokens - 1), seconds; nan for single-token outputs."""
        more = self.workload.num_output_tokens - 1
        return np.where(more > 0, (self.finish_s - self.first_token_s) / np.maximum(more, 1), np.nan)

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """(n,) finish - arrival, seconds."""
        return self.finish_s - self.workload.arrival_s


def read_request_log(path: str | Path) -> RequestLog:
    """Read a log of requests.

    Raises:
        WorkloadError: the file is no such log, or holds a request that cannot be; one line with the place.
    """
    if os.path.isdir(path):
        steps = read_steps(path)
        return RequestLog(
            steps.workload, steps.first_scheduled_s, steps.first_token_s, steps.finish_s, steps.num_aborted
        )
    with open_trace(path) as text:
        rows, num_dropped = _rows(text, path)
    if not rows:
        raise WorkloadError(f"{path}: holds no request that finished")
    table = np.array(rows)
    table = table[np.argsort(table[:, 0], kind="stable")]
    start = table[0, 0]
    workload = Workload(
        table[:, 0] - start, table[:, 1], table[:, 2], name=stem(path), metadata={"num_dropped": num_dropped}
    )
    return RequestLog(workload, table[:, 5] - start, table[:, 3] - start, table[:, 4] - start, num_dropped)


def _rows(text: Iterator[str], path: object) -> tuple[list[list[float]], int]:
    """Arrival, prompt, output, first token, finish and first scheduled of each request; how many were dropped."""
    rows: list[list[float]] = []
    num_dropped = 0
    for place, record in _records(text, path):
        if str(record.get("status", "finished")) != "finished" or any(record[name] in (None, "") for name in _NAMES):
            num_dropped += 1
            continue
        values = [_number(record[name], name, place) for name in _NAMES]
        scheduled = record.get("scheduled")
        values.append(math.nan if scheduled in (None, "") else _number(scheduled, "scheduled", place))
        _check(values, place)
        rows.append(values)
    return rows, num_dropped


def _number(value: Any, name: str, place: str) -> float:
    try:
        if isinstance(value, bool) or not math.isfinite(float(value)):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise WorkloadError(
            f"{place}: {'/'.join(_NAMES.get(name, _SCHEDULED))} is {value!r:.40}; expected a number"
        ) from None


def _check(values: list[float], place: str) -> None:
    arrival, prompt, output, first, finish, scheduled = values
    for name, tokens in (("num_prompt_tokens", prompt), ("num_output_tokens", output)):
        if not (1 <= tokens <= _MOST_TOKENS and tokens == int(tokens)):
            raise WorkloadError(f"{place}: {name} is {tokens:g}; expected a whole number from 1")
    if not arrival <= first <= finish or (output > 1 and finish == first):
        raise WorkloadError(
            f"{place}: arrival {arrival:g}, first token {first:g}, last token {finish:g} s; expected them in this order"
        )
    if scheduled < arrival or scheduled > first:
        raise WorkloadError(f"{place}: was scheduled at {scheduled:g} s, not between arrival and first token")


def _records(text: Iterator[str], path: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Place and fields of each request, under the names of `_NAMES` and `scheduled`."""
    first = ""
    while not first.strip():
        first = next(text, "")
        if not first:
            raise WorkloadError(f"{path}: the file is empty")
    try:
        if not first.lstrip().startswith("{"):
            return (yield from _csv(first, text, path))
        try:
            document = json.loads(first)
        except ValueError:
            document = json.loads(whole(chain([first], text), path))
        if "ttfts" in document or "input_lens" in document:
            yield from _bench(document, path)
        else:
            yield from _json_lines(document, text, path)
    except WorkloadError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise WorkloadError(f"{path}: cannot be read as a log of requests ({error})") from None


def _csv(header: str, text: Iterator[str], path: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = [name.strip() for name in next(csv.reader([header]))]
    renamed = _renamed(names.__contains__, f"{path}:1")
    for number, row in enumerate(csv.reader(text), 2):
        if not row:
            continue
        if len(row) != len(names):
            raise WorkloadError(f"{path}:{number}: has {len(row)} cells; expected {len(names)} as in the header")
        cells = dict(zip(names, row, strict=True))
        yield f"{path}:{number}", {name: cells.get(column, "") for name, column in renamed.items()}


def _json_lines(first: Any, text: Iterator[str], path: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate([json.dumps(first), *text], 1):
        if not line.strip():
            continue
        record = json.loads(line)
        if not isinstance(record, dict):
            raise WorkloadError(f"{path}:{number}: is no object; expected one request a line")
        renamed = _renamed(record.__contains__, f"{path}:{number}")
        yield f"{path}:{number}", {name: record.get(column) for name, column in renamed.items()}


def _renamed(has: Callable[[str], bool], place: str) -> dict[str, str]:
    """The file's name of each field."""
    found = {}
    for name, names in _NAMES.items():
        column = next((one for one in names if has(one)), None)
        if column is None:
            raise WorkloadError(f"{place}: {' or '.join(names)} is missing; docs/calibrate.md says what a log holds")
        found[name] = column
    scheduled = next((one for one in _SCHEDULED if has(one)), None)
    return found | ({"scheduled": scheduled} if scheduled else {}) | ({"status": "status"} if has("status") else {})


def _bench(document: Mapping[str, Any], path: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lists: list[list[Any]] = []
    for name in _BENCH:
        values = document.get(name)
        if not isinstance(values, list) or (lists and len(values) != len(lists[0])):
            raise WorkloadError(
                f"{path}: {name} is not a list with an entry a request; write the result with --save-result "
                "--save-detailed of a vLLM whose results have start_times"
            )
        lists.append(values)
    for number, (prompt, output, start, ttft, gaps) in enumerate(zip(*lists, strict=True), 1):
        place = f"{path}: request {number}"
        if not output or not ttft:
            yield place, dict.fromkeys(_NAMES)
            continue
        if not isinstance(gaps, list):
            raise WorkloadError(f"{place}: itls is {gaps!r:.40}; expected a list of seconds")
        first = _number(start, "arrival", place) + _number(ttft, "first_token", place)
        finish = first + sum(_number(gap, "finish", place) for gap in gaps)
        yield place, {"arrival": start, "prompt": prompt, "output": output, "first_token": first, "finish": finish}
