"""Repeat an iteration of decodes for as long as the algorithm could not decide otherwise.

While the batch is the lock-step group alone, and admission is closed for a reason that only a finish or an arrival
can lift, each decision repeats the last. The clock still adds up iteration by iteration, in the order of the
step-by-step run, so both give the same bits; what is saved is the deciding.
"""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.advance import account, record_gap
from infermax_gym.engine.kernel.evict import guarded
from infermax_gym.engine.kernel.memory import phases_of, requests
from infermax_gym.engine.kernel.seconds import seconds
from infermax_gym.engine.policy import AdmissionCheck, QueueOrder, RunOrder


@inlined
def is_steady(s: Any) -> Any:
    """Whether the decision just carried out will repeat until something finishes, arrives or runs out."""
    alone = s.group_runs and s.group_size == s.num_running
    if not alone or s.num_prefills > 0 or s.finished_now > 0 or s.changed or s.run_order == RunOrder.QUEUE_KEY:
        return False
    if s.pending_swap_tokens > 0:
        return False
    if s.num_waiting == 0:
        return True
    moving = (
        s.queue_order == QueueOrder.RESPONSE_RATIO
        or s.admission_check == AdmissionCheck.FUTURE_PEAK
        or s.preempt_for_waiting
        or s.delay_factor > 0.0
        or s.min_decodes_between_prefills > 0
        or s.prefill_interval > 1
        or s.starvation_s > 0.0
        or s.starvation_iterations > 0
        or s.max_iteration_s > 0.0
        or s.swap_lag_tokens > 0
    )
    return not moving


@compiled
def fast_forward(s: Any, limit: int, until_s: float) -> Any:
    """Repeat the last iteration at most `limit` times, not beyond the first end at or after `until_s`.

    Returns how many iterations were run.
    """
    req = requests(s)
    phases = phases_of(s)
    horizon = min(limit, s.group_ends - s.tick - 1, s.group_roomy_until - s.tick)
    if s.next_arrival < s.num_requests:
        until_s = min(until_s, req[s.next_arrival].arrival_s)
    count = 0
    start_s = s.clock_s
    while count < horizon and s.clock_s < until_s and s.num_gaps < s.gaps_size:
        needed = phases[s.tick % s.block_size]
        if needed > s.free_blocks:
            break
        s.free_blocks -= needed
        s.decode_context += s.num_decodes
        duration_s = seconds(s)
        start_s = s.clock_s
        s.clock_s = start_s + duration_s
        account(s, duration_s)
        record_gap(s, s.clock_s - start_s, s.group_size)
        s.tick += 1
        count += 1
    if count > 0:
        s.seen_until_s = start_s
        s.group_last_s = s.clock_s
        s.group_context += count * s.group_size
        s.num_iterations += count
        s.num_computed += count * s.num_decodes
        s.num_guarded += count * guarded(s)
        s.decodes_since_admission += count
    return count
