"""The state of an engine as plain memory: records and arrays (`engine.records`) that compiled steps read and write.

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
from infermax_gym.engine.layout import ARRAYS, CORE, FINISHED, KNOBS, NUM_BUCKETS, NUM_OUTPUT_BINS, REQUEST, WAITING
from infermax_gym.engine.policy import NO_LIMIT, PhaseOrder, Policy, QueueOrder, VictimPool
from infermax_gym.engine.tenants import fresh_tenants
from infermax_gym.workload.workload import Workload

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
            theta (num_forms, 9) float64 and term_end (num_terms,) int64: the cost model, as `cost.kernel` takes it;
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
            self.replace(name, arrays[name])

    def __reduce__(self) -> tuple[Any, ...]:
        # Built anew, so that the record of a duplicate has the addresses of its own arrays.
        return Engine, (self.record, self.arrays)

    @property
    def requests(self) -> Any:
        """(n,) REQUEST, a view."""
        return self.arrays["req"]

    @property
    def clock_s(self) -> float:
        """Now, seconds."""
        return float(self.record["clock_s"][0])

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return int(self.record["num_waiting"][0])

    @property
    def num_running(self) -> int:
        """Requests that run."""
        return int(self.record["num_running"][0])

    @property
    def num_arrived(self) -> int:
        """Requests that have arrived, rejected ones too."""
        return int(self.record["next_arrival"][0])

    @property
    def is_done(self) -> bool:
        """Whether every request is finished or rejected, or has moved to another replica."""
        core = self.core
        return bool(core["num_finished"] + core["num_rejected"] + core["num_moved"] == core["num_requests"])

    @property
    def num_kv_tokens(self) -> int:
        """KV capacity in tokens, whole blocks."""
        return int(self.record["num_blocks"][0] * self.record["block_size"][0])

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody holds. With a lock-step group under way: as of when it was formed or last grew."""
        return int(self.record["free_blocks"][0])

    @property
    def most_num_seqs(self) -> int:
        """Most requests that any policy may run here at once."""
        return int(self.record["list_size"][0]) - 1

    @property
    def running(self) -> NDArray[np.int64]:
        """(num_running,) numbers of the running requests, in list order; a copy."""
        return np.array(self.arrays["run"][: self.num_running])

    @property
    def waiting(self) -> NDArray[np.int64]:
        """(num_waiting,) numbers of the waiting requests, in order of arrival."""
        return np.flatnonzero(self.requests["place"][: self.num_arrived] == WAITING).astype(np.int64)

    @property
    def finished(self) -> NDArray[np.int64]:
        """Numbers of the finished requests, in order of arrival."""
        return np.flatnonzero(self.requests["place"] == FINISHED).astype(np.int64)

    def replace(self, name: str, array: NDArray[Any]) -> None:
        """Put another array in the place of one of `arrays`."""
        self.arrays[name] = array
        self.record[f"{name}_address"] = array.ctypes.data

    @property
    def core(self) -> Any:
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
    core = _core(workload, config)
    leaves = power_of_two_at_least(max(n if num_slots is None else num_slots, 1))
    most = int(core["list_size"][0]) - 1
    core["num_leaves"] = leaves
    core["one_by_one"] = record_schedule
    if num_slots is not None:
        core["num_requests"] = 0
    cache = prefix_cache(core, workload, config, num_slots)
    write_policy(core, policy)
    core["preempted_size"] = _most_preempted(core, most, record_schedule)
    arrays = {
        "req": fresh_requests(workload, predicted) if num_slots is None else np.zeros(num_slots, REQUEST),
        "tree": np.full(2 * leaves, -1, np.int32),
        "valid": np.empty((2, 2 * leaves if core["kinetic"][0] else 1)),
        "run": np.zeros(most + 1, np.int64),
        "batch": np.zeros((most + 1, 2), np.int64),
        "keys": np.zeros(most + 1),
        "ids": np.zeros(most + 1, np.int64),
        "phases": np.zeros(config.block_size, np.int64),
        "fresh": np.zeros(most + 1, np.int64),
        "histogram": np.zeros((NUM_BUCKETS, 2), np.int64),
        "outputs": np.zeros(NUM_OUTPUT_BINS, np.int64),
        "quantiles": np.zeros(NUM_OUTPUT_BINS, np.int64),
        "tenants": fresh_tenants(workload, policy),
        "skipped": np.zeros(policy.max_skips + 1, np.int64),
        "preempted": np.zeros(int(core["preempted_size"][0]), np.int64),
        "theta": config.cost.theta,
        "term_end": config.cost.term_end,
        **_log(core, most, record_schedule),
        **cache,
    }
    core["num_tenants"] = len(arrays["tenants"])
    arrays["valid"][0] = -np.inf
    arrays["valid"][1] = np.inf
    return Engine(core, arrays)


