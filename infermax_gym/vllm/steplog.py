"""The step log: what a server did in every iteration and to every request, as JSON lines in a folder.

Files `steps-000001.jsonl` and on; each begins with a line "start" that describes the server, so that any of them can
be read alone. A file that has its size is followed by the next, and the oldest goes once the folder has its size. Each
line is one write, so a killed process loses at most the line under way. `infermax_gym.workload.step_log` reads it.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
_NUM_FILES = 8


class LogFiles:
    """Lines into the files of a folder, at most so many bytes in all.

    Args:
        folder: made if it is not there; files of earlier runs stay, and count.
        most_bytes: of all files together.
        first_line: what every file begins with.
    """

    def __init__(self, folder: Path, most_bytes: int, first_line: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._first_line = folder, first_line
        self._most_of_file = max(most_bytes // _NUM_FILES, 4096)
        self._number = max((int(path.stem.split("-")[1]) for path in self._files()), default=0)
        self._descriptor = -1
        self._size = 0
        self._open_next()

    def write(self, line: str) -> None:
        """Append a line."""
        data = line.encode() + b"\n"
        if self._size + len(data) > self._most_of_file:
            self._open_next()
        self._size += self._whole(data)

    def close(self) -> None:
        """Write no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("steps-[0-9]*.jsonl"))

    def _open_next(self) -> None:
        self.close()
        for path in self._files()[: -(_NUM_FILES - 1)]:
            path.unlink(missing_ok=True)
        self._number += 1
        path = self._folder / f"steps-{self._number:06d}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = self._whole(self._first_line.encode() + b"\n")

    def _whole(self, data: bytes) -> int:
        """Write a line; OSError where only part of it fits, so that nothing follows a line that is cut."""
        written = os.write(self._descriptor, data)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written


@dataclass(slots=True)
class _Request:
    number: int
    arrival_s: float
    known_at_admission: int = -1
    first_scheduled_s: float = math.nan
    first_token_s: float = math.nan
    num_preemptions: int = 0


@dataclass(slots=True)
class _Step:
    start_s: float
    batch: list[list[int]]
    preempted: list[int]
    num_waiting: int
    num_running: int
    free_blocks: int
    names: list[str] = field(default_factory=list)


