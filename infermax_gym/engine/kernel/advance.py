"""Run the decided batch: the clock, the tokens, the finishes and what is recorded of them."""

from __future__ import annotations

import math
from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.evict import guarded, release_withheld
from infermax_gym.engine.kernel.fair import charge, note_arrival
from infermax_gym.engine.kernel.fit import bucket_of
from infermax_gym.engine.kernel.group import FAR, leave_group
from infermax_gym.engine.kernel.history import learn_output
from infermax_gym.engine.kernel.keys import set_queue_key
from infermax_gym.engine.kernel.levels import begin_wait, sink, start_level
from infermax_gym.engine.kernel.memory import (
    batch_of,
    ends_of,
    fresh_of,
    gap_counts_of,
    gaps_of,
    histogram_of,
    members_of,
    preempted_of,
    requests,
    running,
    spans_of,
    victims_of,
)
from infermax_gym.engine.kernel.move import seat
from infermax_gym.engine.kernel.prefix import publish_shared, release, withhold
from infermax_gym.engine.kernel.queue import push
from infermax_gym.engine.kernel.seconds import seconds
from infermax_gym.engine.layout import FINISHED, LANDING, REJECTED, WAITING, WASTE_LIMIT
from infermax_gym.engine.policy import QueueOrder


@inlined
def has_room(s: Any) -> Any:
    """Whether the log has room for one more iteration, whatever it does."""
    preempted = preempted_of(s)
    if s.num_gaps + s.list_size > s.gaps_size:
        return False
    if s.spans_size == 0:
        return True
    return (
        s.num_spans < s.spans_size
        and s.num_members + s.list_size <= s.members_size
        and s.num_victims + preempted[0] + s.list_size <= s.victims_size
    )


@inlined
def record_gap(s: Any, gap_s: float, count: int) -> None:
    """Write down that `count` tokens came `gap_s` after their predecessors."""
    gaps = gaps_of(s)
    gap_counts = gap_counts_of(s)
    gaps[s.num_gaps] = gap_s
    gap_counts[s.num_gaps] = count
    s.num_gaps += 1


@compiled
def _record_iteration(s: Any, start_s: float, end_s: float) -> None:
    batch = batch_of(s)
    preempted = preempted_of(s)
    members = members_of(s)
    victims = victims_of(s)
    spans = spans_of(s)
    ends = ends_of(s)
    for i in range(s.batch_size):
        members[s.num_members, 0] = batch[i, 0]
        members[s.num_members, 1] = batch[i, 1]
        s.num_members += 1
    for i in range(preempted[0]):
        victims[s.num_victims] = preempted[i + 1]
        s.num_victims += 1
    spans[s.num_spans, 0] = start_s
    spans[s.num_spans, 1] = end_s
    ends[s.num_spans, 0] = s.num_members
    ends[s.num_spans, 1] = s.num_victims
    s.num_spans += 1


@inlined
def arrive(s: Any) -> None:
    """Requests that have arrived by now join the queue; those that can never fit are rejected."""
    req = requests(s)
    until_s = s.seen_until_s if s.asynchronous else s.clock_s
    while s.next_arrival < s.num_requests and req[s.next_arrival].arrival_s <= until_s:
        r = s.next_arrival
        s.next_arrival += 1
        q = req[r]
        if q.place == LANDING:
            seat(s, r)
            continue
        peak_blocks = (q.prompt + q.output - 1 + s.block_size - 1) // s.block_size
        if peak_blocks > s.num_blocks or q.prompt + q.output > s.longest_allowed:
            q.place = REJECTED
            s.num_rejected += 1
            continue
        s.system_seconds += s.clock_s - q.arrival_s
        if q.generated == 0:  # not handed over by a prefill replica
            s.num_unstarted += 1
            s.unstarted_seconds += s.clock_s - q.arrival_s
        q.place = WAITING
        begin_wait(s, r, q.arrival_s)
        if s.skip_join:
            start_level(s, r)
        if s.queue_order == QueueOrder.FAIR:
            note_arrival(s, r)
        set_queue_key(s, r)
        push(s, r)


@compiled
def _finish(s: Any, r: int, end_s: float) -> None:
    req = requests(s)
    histogram = histogram_of(s)
    q = req[r]
    q.finish_s = end_s
    q.place = FINISHED
    if not s.prefix_caching:  # else in `_drop_finished`, in the order of the running list
        if s.release_at_batch_end or s.lingers:
            s.withheld_blocks += q.held
        else:
            s.free_blocks += q.held
        q.held = 0
    s.num_finished += 1
    tpot_s = (end_s - q.first_token_s) / max(q.output - 1, 1)
    late = q.slo_ttft_s > 0.0 and q.first_token_s - q.arrival_s > q.slo_ttft_s
    slow = q.slo_tpot_s > 0.0 and tpot_s > q.slo_tpot_s
    s.num_good += not (late or slow)
    s.finished_now += 1
    bucket = bucket_of(q.prompt)
    histogram[bucket, 0] += 1
    histogram[bucket, 1] += q.prompt + q.output
    learn_output(s, q.output)


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
        elif s.prefix_caching:
            if s.release_at_batch_end or s.lingers:
                withhold(s, r)
            else:
                release(s, r)
    s.num_running = kept
    if kept == 0 and not s.lingers:
        release_withheld(s)


@inlined
def _refresh(q: Any) -> None:
    """The predictor looks again: its first relative error, now on what remains."""
    q.prediction = q.generated + (q.output - q.generated) * (q.first_prediction / q.output)


