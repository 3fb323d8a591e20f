"""The layout of an engine's memory: one record for its scalars, knobs and addresses, one for each request.

`infermax_gym.engine.state` makes and fills them; every compiled step reads and writes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermax_gym.engine.policy import QUEUE_FEATURES, VICTIM_FEATURES

# Places of a request.
FUTURE = 0  # not arrived
WAITING = 1
RUNNING = 2
FINISHED = 3
REJECTED = 4
LANDING = 5  # its KV has come from another replica; it joins the running list at the next boundary
MOVED = 6  # to another replica

# The fields that every pass touches come first, so that they share a cache line.
REQUEST = np.dtype(
    [
        ("computed", "i8"),  # m: KV tokens resident (or on the host)
        ("generated", "i8"),  # g
        ("held", "i8"),  # blocks held
        ("output", "i8"),  # O; read by `advance` alone, to see the end
        ("last_token_s", "f8"),
        ("batch_slot", "i4"),  # index into the batch being built, -1 outside it
        ("place", "i1"),
        ("in_prefill", "i1"),
        ("on_host", "i1"),
        ("grouped", "i1"),  # computed and generated are stored minus the group's tick
        ("phased", "i1"),  # counted in the group's `phases`
        ("touched", "i1"),  # by an outside agent since the last iteration: 1 admitted, 2 preempted
        ("fresh", "i1"),  # in the group, but not yet run with it
        ("paused", "i1"),  # a running prefill that gets no tokens; no policy of the table pauses, controllers do
        ("prompt", "i8"),  # I
        ("first_scheduled_s", "f8"),
        ("first_token_s", "f8"),
        ("finish_s", "f8"),
        ("arrival_s", "f8"),
        ("prediction", "f8"),  # predicted output tokens; 0 where the policy has none
        ("first_prediction", "f8"),  # before it was refreshed
        ("priority", "f8"),
        ("slo_ttft_s", "f8"),  # 0 where there is none
        ("slo_tpot_s", "f8"),  # 0 where there is none
        ("key", "f8"),  # queue key: key + slope * x
        ("slope", "f8"),
        ("preemptions", "i8"),
        ("recomputed", "i8"),
        ("level", "i8"),
        ("level_place_s", "f8"),
        ("level_run_s", "f8"),  # run time in this level
        ("level_iterations", "i8"),  # iterations in this level
        ("waiting_since_s", "f8"),
        ("waiting_since_iteration", "i8"),  # iterations of the engine before it
        ("tenant", "i8"),  # index into tenants
        ("next_of_tenant", "i8"),  # the next arrival of the same tenant, -1 for the last
        ("number", "i8"),  # in the workload
    ],
    align=True,
)

# The arrays of an engine, besides its record.
LOG_ARRAYS = ("gaps", "gap_counts", "spans", "ends", "members", "victims")
ARRAYS = (
    "req",
    "tree",
    "valid",
    "run",
    "batch",
    "keys",
    "ids",
    "phases",
    "fresh",
    "histogram",
    "outputs",
    "quantiles",
    "tenants",
    "skipped",
    "preempted",
    "theta",
    "term_end",
    "nodes",
    "segments",
    "holds",
    *LOG_ARRAYS,
)

KNOBS: list[Any] = [
    ("phase_order", "i8"),
    ("hybrid", "i8"),
    ("queue_order", "i8"),
    ("load_aging", "f8"),
    ("queue_weights", "f8", (len(QUEUE_FEATURES),)),
    ("run_order", "i8"),
    ("chunking", "i8"),
    ("max_chunk", "i8"),
    ("uncapped_when_alone", "i8"),
    ("min_chunk", "i8"),
    ("max_prefills", "i8"),
    ("prefill_interval", "i8"),
    ("prefill_share", "f8"),
    ("prefill_share_from", "i8"),
    ("reserve", "i8"),
    ("admission_check", "i8"),
    ("estimate", "i8"),
    ("headroom_tokens", "f8"),
    ("peak_margin", "f8"),
    ("on_misfit", "i8"),
    ("max_skips", "i8"),
    ("victim", "i8"),
    ("victim_weights", "f8", (len(VICTIM_FEATURES),)),
    ("victim_pool", "i8"),
    ("evict_share", "f8"),
    ("pin_after", "f8"),
    ("self_preemption_ends", "i8"),
    ("admit_after_preemption", "i8"),
    ("preempt_for_waiting", "i8"),
    ("preempt_mode", "i8"),
    ("admit_when_empty_only", "i8"),
    ("release_at_batch_end", "i8"),
    ("delay_factor", "f8"),
    ("min_decodes_between_prefills", "i8"),
    ("history_quantile", "f8"),
    ("max_iteration_s", "f8"),
    ("min_waiting", "i8"),
    ("overlap_swaps", "i8"),
    ("swap_lag_tokens", "i8"),
    ("hold_iterations", "f8"),
    ("hold_tpot_s", "f8"),
    ("quantum_s", "f8"),
    ("quantum_iterations", "i8"),
    ("quantum_growth", "f8"),
    ("mlfq_levels", "i8"),
    ("skip_join", "i8"),
    ("starvation_s", "f8"),
    ("starvation_iterations", "i8"),
    ("starvation_every", "i8"),
    ("prompt_charge", "f8"),
    ("output_charge", "f8"),
    ("refresh_tokens", "i8"),
]

CORE = np.dtype(
    [
        # clock and counts
        ("clock_s", "f8"),
        ("num_requests", "i8"),
        ("next_arrival", "i8"),  # first request that has not arrived
        ("num_waiting", "i8"),
        ("waiting_tokens", "i8"),  # their known tokens
        ("num_unstarted", "i8"),  # arrived, without a first token
        ("num_good", "i8"),  # finished within their SLOs
        ("num_running", "i8"),
        ("num_running_prefills", "i8"),
        ("num_finished", "i8"),
        ("num_rejected", "i8"),
        ("num_moved", "i8"),  # to other replicas
        # memory
        ("block_size", "i8"),
        ("num_blocks", "i8"),
        ("free_blocks", "i8"),
        ("withheld_blocks", "i8"),  # of finished requests, until nothing runs (release_at_batch_end)
        ("watermark_blocks", "i8"),
        ("host_free_tokens", "i8"),
        ("swap_tokens_per_s", "f8"),
        # caps
        ("token_budget", "i8"),  # under the policy ...
        ("max_num_seqs", "i8"),
        ("replica_token_budget", "i8"),  # ... and without one
        ("max_model_len", "i8"),
        ("max_output_tokens", "i8"),
        ("longest_allowed", "i8"),  # I + O beyond this is rejected
        ("floor_context", "i8"),
        # the decision being made
        ("tokens_left", "i8"),
        ("prefill_left", "i8"),
        ("batch_size", "i8"),
        ("decodes_run", "i8"),  # when serving begins
        ("alone", "i8"),  # one request runs or waits, and `uncapped_when_alone`
        ("prefills_held", "i8"),  # by `prefill_interval`
        ("serving_ended", "i8"),
        ("preempted_in_serve", "i8"),
        ("cleared", "i8"),  # `evict_share` has had its victims in this decision
        ("changed", "i8"),  # somebody was preempted or resumed in this decision
        ("num_admitted", "i8"),
        ("num_running_at_start", "i8"),
        # the batch's features
        ("num_tokens", "i8"),
        ("num_prefills", "i8"),
        ("prefill_work", "i8"),
        ("prefill_context", "i8"),
        ("num_decodes", "i8"),
        ("decode_context", "i8"),
        ("swapped_tokens", "i8"),
        ("pending_swap_tokens", "i8"),  # whose transfer beside the computation is not over at the clock
        ("swap_share", "f8"),  # of the first of them, what is over
        # the lock-step group (kernel.group)
        ("lockstep", "i8"),  # whether decodes may be grouped
        ("one_by_one", "i8"),  # whatever the policy, they may not
        ("tick", "i8"),
        ("group_size", "i8"),
        ("group_context", "i8"),  # sum of resident tokens
        ("group_ends", "i8"),  # no member finishes before this tick
        ("group_roomy_until", "i8"),  # until this tick `phases` holds every member that may need a block
        ("group_last_s", "f8"),  # when the group last emitted
        ("group_runs", "i8"),  # the group is part of the batch being built
        ("group_slot", "i8"),  # and stands before this entry of it
        ("num_fresh", "i8"),
        # memory of the policy
        ("front_key", "f8"),  # FIFO key of the last request put in front
        ("run_unsorted", "i8"),  # the running list may not be in order of arrival
        ("last_prefill_s", "f8"),  # duration of the last iteration with prefill tokens
        ("decodes_since_admission", "i8"),
        ("last_prefill_iteration", "i8"),  # counted from 1
        ("prefills_backed_up", "i8"),  # some still waited when prefills were last not held
        ("stalled_iterations", "i8"),  # in a row, without an emitted token
        ("stall_limit", "i8"),
        ("finished_now", "i8"),  # in the last iteration
        ("next_starving_s", "f8"),  # nobody in the queue starves before
        ("next_starving_iteration", "i8"),
        ("wasteful", "i8"),  # the progress guard holds until a request finishes: too much was recomputed
        ("output_bin", "i8"),  # tokens per bin of `outputs`
        ("quantiles_stale", "i8"),  # `outputs` has changed since `quantiles` were taken
        # asynchronous scheduling (kernel.lag)
        ("asynchronous", "i8"),
        ("lingers", "i8"),  # finished requests keep blocks and places until the next decision is made
        ("num_lingering", "i8"),
        ("seen_until_s", "f8"),  # arrivals up to then have been seen
        # totals
        ("busy_s", "f8"),
        ("kv_block_seconds", "f8"),
        ("system_seconds", "f8"),  # requests in the system, integrated: their latencies so far
        ("unstarted_seconds", "f8"),  # those without a first token: their TTFTs so far
        ("num_iterations", "i8"),
        ("num_decisions", "i8"),  # calls of the scheduling algorithm; fast-forwarded iterations need none
        ("num_preemptions", "i8"),
        ("num_recomputed", "i8"),
        ("num_computed", "i8"),  # tokens of all batches
        ("num_guarded", "i8"),  # iterations under the progress guard
        # the policy
        *KNOBS,
        # the prefix cache (kernel.prefix)
        ("prefix_caching", "i8"),
        ("empty_blocks_first", "i8"),
        ("shares_in_batch", "i8"),  # waiting requests find what the batch will have computed
        ("queued_blocks", "i8"),  # in the queue; more than the free ones until it is settled
        ("oldest_segment", "i8"),
        ("newest_segment", "i8"),
        ("spare_segment", "i8"),
        ("first_withheld", "i8"),
        ("last_withheld", "i8"),
        ("num_nodes", "i8"),
        ("num_segments", "i8"),
        ("num_holds", "i8"),
        ("num_cached", "i8"),  # tokens found in the prefix cache by requests that had not computed them
        # sizes and addresses of the arrays
        ("list_size", "i8"),
        ("num_leaves", "i8"),
        ("num_tenants", "i8"),
        ("kinetic", "i8"),  # queue keys move with the clock
        # what is written down as the run goes; the caller empties it when it is full
        ("num_gaps", "i8"),
        ("num_spans", "i8"),
        ("num_members", "i8"),
        ("num_victims", "i8"),
        ("gaps_size", "i8"),
        ("spans_size", "i8"),  # 0 unless the schedule is recorded
        ("members_size", "i8"),
        ("victims_size", "i8"),
        ("num_forms", "i8"),
        ("num_terms", "i8"),
        ("preempted_size", "i8"),
        *[(f"{name}_address", "i8") for name in ARRAYS],
    ],
    align=True,
)

NUM_SCALARS = CORE.fields["list_size"][1] // 8  # type: ignore[index]
"""Leading words of a CORE that say where an engine stands; sizes and addresses come after them."""

WASTE_LIMIT = 32
"""Tokens recomputed for each one needed so far, and each of the KV capacity, beyond which the progress guard holds."""

NUM_BUCKETS = 64
NUM_OUTPUT_BINS = 1024
