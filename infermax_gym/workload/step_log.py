"""The step log of a real server (`infermax_gym.vllm`): its iterations and requests, read back.

A folder of JSON lines, see `infermax_gym.vllm.steplog`. The last line of a file may be cut, as after a kill; it is
dropped. A run that was rotated away in part lacks its beginning: iterations and requests are those that are left.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.files import atomic_text
from infermax_gym.workload.source import MAX_LINE_CHARS
from infermax_gym.workload.workload import Workload, WorkloadError

SCHEMA = 1


@dataclass(frozen=True)
class Step:
    """One iteration of a server.

    Attributes:
        start_s: when it was decided.
        end_s: when its tokens had been taken in.
        seconds: from there, or from the end of the one before if that is later, to its end.
        batch: (request, tokens, tokens resident before, whether it is a prefill) in the order granted.
        preempted: requests preempted by the decision, in order.
        num_waiting: requests in the queue after the decision.
        num_running: requests that run after the decision.
        free_blocks: KV blocks that nobody holds after the decision.
    """

    start_s: float
    end_s: float
    seconds: float
    batch: tuple[tuple[int, int, int, bool], ...]
    preempted: tuple[int, ...]
    num_waiting: int
    num_running: int
    free_blocks: int


@dataclass(frozen=True, eq=False)
class Steps:
    """The last run in a step log.

    Attributes:
        server: what its first line says: policy, version, blocks, budgets.
        steps: the iterations, in order.
        numbers: (n,) int64, the log's number of each request that finished, in order of arrival.
        workload: those requests, on a clock that starts with the first of them.
        origin_s: that moment on the log's clock.
        first_scheduled_s: (n,) when each first got tokens, on the workload's clock.
        first_token_s: (n,) when its first token came.
        finish_s: (n,) when its last did.
        num_preemptions: (n,) times it was preempted.
        num_aborted: requests that were aborted.
    """

    server: Mapping[str, Any]
    steps: tuple[Step, ...]
    numbers: NDArray[np.int64]
    workload: Workload
    origin_s: float
    first_scheduled_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    num_preemptions: NDArray[np.int64]
    num_aborted: int

    def cycle_seconds(self) -> NDArray[np.float64]:
        """(iterations,) what each took of the server: its seconds, and the host's time since the one before.

        That time counts where somebody was there all along. What a simulated iteration costs is the whole cycle.
        """
        start_s, end_s, seconds = (
            np.array([getattr(step, name) for step in self.steps], np.float64)
            for name in ("start_s", "end_s", "seconds")
        )
        before_s = end_s[:-1] - self.origin_s
        come = np.searchsorted(self.workload.arrival_s, before_s)
        gone = np.searchsorted(np.sort(self.finish_s), before_s, side="right")
        host_s = np.where(come > gone, np.maximum(start_s[1:] - end_s[:-1], 0.0), 0.0)
        return np.asarray(seconds + np.concatenate([[0.0], host_s]))

    def write_batches(self, path: str | Path) -> int:
        """Write a CSV that `infermax fit` reads: one line an iteration, `cycle_seconds` each; returns how many."""
        seconds = self.cycle_seconds().tolist()
        with atomic_text(path) as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(("prefill_chunk_tokens", "prefill_context_tokens", "decode_context_tokens", "seconds"))
            for step, cycle_s in zip(self.steps, seconds, strict=True):
                prefills = [(tokens, before) for _, tokens, before, in_prefill in step.batch if in_prefill]
                decodes = [before for _, _, before, in_prefill in step.batch if not in_prefill]
                lines.writerow(
                    (
                        " ".join(str(tokens) for tokens, _ in prefills),
                        " ".join(str(before) for _, before in prefills),
                        " ".join(map(str, decodes)),
                        repr(cycle_s),
                    )
                )
        return len(self.steps)


def read_steps(folder: str | Path) -> Steps:
    """Read the last run of a step log.

    Raises:
        WorkloadError: the folder holds no step log, or no request of it finished; one line.
    """
    folder = Path(folder)
    files = sorted(folder.glob("steps-[0-9]*.jsonl"))
    if not files:
        raise WorkloadError(f"{folder}: holds no step log; expected steps-000001.jsonl and on")
    server: Mapping[str, Any] = {}
    steps: list[Step] = []
    requests: list[Mapping[str, Any]] = []
    for place, record in _records(files):
        try:
            if "schema" in record:
                if record["schema"] != SCHEMA:
                    raise WorkloadError(f"{place}: has schema {record['schema']!r}; this version reads {SCHEMA}")
                if server and record["origin_unix_s"] != server["origin_unix_s"]:
                    steps, requests = [], []
                server = record
            elif "step" in record:
                steps.append(_step(record))
            else:
                requests.append(_request(record))
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, WorkloadError):
                raise
            raise WorkloadError(f"{place}: is no line of a step log ({error!r})") from None
    return _together(folder, server, steps, requests)


def _records(files: list[Path]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in files:
        with path.open("rb") as file:
            number = 0
            while (line := file.readline(MAX_LINE_CHARS)).endswith(b"\n"):  # the last is empty, or cut
                number += 1
                yield f"{path}:{number}", _record(line, f"{path}:{number}")
            if len(line) == MAX_LINE_CHARS:
                raise WorkloadError(f"{path}:{number + 1}: line is longer than {MAX_LINE_CHARS:,} characters")


def _record(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise WorkloadError(f"{place}: not JSON") from None
    if not isinstance(record, dict):
        raise WorkloadError(f"{place}: is no object")
    return record


def _step(record: Mapping[str, Any]) -> Step:
    return Step(
        float(record["start_s"]),
        float(record["end_s"]),
        float(record["seconds"]),
        tuple((int(m[0]), int(m[1]), int(m[2]), len(m) > 3) for m in record["batch"]),
        tuple(int(r) for r in record["preempted"]),
        int(record["waiting"]),
        int(record["running"]),
        int(record["free_blocks"]),
    )


_TIMES = ("first_scheduled_s", "first_token_s", "finish_s")
_COUNTS = ("request", "num_prompt_tokens", "num_output_tokens", "num_preemptions", "priority")


def _request(record: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a request whose numbers are numbers; times that it lacks are nan."""
    times = {name: math.nan if record[name] is None else float(record[name]) for name in _TIMES}
    times["arrival_s"] = float(record["arrival_s"])
    if not math.isfinite(times["arrival_s"]) or any(map(math.isinf, times.values())):
        raise ValueError("a time is not finite")
    counts = {name: int(np.int64(record[name])) for name in _COUNTS}
    return {**times, **counts, "status": record["status"]}


def _together(folder: Path, server: Mapping[str, Any], steps: list[Step], requests: list[Mapping[str, Any]]) -> Steps:
    finished = [r for r in requests if r["status"] == "finished" and r["num_output_tokens"] > 0]
    if not finished:
        raise WorkloadError(f"{folder}: no request of the step log finished")
    finished.sort(key=lambda r: (r["arrival_s"], r["request"]))
    origin_s = finished[0]["arrival_s"]

    def times(name: str) -> NDArray[np.float64]:
        return np.array([r[name] - origin_s for r in finished])

    workload = Workload(
        times("arrival_s"),
        np.array([r["num_prompt_tokens"] for r in finished]),
        np.array([r["num_output_tokens"] for r in finished]),
        priority=np.array([r["priority"] for r in finished]),
        name=folder.name,
        metadata={"format": "step log", "policy": str(server.get("policy"))},
    )
    return Steps(
        server,
        tuple(steps),
        np.array([r["request"] for r in finished], np.int64),
        workload,
        origin_s,
        times("first_scheduled_s"),
        times("first_token_s"),
        times("finish_s"),
        np.array([r["num_preemptions"] for r in finished], np.int64),
        len(requests) - len(finished),
    )