@inlined
def _pass_tokens(s: Any, start_s: float, end_s: float) -> Any:
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
        if s.prefix_caching:
            publish_shared(s, r, q.computed)
        if q.in_prefill:
            if math.isnan(q.first_scheduled_s):
                q.first_scheduled_s = start_s
            if q.computed < q.prompt + q.generated:
                continue
            q.in_prefill = 0
            s.num_running_prefills -= 1
        q.generated += 1
        emitted += 1
        if s.queue_order == QueueOrder.FAIR:
            charge(s, r, s.output_charge)
        if s.refresh_tokens > 0 and q.generated % s.refresh_tokens == 0:
            _refresh(q)
        if q.generated == 1:
            q.first_token_s = end_s
            s.num_unstarted -= 1
        else:
            gap_s = end_s - q.last_token_s
            if q.last_token_s == start_s:
                contiguous += 1
            else:
                record_gap(s, gap_s, 1)
        q.last_token_s = end_s
        if q.generated == q.output:
            _finish(s, r, end_s)
    if contiguous > 0:
        record_gap(s, end_s - start_s, contiguous)
    return emitted


@inlined
def _pass_group(s: Any, end_s: float) -> None:
    """The lock-step group, part of this iteration, emits a token per member."""
    req = requests(s)
    run = running(s)
    fresh = fresh_of(s)
    for i in range(s.num_fresh):
        q = req[fresh[i]]
        q.fresh = 0
        record_gap(s, end_s - q.last_token_s, 1)
    if s.group_size > s.num_fresh:
        record_gap(s, end_s - s.group_last_s, s.group_size - s.num_fresh)
    s.num_fresh = 0
    s.group_last_s = end_s
    s.tick += 1
    s.group_context += s.group_size
    if s.tick < s.group_ends:
        return
    ends = FAR
    for i in range(s.num_running):
        q = req[run[i]]
        if q.grouped:
            if q.generated + s.tick == q.output:
                leave_group(s, q)
                _finish(s, run[i], end_s)
            else:
                ends = min(ends, q.output - q.generated)
    s.group_ends = ends


@inlined
def account(s: Any, duration_s: float) -> None:
    """Add an iteration's duration to the totals that integrate over time."""
    s.busy_s += duration_s
    s.kv_block_seconds += (s.num_blocks - s.free_blocks) * duration_s
    s.system_seconds += (s.num_waiting + s.num_running) * duration_s
    s.unstarted_seconds += s.num_unstarted * duration_s


@inlined
def drain_swaps(s: Any, duration_s: float) -> None:
    """Let pending transfers go on for `duration_s`. Whole tokens are counted, so rounding cannot reach the limit."""
    if s.pending_swap_tokens == 0:
        return
    done = s.swap_share + duration_s * s.swap_tokens_per_s
    if done >= s.pending_swap_tokens:
        s.pending_swap_tokens = 0
        s.swap_share = 0.0
    else:
        whole = int(done)
        s.pending_swap_tokens -= whole
        s.swap_share = done - whole


@inlined
def _with_swaps(s: Any, compute_s: float) -> Any:
    """Seconds of an iteration that computes for `compute_s` and moves `swapped_tokens`."""
    moved = s.swapped_tokens
    if moved == 0 and s.pending_swap_tokens == 0:
        return compute_s
    s.swapped_tokens = 0
    if not s.overlap_swaps:
        return compute_s + moved / s.swap_tokens_per_s
    s.pending_swap_tokens += moved
    wait_s = (s.pending_swap_tokens - s.swap_lag_tokens - s.swap_share) / s.swap_tokens_per_s
    drain_swaps(s, compute_s)
    if compute_s < wait_s or s.pending_swap_tokens > s.swap_lag_tokens:
        s.pending_swap_tokens = s.swap_lag_tokens
        s.swap_share = 0.0
    return max(compute_s, wait_s)


@inlined
def _watch_waste(s: Any) -> None:
    """The progress guard begins to hold with too much waste, and ends with a finish and no more of it."""
    needed = s.num_computed - s.num_recomputed + s.num_cached
    if s.num_recomputed > WASTE_LIMIT * (needed + s.num_blocks * s.block_size):
        s.wasteful = 1
    elif s.finished_now > 0:
        s.wasteful = 0


@compiled
def advance(s: Any) -> None:
    """Run the batch that was decided."""
    compute_s = seconds(s)
    duration_s = _with_swaps(s, compute_s)
    start_s = s.clock_s
    end_s = start_s + duration_s
    s.clock_s = end_s
    s.seen_until_s = start_s
    account(s, duration_s)
    s.num_iterations += 1
    if s.spans_size > 0:
        _record_iteration(s, start_s, end_s)
    preempted_of(s)[0] = 0
    s.finished_now = 0
    s.num_computed += s.num_tokens
    s.num_guarded += guarded(s)
    if s.quantum_s > 0.0 or s.quantum_iterations > 0:
        sink(s, compute_s)
    emitted = _pass_tokens(s, start_s, end_s)
    if s.group_runs:
        emitted += s.group_size
        _pass_group(s, end_s)
    if s.finished_now > 0:
        _drop_finished(s)
    if s.lingers:
        s.num_lingering = s.finished_now
    s.stalled_iterations = 0 if emitted > 0 else s.stalled_iterations + 1
    _watch_waste(s)
    if s.num_admitted > 0:
        s.decodes_since_admission = 0
    elif s.num_prefills == 0:
        s.decodes_since_admission += 1
    if s.num_prefills > 0:
        s.last_prefill_s = duration_s
        s.last_prefill_iteration = s.num_iterations