def _most_preempted(core: Any, max_num_seqs: int, record_schedule: bool) -> int:
    """Preemptions between two iterations that are remembered.

    A recorded schedule has all of them, and each decision may preempt everybody until the progress guard steps in.
    """
    unseen = 4 * max_num_seqs + 8
    return min(unseen + max_num_seqs * int(core["stall_limit"][0]), 1 << 20) if record_schedule else unseen


def _log(core: Any, max_num_seqs: int, record_schedule: bool) -> dict[str, NDArray[Any]]:
    spans = _LOG_ITERATIONS if record_schedule else 0
    core["gaps_size"] = _LOG_ITERATIONS + 2 * max_num_seqs
    core["spans_size"] = spans
    core["members_size"] = 4 * spans + 2 * max_num_seqs if record_schedule else 0
    core["victims_size"] = spans + int(core["preempted_size"][0]) + 4 * max_num_seqs if record_schedule else 0
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


def _core(workload: Workload, config: EngineConfig) -> Any:
    """(1,) CORE with what the replica and the workload decide, whatever the policy."""
    longest = int((workload.num_prompt_tokens + workload.num_output_tokens).max(initial=1))
    longest_output = int(workload.num_output_tokens.max(initial=1))
    core = np.zeros(1, CORE)
    core["num_requests"] = len(workload)
    core["block_size"] = config.block_size
    core["num_blocks"] = core["free_blocks"] = config.num_blocks
    core["host_free_tokens"] = config.num_host_kv_tokens
    core["swap_tokens_per_s"] = config.swap_tokens_per_s
    core["replica_token_budget"] = config.max_num_batched_tokens
    core["max_model_len"] = config.max_model_len or power_of_two_at_least(longest)
    core["max_output_tokens"] = config.max_output_tokens or power_of_two_at_least(longest_output)
    core["longest_allowed"] = config.max_model_len or NO_LIMIT
    core["floor_context"] = config.cost.floor_context
    core["num_forms"], core["num_terms"] = len(config.cost.theta), len(config.cost.term_end)
    core["group_ends"] = core["group_roomy_until"] = NO_LIMIT
    core["decodes_since_admission"] = NO_LIMIT
    core["next_starving_s"], core["next_starving_iteration"] = np.inf, NO_LIMIT
    core["output_bin"] = -(-int(core["max_output_tokens"][0]) // NUM_OUTPUT_BINS)
    # Who runs holds a block, its own but for what a prefix cache lets it share.
    blocks = NO_LIMIT if config.prefix_caching else config.num_blocks
    core["list_size"] = min(config.max_num_seqs, max(len(workload), 1), blocks) + 1
    return core


def write_policy(core: Any, policy: Policy) -> None:
    """Set all that a policy decides in a (1,) CORE whose replica is described already: the knobs and what follows.

    `infermax_gym.engine.session.install_policy` does the rest that an engine under way needs.
    """
    for knob in KNOBS:
        core[knob[0]] = getattr(policy, knob[0])
    num_blocks, model_len = int(core["num_blocks"][0]), int(core["max_model_len"][0])
    budget = policy.max_num_batched_tokens or int(core["replica_token_budget"][0])
    if not policy.chunking:
        budget = max(budget, model_len)
    core["token_budget"] = budget
    core["max_num_seqs"] = min(policy.max_running or NO_LIMIT, int(core["list_size"][0]) - 1)
    core["watermark_blocks"] = math.floor(policy.watermark * num_blocks)
    core["stall_limit"] = 64 + 2 * -(-num_blocks * int(core["block_size"][0]) // min(budget, policy.max_chunk))
    core["kinetic"] = policy.queue_order in (QueueOrder.RESPONSE_RATIO, QueueOrder.LOAD_ADAPTIVE)
    core["lockstep"] = not core["one_by_one"][0] and not _looks_at_each_token(policy)
    core["shares_in_batch"] = core["prefix_caching"][0] and _batch_is_certain(policy)


def _looks_at_each_token(policy: Policy) -> bool:
    """Whether decodes must be served one by one, as something about each changes with every token."""
    quantum = policy.quantum_s > 0.0 or policy.quantum_iterations > 0
    fair = policy.queue_order == QueueOrder.FAIR
    return fair or quantum or policy.hold_iterations > 0.0 or policy.refresh_tokens > 0


def _batch_is_certain(policy: Policy) -> bool:
    """Whether who has got tokens when waiting requests are admitted keeps them."""
    decodes_last = (policy.phase_order == PhaseOrder.PREFILL_FIRST and policy.hybrid) or policy.hold_iterations > 0.0
    anybody = policy.victim_pool == VictimPool.ALL or policy.evict_share > 0.0
    return not (decodes_last and anybody)
