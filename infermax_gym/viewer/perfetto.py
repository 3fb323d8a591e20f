"""A run as a timeline in the Chrome trace format, which Perfetto and chrome://tracing open.

Three groups of tracks: the engine's iterations, counters sampled at every iteration (waiting and running
requests, KV tokens), and each request as nested slices (waiting, prefill, decode) with its preemptions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np

from infermax_gym.engine import STATUS_NAMES, SimulationResult

_ENGINE, _REQUESTS = 1, 2  # process numbers, which group the tracks
_MICROSECONDS = 1e6

Event = dict[str, Any]


def write_trace(result: SimulationResult, file: TextIO) -> None:
    """Write the timeline of a run.

    Args:
        result: a run that recorded its schedule.
        file: takes the JSON text, one event a line.

    Raises:
        ValueError: the run did not record its schedule.
    """
    if result.schedule is None:
        raise ValueError("the run has no schedule; simulate with record_schedule=True")
    file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
    separator = ""
    for event in trace_events(result):
        file.write(separator + json.dumps(event))
        separator = ",\n"
    file.write("\n]}\n")


def trace_events(result: SimulationResult) -> Iterator[Event]:
    """All events of a run, see the Trace Event Format."""
    for process, name in ((_ENGINE, "engine"), (_REQUESTS, "requests")):
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    yield {"ph": "M", "name": "thread_name", "pid": _ENGINE, "tid": 1, "args": {"name": "iterations"}}
    yield from _iterations(result)
    yield from _counters(result)
    for request in range(len(result.workload)):
        yield from _request(result, request)
    yield from _preemptions(result)


def _iterations(result: SimulationResult) -> Iterator[Event]:
    for number, iteration in enumerate(result.schedule or ()):
        num_tokens = sum(c for _, c in iteration.batch)
        yield {
            "ph": "X",
            "name": f"{num_tokens} tokens",
            "cat": "iteration",
            "pid": _ENGINE,
            "tid": 1,
            "ts": _time(iteration.start_s),
            "dur": _time(iteration.end_s - iteration.start_s),
            "args": {
                "iteration": number,
                "num_tokens": num_tokens,
                "num_requests": len(iteration.batch),
                "preempted": iteration.preempted,
            },
        }


def _counters(result: SimulationResult) -> Iterator[Event]:
    """Replay the schedule; a victim that never recomputed a token was swapped and keeps its KV for its return."""
    resident = [0] * len(result.workload)
    running: set[int] = set()
    kv_tokens = num_finished = 0
    swapped = (result.num_recomputed_tokens_of == 0).tolist()
    finish_s = result.finish_s.tolist()
    arrivals = result.arrival_s[result.status != STATUS_NAMES.index("rejected")]
    for iteration in result.schedule or ():
        for request in iteration.preempted:
            if request in running:
                running.remove(request)
                kv_tokens -= resident[request]
            if not swapped[request]:
                resident[request] = 0
        for request, num_tokens in iteration.batch:
            if request not in running:
                running.add(request)
                kv_tokens += resident[request]
            resident[request] += num_tokens
            kv_tokens += num_tokens
        num_arrived = int(np.searchsorted(arrivals, iteration.start_s, side="right"))
        yield _counter("waiting requests", iteration.start_s, num_arrived - num_finished - len(running))
        yield _counter("running requests", iteration.start_s, len(running))
        yield _counter("KV tokens", iteration.start_s, kv_tokens)
        for request, _ in iteration.batch:
            if finish_s[request] <= iteration.end_s:
                running.discard(request)
                kv_tokens -= resident[request]
                num_finished += 1
    if result.schedule:
        for name in ("waiting requests", "running requests", "KV tokens"):
            yield _counter(name, result.schedule[-1].end_s, 0)


def _request(result: SimulationResult, request: int) -> Iterator[Event]:
    workload = result.workload
    arrival, finish = float(result.arrival_s[request]), float(result.finish_s[request])
    status = STATUS_NAMES[result.status[request]]
    facts = {
        "num_prompt_tokens": int(workload.num_prompt_tokens[request]),
        "num_output_tokens": int(workload.num_output_tokens[request]),
        "num_preemptions": int(result.num_preemptions_of[request]),
        "status": status,
    }
    if math.isnan(finish):
        yield {**_mark("n", status, request, arrival), "args": facts}
        return
    scheduled, first_token = float(result.first_scheduled_s[request]), float(result.first_token_s[request])
    yield {**_mark("b", f"request {request}", request, arrival), "args": facts}
    for name, start, end in (
        ("waiting", arrival, scheduled),
        ("prefill", scheduled, first_token),
        ("decode", first_token, finish),
    ):
        if end > start:
            yield _mark("b", name, request, start)
            yield _mark("e", name, request, end)
    yield _mark("e", f"request {request}", request, finish)


def _preemptions(result: SimulationResult) -> Iterator[Event]:
    for iteration in result.schedule or ():
        for request in iteration.preempted:
            yield _mark("n", "preempted", request, iteration.start_s)


def _mark(phase: str, name: str, request: int, time_s: float) -> Event:
    return {
        "ph": phase,
        "name": name,
        "cat": "request",
        "id": request,
        "pid": _REQUESTS,
        "tid": 1,
        "ts": _time(time_s),
    }


def _counter(name: str, time_s: float, value: int) -> Event:
    return {"ph": "C", "name": name, "pid": _ENGINE, "ts": _time(time_s), "args": {"value": value}}


def _time(seconds: float) -> float:
    return round(seconds * _MICROSECONDS, 3)
