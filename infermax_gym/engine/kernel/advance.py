"""Run the decided batch: the clock, the tokens, the finishes and what is recorded of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import batch_of, histogram_of, preempted_of, requests, running, term_ends_of, theta_of
from infermax_gym.cost.kernel import batch_seconds
from infermax_gym.engine.kernel.fit import bucket_of
from infermax_gym.engine.kernel.keys import set_queue_key
from infermax_gym.engine.kernel.queue import push
from infermax_gym.engine.state import FINISHED, REJECTED, WAITING


class Log(NamedTuple):
    """What a run writes down as it goes, in buffers that the caller empties when they are full.

    Attributes:
        used: (4,) int64, entries used of gaps, spans, members, preempted.
        gaps: (g,) float64, inter-token gaps in seconds.
        gap_counts: (g,) int64, how many tokens had that gap.
        spans: (i, 2) float64, start and end of each iteration; empty unless the schedule is recorded.
        ends: (i, 2) int64, where the iteration's entries in members and preempted end.
        members: (m, 2) int64, (request, tokens).
        preempted: (p,) int64, requests.
    """

    used: NDArray[np.int64]
    gaps: NDArray[np.float64]
    gap_counts: NDArray[np.int64]
    spans: NDArray[np.float64]
    ends: NDArray[np.int64]
    members: NDArray[np.int64]
    preempted: NDArray[np.int64]


@inlined
def has_room(s: Any, log: Log) -> Any:
    """Whether one more iteration, whatever it does, fits the log."""
    run = running(s)
    preempted = preempted_of(s)
    seats = run.size
    if log.used[0] + seats + 1 > log.gaps.size:
        return False
    if log.spans.shape[0] == 0:
        return True
    return (
        log.used[1] < log.spans.shape[0]
        and log.used[2] + seats <= log.members.shape[0]
        and log.used[3] + preempted[0] <= log.preempted.size
    )


@inlined
def _record_gap(log: Log, gap_s: float, count: int) -> None:
    log.gaps[log.used[0]] = gap_s
    log.gap_counts[log.used[0]] = count
    log.used[0] += 1


@inlined
def _record_iteration(s: Any, log: Log, start_s: float, end_s: float) -> None:
    batch = batch_of(s)
    preempted = preempted_of(s)
    if log.spans.shape[0] > 0:
        for i in range(s.batch_size):
            log.members[log.used[2], 0] = batch[i, 0]
            log.members[log.used[2], 1] = batch[i, 1]
            log.used[2] += 1
        for i in range(preempted[0]):
            log.preempted[log.used[3]] = preempted[i + 1]
            log.used[3] += 1
        log.spans[log.used[1], 0] = start_s
        log.spans[log.used[1], 1] = end_s
        log.ends[log.used[1], 0] = log.used[2]
        log.ends[log.used[1], 1] = log.used[3]
        log.used[1] += 1
    preempted[0] = 0


@inlined
def seconds(s: Any) -> Any:
    """Duration of the batch in seconds, swap transfers not counted."""
    theta = theta_of(s)
    term_end = term_ends_of(s)
    return batch_seconds(
        theta,
        term_end,
        s.floor_context != 0,
        s.num_tokens,
        s.prefill_work,
        s.num_prefills,
        s.prefill_context,
        s.decode_context,
        s.num_decodes,
    )


@inlined
def arrive(s: Any) -> None:
    """Requests that have arrived by now join the queue; those that can never fit are rejected."""
    req = requests(s)
    while s.next_arrival < s.num_requests and req[s.next_arrival].arrival_s <= s.clock_s:
        r = s.next_arrival
        s.next_arrival += 1
        q = req[r]
        peak_blocks = (q.prompt + q.output - 1 + s.block_size - 1) // s.block_size
        if peak_blocks > s.num_blocks or q.prompt + q.output > s.longest_allowed:
            q.place = REJECTED
            s.num_rejected += 1
            continue
        q.place = WAITING
        set_queue_key(s, r)
        push(s, r)


@compiled
def _finish(s: Any, r: int, end_s: float) -> None:
    req = requests(s)
    histogram = histogram_of(s)
    q = req[r]
    q.finish_s = end_s
    q.place = FINISHED
    if s.release_at_batch_end:
        s.withheld_blocks += q.held
    else:
        s.free_blocks += q.held
    q.held = 0
    s.num_finished += 1
    s.finished_now += 1
    bucket = bucket_of(q.prompt)
    histogram[bucket, 0] += 1
    histogram[bucket, 1] += q.prompt + q.output


@inlined
def _drop_finished(s: Any) -> None:
    """Close the gaps that finished requests leave in the running list."""
    req = requests(s)
    run = running(s)
    kept = 0
    for i in range(s.num_running):
        r = run[i]
        if req[r].place != FINISHED:
            run[kept] = r
            kept += 1
    s.num_running = kept
    if kept == 0 and s.withheld_blocks > 0:
        s.free_blocks += s.withheld_blocks
        s.withheld_blocks = 0


@inlined
def _pass_tokens(s: Any, log: Log, start_s: float, end_s: float) -> Any:
    """Every member of the batch computes its tokens; returns how many requests emitted one."""
    req = requests(s)
    batch = batch_of(s)
    emitted = 0
    contiguous = 0
    for slot in range(s.batch_size):
        r = batch[slot, 0]
        q = req[r]
        q.batch_slot = -1
        q.computed += batch[slot, 1]
        if q.in_prefill:
            if math.isnan(q.first_scheduled_s):
                q.first_scheduled_s = start_s
            if q.computed < q.prompt + q.generated:
                continue
            q.in_prefill = 0
            s.num_running_prefills -= 1
        q.generated += 1
        emitted += 1
        if q.generated == 1:
            q.first_token_s = end_s
        else:
            gap_s = end_s - q.last_token_s
            if q.last_token_s == start_s:
                contiguous += 1
            else:
                _record_gap(log, gap_s, 1)
            if gap_s > q.max_gap_s:
                q.max_gap_s = gap_s
        q.last_token_s = end_s
        if q.generated == q.output:
            _finish(s, r, end_s)
    if contiguous > 0:
        _record_gap(log, end_s - start_s, contiguous)
    return emitted


@compiled
def advance(s: Any, log: Log) -> None:
    """Run the batch that was decided."""
    duration_s = seconds(s)
    if s.swapped_tokens > 0:
        duration_s += s.swapped_tokens / s.swap_tokens_per_s
        s.swapped_tokens = 0
    start_s = s.clock_s
    end_s = start_s + duration_s
    s.clock_s = end_s
    s.busy_s += duration_s
    s.kv_block_seconds += (s.num_blocks - s.free_blocks) * duration_s
    s.num_iterations += 1
    _record_iteration(s, log, start_s, end_s)
    s.finished_now = 0
    emitted = _pass_tokens(s, log, start_s, end_s)
    if s.finished_now > 0:
        _drop_finished(s)
    s.stalled_iterations = 0 if emitted > 0 else s.stalled_iterations + 1
    if s.num_admitted > 0:
        s.decodes_since_admission = 0
    elif s.num_prefills == 0:
        s.decodes_since_admission += 1
    if s.num_prefills > 0:
        s.last_prefill_s = duration_s
