"""The state of an engine as plain memory: records and arrays that every compiled step reads and writes.

An `Engine` is one replica in the middle of a run. Its scalars, the policy's knobs and the addresses of its arrays live
in one record; each request has a record of its own. Copying the arrays copies the state exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.cache import prefix_cache
from infermax_gym.engine.config import EngineConfig
from infermax_gym.engine.policy import (
    NO_LIMIT,
    QUEUE_FEATURES,
    VICTIM_FEATURES,
    Policy,
    QueueOrder,
)
from infermax_gym.engine.tenants import fresh_tenants
from infermax_gym.workload.workload import Workload

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
        ("waiting_since_s", "f8"),
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
    ("prefill_share", "f8"),
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
    ("preempt_for_newcomer", "i8"),
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
    ("quantum_growth", "f8"),
    ("num_levels", "i8"),
    ("skip_join", "i8"),
    ("starvation_s", "f8"),
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
        ("token_budget", "i8"),
        ("num_seats", "i8"),
        ("max_model_len", "i8"),
        ("max_output_tokens", "i8"),
        ("longest_allowed", "i8"),  # I + O beyond this is rejected
        ("floor_context", "i8"),
        # the decision being made
        ("tokens_left", "i8"),
        ("prefill_left", "i8"),
        ("batch_size", "i8"),
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
        ("swaps_done_s", "f8"),  # when the transfers that run beside the computation will be over
        # the lock-step group (kernel.group)
        ("lockstep", "i8"),  # whether decodes may be grouped
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
        ("stalled_iterations", "i8"),  # in a row, without an emitted token
        ("stall_limit", "i8"),
        ("finished_now", "i8"),  # in the last iteration
        ("next_starving_s", "f8"),  # nobody in the queue starves before
        ("output_bin", "i8"),  # tokens per bin of `outputs`
        ("quantiles_stale", "i8"),  # `outputs` has changed since `quantiles` were taken
        # totals
        ("busy_s", "f8"),
        ("kv_block_seconds", "f8"),
        ("system_seconds", "f8"),  # requests in the system, integrated: their latencies so far
        ("unstarted_seconds", "f8"),  # those without a first token: their TTFTs so far
        ("num_iterations", "i8"),
        ("num_decisions", "i8"),  # calls of the scheduling algorithm; fast-forwarded iterations need none
        ("num_preemptions", "i8"),
        ("num_recomputed", "i8"),
        # the policy
        *KNOBS,
        # the prefix cache (kernel.prefix)
        ("prefix_caching", "i8"),
        ("shares_in_batch", "i8"),  # newcomers find what the batch will have computed
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

NUM_BUCKETS = 64
NUM_OUTPUT_BINS = 1024
_LOG_ITERATIONS = 1 << 15


class Engine:
    """One replica in the middle of a run: a record, and the arrays whose addresses the record holds.

    Attributes:
        record: (1,) CORE; what compiled steps get is its element 0.
        arrays: by name:
            req (n,) REQUEST, in order of arrival;
            tree (2 * leaves,) int32, tournament over the waiting requests, leaf i is request i;
            valid (2, 2 * leaves) float64, clock interval in which a node's winner stands (moving keys only);
            run (list_size,) int64, the running list;
            batch (list_size, 2) int64, (request, tokens) in the order granted;
            keys (list_size,) float64, ids (list_size,) int64, skipped (max_skips + 1,) int64,
            fresh (list_size,) int64: scratch;
            phases (block_size,) int64, members of the lock-step group by when they need a block;
            histogram (64, 2) int64, count and sum of I + O of finished requests by floor(log2 I);
            outputs (1024,) int64, finished requests by output length, `output_bin` tokens a bin, and quantiles
            (1024,) int64, the `history_quantile` of those in a bin and beyond, 0 where there are none;
            tenants (num_tenants,) TENANT;
            preempted (preempted_size,) int64, requests preempted since the last recorded iteration, counted by
            element 0;
            nodes, segments, holds: the prefix cache (engine.cache), empty without one;
            theta (num_forms, 9) float64 and term_end (num_terms,) int64, the cost model;
            gaps (gaps_size,) float64 seconds and gap_counts (gaps_size,) int64: that many tokens came that long
            after their request's previous one;
            spans (spans_size, 2) float64, start and end of each iteration, and ends (spans_size, 2) int64, where
            its entries end in members (members_size, 2) int64, (request, tokens), and victims (victims_size,)
            int64: the schedule, if it is recorded.
    """

    def __init__(self, record: Any, arrays: dict[str, NDArray[Any]]) -> None:
        self.record = record
        self.arrays = arrays
        for name in ARRAYS:
            record[f"{name}_address"] = arrays[name].ctypes.data

    def __reduce__(self) -> tuple[Any, ...]:
        # Built anew, so that the record of a duplicate has the addresses of its own arrays.
        return Engine, (self.record, self.arrays)

    @property
    def requests(self) -> Any:
        """(n,) REQUEST, a view."""
        return self.arrays["req"]

    @property
    def now(self) -> Any:
        """The record as compiled steps take it: reading and writing it reads and writes the engine."""
        return self.record[0]

    def copy(self) -> Engine:
        """An independent copy: running either leaves the other as it is."""
        return Engine(self.record.copy(), {name: array.copy() for name, array in self.arrays.items()})


def power_of_two_at_least(value: int) -> int:
    """The smallest power of two that is at least `value` (>= 1)."""
    return 1 << max(0, int(value) - 1).bit_length()


def allocate(
    workload: Workload,
    config: EngineConfig,
    policy: Policy,
    predicted: NDArray[Any] | None = None,
    *,
    record_schedule: bool = False,
    num_slots: int | None = None,
) -> Engine:
    """A fresh engine before the first arrival.

    Args:
        workload: the n requests.
        config: the replica.
        policy: the scheduler.
        predicted: (n,) predicted output tokens for policies that use predictions, else None.
        record_schedule: whether every iteration is written down (its decodes are then served one by one).
        num_slots: None: all requests are in place. Else the engine has room for so many, and holds none of them yet:
            the workload only says what its effective values are, and a router sends some of it here.

    Raises:
        ValueError: `predicted` has another length or holds a number that is not finite and at least 1.
    """
    n = len(workload)
    core = _core(workload, config, policy)
    leaves = power_of_two_at_least(max(n if num_slots is None else num_slots, 1))
    kinetic = policy.queue_order in (QueueOrder.RESPONSE_RATIO, QueueOrder.LOAD_ADAPTIVE)
    # Who runs holds a block, its own but for what a prefix cache lets it share.
    blocks = NO_LIMIT if config.prefix_caching else config.num_blocks
    seats = int(min(core["num_seats"][0], max(n, 1), blocks))
    theta, term_end = config.cost.theta, config.cost.term_end
    core["num_seats"] = seats
    core["list_size"] = seats + 1
    core["num_leaves"] = leaves
    core["kinetic"] = kinetic
    core["lockstep"] = not record_schedule and not _looks_at_each_token(policy)
    core["num_forms"], core["num_terms"] = len(theta), len(term_end)
    if num_slots is not None:
        core["num_requests"] = 0
    core["preempted_size"] = 4 * seats + 8
    arrays = {
        "req": fresh_requests(workload, predicted) if num_slots is None else np.zeros(num_slots, REQUEST),
        "tree": np.full(2 * leaves, -1, np.int32),
        "valid": np.empty((2, 2 * leaves if kinetic else 1)),
        "run": np.zeros(seats + 1, np.int64),
        "batch": np.zeros((seats + 1, 2), np.int64),
        "keys": np.zeros(seats + 1),
        "ids": np.zeros(seats + 1, np.int64),
        "phases": np.zeros(config.block_size, np.int64),
        "fresh": np.zeros(seats + 1, np.int64),
        "histogram": np.zeros((NUM_BUCKETS, 2), np.int64),
        "outputs": np.zeros(NUM_OUTPUT_BINS, np.int64),
        "quantiles": np.zeros(NUM_OUTPUT_BINS, np.int64),
        "tenants": fresh_tenants(workload, policy),
        "skipped": np.zeros(policy.max_skips + 1, np.int64),
        "preempted": np.zeros(4 * seats + 8, np.int64),
        "theta": theta,
        "term_end": term_end,
        **_log(core, seats, record_schedule),
        **prefix_cache(core, workload, config, policy, num_slots),
    }
    core["num_tenants"] = len(arrays["tenants"])
    arrays["valid"][0] = -np.inf
    arrays["valid"][1] = np.inf
    return Engine(core, arrays)


def _log(core: Any, seats: int, record_schedule: bool) -> dict[str, NDArray[Any]]:
    spans = _LOG_ITERATIONS if record_schedule else 0
    core["gaps_size"] = _LOG_ITERATIONS + 2 * seats
    core["spans_size"] = spans
    core["members_size"] = 4 * spans + 2 * seats if record_schedule else 0
    core["victims_size"] = spans + 8 * seats + 16 if record_schedule else 0
    return {
        "gaps": np.zeros(int(core["gaps_size"][0])),
        "gap_counts": np.zeros(int(core["gaps_size"][0]), np.int64),
        "spans": np.zeros((spans, 2)),
        "ends": np.zeros((spans, 2), np.int64),
        "members": np.zeros((int(core["members_size"][0]), 2), np.int64),
        "victims": np.zeros(int(core["victims_size"][0]), np.int64),
    }


def fresh_requests(
    workload: Workload, predicted: NDArray[Any] | None = None, rows: slice = slice(None)
) -> NDArray[Any]:
    """(n,) REQUEST: the requests `rows` of a workload, before they arrive; arguments as in `allocate`."""
    req = np.zeros(len(workload.arrival_s[rows]), REQUEST)
    req["prompt"] = workload.num_prompt_tokens[rows]
    req["output"] = workload.num_output_tokens[rows]
    req["arrival_s"] = req["level_place_s"] = workload.arrival_s[rows]
    req["priority"] = workload.priority[rows]
    req["tenant"] = workload.tenant[rows]
    req["slo_ttft_s"] = np.where(np.isfinite(workload.ttft_slo_s[rows]), workload.ttft_slo_s[rows], 0.0)
    req["slo_tpot_s"] = np.where(np.isfinite(workload.tpot_slo_s[rows]), workload.tpot_slo_s[rows], 0.0)
    req["number"] = np.arange(len(workload))[rows]
    req["batch_slot"] = -1
    req["in_prefill"] = 1
    for name in ("last_token_s", "first_scheduled_s", "first_token_s", "finish_s"):
        req[name] = np.nan
    if predicted is not None:
        values = np.asarray(predicted, dtype=np.float64)
        if values.shape != (len(workload),):
            raise ValueError(f"predicted has shape {values.shape}, expected ({len(workload)},)")
        if not np.all(np.isfinite(values) & (values >= 1.0)):
            raise ValueError("predicted output tokens must be finite and at least 1")
        req["prediction"] = req["first_prediction"] = values[rows]
    return req


def _looks_at_each_token(policy: Policy) -> bool:
    """Whether decodes must be served one by one, as something about each changes with every token."""
    fair = policy.queue_order == QueueOrder.FAIR
    return fair or policy.quantum_s > 0.0 or policy.hold_iterations > 0.0 or policy.refresh_tokens > 0


def _core(workload: Workload, config: EngineConfig, policy: Policy) -> Any:
    longest = int((workload.num_prompt_tokens + workload.num_output_tokens).max(initial=1))
    model_len = config.max_model_len or power_of_two_at_least(longest)
    budget = policy.max_num_batched_tokens or config.max_num_batched_tokens
    if not policy.chunking:
        budget = max(budget, model_len)
    core = np.zeros(1, CORE)
    for knob in KNOBS:
        core[knob[0]] = getattr(policy, knob[0])
    core["num_requests"] = len(workload)
    core["block_size"] = config.block_size
    core["num_blocks"] = core["free_blocks"] = config.num_blocks
    core["watermark_blocks"] = math.floor(policy.watermark * config.num_blocks)
    core["host_free_tokens"] = config.num_host_kv_tokens
    core["swap_tokens_per_s"] = config.swap_tokens_per_s
    core["token_budget"] = budget
    core["num_seats"] = min(config.max_num_seqs, policy.max_running or NO_LIMIT)
    core["max_model_len"] = model_len
    core["max_output_tokens"] = config.max_output_tokens or power_of_two_at_least(
        int(workload.num_output_tokens.max(initial=1))
    )
    core["longest_allowed"] = config.max_model_len or NO_LIMIT
    core["floor_context"] = config.cost.floor_context
    chunk = min(budget, policy.max_chunk)
    core["stall_limit"] = 64 + 2 * -(-config.num_blocks * config.block_size // chunk)
    core["group_ends"] = core["group_roomy_until"] = NO_LIMIT
    core["decodes_since_admission"] = NO_LIMIT
    core["next_starving_s"] = np.inf
    core["output_bin"] = -(-int(core["max_output_tokens"][0]) // NUM_OUTPUT_BINS)
    return core
