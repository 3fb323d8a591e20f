"""Repeat an iteration of decodes for as long as the algorithm could not decide otherwise.

While the batch is every running request, all decoding, and admission is closed for a reason that only a finish
or an arrival can lift, each decision repeats the last. The clock still adds up iteration by iteration, in the
order of the step-by-step run, so both give the same bits; what is saved is all work per request and decision.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import phases_of, requests, running
from infermax_gym.engine.kernel.advance import Log, seconds
from infermax_gym.engine.policy import AdmissionCheck, QueueOrder, RunOrder


@inlined
def is_steady(s: Any) -> Any:
    """Whether the decision just carried out will repeat until something finishes, arrives or runs out."""
    if s.num_prefills > 0 or s.batch_size != s.num_running or s.finished_now > 0 or s.changed:
        return False
    if s.run_order == RunOrder.QUEUE_KEY:
        return False
    if s.num_waiting == 0:
        return True
    moving = (
        s.queue_order == QueueOrder.RESPONSE_RATIO
        or s.admission_check == AdmissionCheck.FUTURE_PEAK
        or s.preempt_for_newcomer
        or s.delay_factor > 0.0
        or s.min_decodes_between_prefills > 0
    )
    return not moving


@inlined
def _horizon(s: Any) -> Any:
    """Iterations until the first finish (exclusive); fills `phases` with who needs a block when."""
    req = requests(s)
    run = running(s)
    phases = phases_of(s)
    phases[:] = 0
    horizon = 2**62
    for i in range(s.num_running):
        q = req[run[i]]
        horizon = min(horizon, q.output - q.generated - 1)
        room = q.held * s.block_size - q.computed
        if room < s.block_size:
            phases[room] += 1
        else:
            horizon = min(horizon, room)
    return horizon


@inlined
def _carry_out(s: Any, count: int, longest_gap_s: float) -> None:
    """Give every running request `count` passes at once."""
    req = requests(s)
    run = running(s)
    for i in range(s.num_running):
        q = req[run[i]]
        q.computed += count
        q.generated += count
        blocks = (q.computed + s.block_size - 1) // s.block_size
        q.held = max(q.held, blocks)
        q.last_token_s = s.clock_s
        q.max_gap_s = max(q.max_gap_s, longest_gap_s)


@compiled
def fast_forward(s: Any, log: Log, limit: int, until_s: float) -> Any:
    """Repeat the last iteration at most `limit` times, not beyond the first end at or after `until_s`.

    Returns how many iterations were run.
    """
    req = requests(s)
    phases = phases_of(s)
    horizon = min(_horizon(s), limit)
    if horizon <= 0:
        return 0
    next_arrival_s = until_s
    if s.next_arrival < s.num_requests:
        next_arrival_s = min(next_arrival_s, req[s.next_arrival].arrival_s)
    count = 0
    phase = 0
    longest_gap_s = 0.0
    while count < horizon and s.clock_s < next_arrival_s and log.used[0] < log.gaps.size:
        needed = phases[phase]
        if needed > s.free_blocks:
            break
        s.free_blocks -= needed
        s.decode_context += s.num_decodes
        duration_s = seconds(s)
        start_s = s.clock_s
        s.clock_s = start_s + duration_s
        s.busy_s += duration_s
        s.kv_block_seconds += (s.num_blocks - s.free_blocks) * duration_s
        gap_s = s.clock_s - start_s
        log.gaps[log.used[0]] = gap_s
        log.gap_counts[log.used[0]] = s.num_running
        log.used[0] += 1
        longest_gap_s = max(longest_gap_s, gap_s)
        count += 1
        phase += 1
        if phase == s.block_size:
            phase = 0
    if count > 0:
        s.num_iterations += count
        s.decodes_since_admission += count
        _carry_out(s, count, longest_gap_s)
    return count
