"""One decision of the unified algorithm: which requests get how many tokens, who is preempted."""

from __future__ import annotations

from typing import Any

from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.admit import admit, displace, resume_swapped
from infermax_gym.engine.kernel.levels import lift_starving
from infermax_gym.engine.kernel.order import order_running, relist
from infermax_gym.engine.kernel.serve import (
    limit_prefills,
    note_backlog,
    serve_all,
    serve_decodes,
    serve_due_decodes,
    serve_prefills,
)
from infermax_gym.engine.policy import PhaseOrder


@inlined
def begin(s: Any) -> None:
    """Empty the batch and open the budgets."""
    s.tokens_left = s.token_budget
    s.prefill_left = s.token_budget
    s.decodes_run = 0
    s.alone = 0
    s.prefills_held = 0
    s.batch_size = 0
    s.group_runs = 0
    s.serving_ended = 0
    s.preempted_in_serve = 0
    s.cleared = 0
    s.changed = 0
    s.num_admitted = 0
    s.num_running_at_start = s.num_running
    s.num_tokens = 0
    s.num_prefills = 0
    s.prefill_work = 0
    s.prefill_context = 0
    s.num_decodes = 0
    s.decode_context = 0


@compiled
def decide(s: Any) -> None:
    """Build the batch of the next iteration."""
    begin(s)
    s.num_decisions += 1
    lift_starving(s)
    resume_swapped(s)
    displace(s)
    order_running(s)
    limit_prefills(s)
    if s.phase_order == PhaseOrder.ONE_LIST:
        serve_all(s)
        admit(s)
    elif s.hold_iterations > 0.0:
        serve_due_decodes(s)
        serve_prefills(s)
        admit(s)
        serve_decodes(s)
    elif s.phase_order == PhaseOrder.DECODE_FIRST:
        serve_decodes(s)
        if s.hybrid or s.num_tokens == 0:
            serve_prefills(s)
            admit(s)
    else:
        serve_prefills(s)
        admit(s)
        if s.hybrid or s.num_tokens == 0:
            serve_decodes(s)
    note_backlog(s)
    relist(s)