class StepLog:
    """Takes note of a scheduler's iterations and requests.

    Args:
        files: where lines go.
        clock: seconds now, on the clock of requests' arrival times.
        origin_s: subtracted from all times.
    """

    def __init__(self, files: LogFiles, clock: Callable[[], float], origin_s: float) -> None:
        self._files, self._clock, self._origin_s = files, clock, origin_s
        self._requests: dict[str, _Request] = {}
        self._under_way: deque[_Step] = deque()
        self._preempted: list[int] = []
        self._num_requests = self._num_steps = 0
        self._last_end_s = -math.inf
        self._start_s = 0.0

    def before(self) -> None:
        """Before a call of the scheduler."""
        self._start_s = self._now()

    def after(self, scheduler: Any, num_scheduled_tokens: dict[str, int]) -> None:
        """After a call of the scheduler, with what it granted."""
        if not num_scheduled_tokens:
            return
        batch = []
        for name, tokens in num_scheduled_tokens.items():
            request = scheduler.requests[name]
            entry = self._entry(request)
            if entry.known_at_admission < 0:
                entry.known_at_admission = request.num_tokens
            if math.isnan(entry.first_scheduled_s):
                entry.first_scheduled_s = self._start_s
            member = [entry.number, tokens, request.num_computed_tokens - tokens]
            if _known_before(request, tokens) == entry.known_at_admission:
                member.append(1)
            batch.append(member)
        pool = scheduler.kv_cache_manager.block_pool
        waiting, running = len(scheduler.waiting), len(scheduler.running)
        preempted, self._preempted = self._preempted, []
        step = _Step(self._start_s, batch, preempted, waiting, running, pool.get_num_free_blocks())
        step.names = list(num_scheduled_tokens)
        self._under_way.append(step)

    def updated(self, requests: dict[str, Any], num_scheduled_tokens: dict[str, int]) -> None:
        """The oldest iteration under way has been computed and taken in."""
        if not num_scheduled_tokens or not self._under_way:
            return
        step = self._under_way.popleft()
        end_s = self._now()
        for name in step.names:
            request, entry = requests.get(name), self._requests.get(name)
            if request is not None and entry is not None and request.num_output_tokens > 0:
                entry.first_token_s = end_s if math.isnan(entry.first_token_s) else entry.first_token_s
        record = {
            "step": self._num_steps,
            "start_s": step.start_s,
            "end_s": end_s,
            "seconds": end_s - max(step.start_s, self._last_end_s),
            "batch": step.batch,
            "preempted": step.preempted,
            "waiting": step.num_waiting,
            "running": step.num_running,
            "free_blocks": step.free_blocks,
        }
        self._num_steps += 1
        self._last_end_s = end_s
        self._files.write(json.dumps(record, separators=(",", ":")))

    def preempting(self, request: Any) -> None:
        """A request loses its blocks."""
        entry = self._entry(request)
        entry.num_preemptions += 1
        entry.known_at_admission = -1
        self._preempted.append(entry.number)

    def left(self, request: Any, finished: bool) -> None:
        """A request has finished, or has been aborted."""
        entry = self._requests.pop(request.request_id, None)
        if entry is None:
            return
        now_s = self._now()
        first_token_s = now_s if math.isnan(entry.first_token_s) else entry.first_token_s
        record = {
            "request": entry.number,
            "arrival_s": entry.arrival_s,
            "num_prompt_tokens": request.num_prompt_tokens,
            "num_output_tokens": request.num_output_tokens,
            "first_scheduled_s": _given(entry.first_scheduled_s),
            "first_token_s": first_token_s if request.num_output_tokens > 0 else None,
            "finish_s": now_s,
            "num_preemptions": entry.num_preemptions,
            "priority": request.priority,
            "status": "finished" if finished else "aborted",
        }
        self._files.write(json.dumps(record, separators=(",", ":")))

    def arrived(self, requests: Iterable[Any]) -> None:
        """Some requests have been handed to the scheduler."""
        for request in requests:
            self._entry(request)

    def close(self) -> None:
        """Write no more."""
        self._files.close()

    def _entry(self, request: Any) -> _Request:
        entry = self._requests.get(request.request_id)
        if entry is None:
            entry = _Request(self._num_requests, request.arrival_time - self._origin_s)
            self._num_requests += 1
            self._requests[request.request_id] = entry
        return entry

    def _now(self) -> float:
        return self._clock() - self._origin_s


def _known_before(request: Any, tokens: int) -> int:
    """Known tokens when the call began: a decode under asynchronous scheduling already counts the one to come."""
    known = int(request.num_tokens + request.num_output_placeholders)
    emits = request.num_output_placeholders > 0 and request.num_computed_tokens >= known - 1
    return known - 1 if emits else known


def _given(value: float) -> float | None:
    return None if math.isnan(value) else value


def start_line(scheduler: Any, policy: str, vllm_version: str, origin_s: float) -> str:
    """What every file begins with: the server."""
    config = scheduler.scheduler_config
    record = {
        "schema": SCHEMA,
        "vllm": vllm_version,
        "scheduler": type(scheduler).__name__,
        "policy": policy,
        "origin_unix_s": origin_s,
        "num_blocks": int(scheduler.kv_cache_manager.block_pool.num_gpu_blocks) - 1,
        "block_size": int(scheduler.block_size),
        "max_num_batched_tokens": int(scheduler.max_num_scheduled_tokens),
        "max_num_seqs": int(scheduler.max_num_running_reqs),
        "max_model_len": int(scheduler.max_model_len),
        "prefix_caching": bool(scheduler.cache_config.enable_prefix_caching),
        "long_prefill_token_threshold": int(config.long_prefill_token_threshold or 0),
    }
    return json.dumps(record, separators=(",", ":"))
