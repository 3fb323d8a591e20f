"""vLLM's V1 scheduler, by version, and rules that have been proposed for it.

A version is named where its schedule changes; `vllm` is the newest that is modelled, 0.33. Up to 0.18 a prompt was
admitted chunk by chunk; since 0.19 all of it must fit. Prefix caching, the order in which freed blocks are used again,
and asynchronous scheduling belong to the engine (`EngineConfig`).
"""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.baselines.table.weights import BY_PRIORITY, LEAST_URGENT
from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    PhaseOrder,
    Policy,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    VictimPool,
    queue_weights,
    victim_weights,
)

ALIASES = {
    "vllm-v1": "vllm-0.13",
    "vllm-v1-long-prefill": "vllm-0.13-long-prefill",
    "vllm-v1-priority": "vllm-0.13-priority",
    "vllm-v1-full-isl": "vllm",
    "vllm-0.19": "vllm",
    "vllm-0.33": "vllm",
}
"""Other names of policies: what they were called before, and versions that schedule alike."""

# -- versions ----------------------------------------------------------------------------------------------------

VLLM_0_13 = Policy(
    "vllm-0.13",
    phase_order=PhaseOrder.ONE_LIST,
    run_order=RunOrder.ADMISSION,
    reserve=Reserve.CHUNK,
    self_preemption_ends=True,
    admit_after_preemption=False,
    source="vLLM 0.13.0 (the same up to 0.18), v1/core/sched/scheduler.py, FCFS",
    note="Simple and smooth; no look-ahead on memory, so long outputs make it recompute.",
)
VLLM_0_13_LONG_PREFILL = replace(
    VLLM_0_13,
    name="vllm-0.13-long-prefill",
    max_chunk=256,
    source="vLLM 0.13.0 with long_prefill_token_threshold, 256 here",
    note="Several prompts advance side by side: short ones pass long ones, which take longer.",
)
VLLM_0_13_PRIORITY = replace(
    VLLM_0_13,
    name="vllm-0.13-priority",
    queue_order=QueueOrder.LINEAR,
    queue_weights=BY_PRIORITY,
    victim=Victim.KEY,
    victim_weights=LEAST_URGENT,
    victim_pool=VictimPool.ALL,
    source="vLLM 0.13.0, v1/core/sched/scheduler.py, PRIORITY",
    note="Urgent requests first, the least urgent evicted; one class with distinct arrivals is vllm-0.13.",
)
VLLM = replace(
    VLLM_0_13,
    name="vllm",
    admission_check=AdmissionCheck.KNOWN,
    source="vLLM 0.33.0 (the same from 0.19 on), FCFS, scheduler_reserve_full_isl as by default",
    note="What people run today: a prompt joins only if all of it fits, so few half-done prefills are evicted.",
)
VLLM_LONG_PREFILL = replace(
    VLLM,
    name="vllm-long-prefill",
    max_chunk=256,
    uncapped_when_alone=True,
    source="vLLM 0.33.0 (as 0.32) with long_prefill_token_threshold, 256 here; a lone request is not cut",
    note="Several prompts advance side by side; whoever is alone has the whole budget.",
)
VLLM_0_32_PRIORITY = replace(
    VLLM_0_13_PRIORITY,
    name="vllm-0.32-priority",
    admission_check=AdmissionCheck.KNOWN,
    source="vLLM 0.32.0 (as from 0.19 on), v1/core/sched/scheduler.py, PRIORITY",
    note="vllm-0.13-priority that admits a prompt only if all of it fits.",
)
VLLM_PRIORITY = replace(
    VLLM_0_32_PRIORITY,
    name="vllm-priority",
    self_preemption_ends=False,
    source="vLLM 0.33.0, PRIORITY: whoever preempts itself no longer ends the serving of those behind it",
    note="Urgent requests first; the more urgent ones behind a self-preempted one still get their tokens.",
)

# -- options and proposals ---------------------------------------------------------------------------------------

VLLM_WATERMARK = replace(
    VLLM,
    name="vllm-watermark",
    watermark=0.05,
    source="vLLM 0.33.0 with --watermark (PR 44594), 0.05 here: KV blocks kept free when requests are admitted",
    note="A twentieth of memory in reserve takes most preemptions away where outputs are long.",
)
VLLM_LEAST_COMPUTED = replace(
    VLLM,
    name="vllm-least-computed",
    victim=Victim.KEY,
    # One less for a decode: it counts computed tokens, without the one that is about to be.
    victim_weights=victim_weights(num_processed_tokens=-1.0, is_prefill=-1.0),
    victim_pool=VictimPool.ALL,
    source="vLLM RFC 54644 and PR 53723, preemption_victim=lcf: of all running, the fewest computed tokens",
    note="INFERMAX's SRF inside vLLM: what is evicted is cheap to redo; more evictions.",
)
VLLM_COST_AWARE = replace(
    VLLM,
    name="vllm-cost-aware",
    victim=Victim.KEY,
    victim_weights=victim_weights(reclaim_value=1.0),
    victim_pool=VictimPool.ALL,
    information=Information.BOUND,
    source="vLLM PR 56897: most blocks per token x (1 - generated / bound); the bound is the engine's",
    note="Spares shared blocks and answers that are nearly done; without sharing it evicts the least generated.",
)
VLLM_CADENCE = replace(
    VLLM,
    name="vllm-cadence",
    prefill_interval=4,
    source="vLLM 0.33.0 with prefill_schedule_interval (PR 44558), 4 here, with its guard against a full queue",
    note="Prefills in one of four iterations: decodes run undisturbed between them, first tokens come later.",
)
VLLM_MIN_CHUNK = replace(
    VLLM,
    name="vllm-min-chunk",
    min_chunk=256,
    source="after vLLM PR 54145 (minimum prefill chunk), 256 here; only what the budget cuts waits, without a limit",
    note="No crumbs of prefills beside decodes: fewer mixed iterations, prompts wait for room in the budget.",
)
VLLM_PREFILL_SLOTS = replace(
    VLLM,
    name="vllm-prefill-slots",
    max_prefills=2,
    source="vLLM PR 55256 (max_concurrent_prefills), 2 here; of PR 56455 only the limit, decodes are not held",
    note="Few half-done prefills hold memory; short prompts wait behind long ones.",
)
P_PAS = replace(
    VLLM,
    name="p-pas",
    max_num_batched_tokens=16_384,
    prefill_share=0.125,
    prefill_share_from=2,
    source="P-PAS (2608.15171): prefill budget 2,048 with two prefills, waiting or begun, beside a decode; else 16,384",
    note="A lone prompt goes through at once; several give decodes room.",
)
PREFLOW = Policy(
    "preflow",
    queue_order=QueueOrder.LINEAR,
    # The largest of 2^(age / D) / (P R), as the smallest ln P + ln R - age ln 2 / D; ages differ as arrivals do.
    queue_weights=queue_weights(log_prompt_work=1.0, log_lacking_work=1.0, arrival_s=0.0231),
    run_order=RunOrder.QUEUE_KEY,
    admission_check=AdmissionCheck.KNOWN,
    reserve=Reserve.CHUNK,
    source="PREFLOW (vllm-ascend PR 16360), W(n) = n (n + 1) / 2; D = 30 s is ours, as is serving decodes first",
    note="Short prefills pass long ones, begun or not, less so as those age; made for prefill replicas.",
)
BATCH_LPT = replace(
    VLLM,
    name="batch-lpt-noisy-0.3",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(predicted_remaining_tokens=-1.0),
    prediction_sigma=0.3,
    information=Information.PREDICTED,
    source="vllm-ascend PR 12227 (batch jobs): longest answers first; lengths predicted, sigma 0.3, not sampled by job",
    note="For batches that are there at once: no long answer is left over at the end. Bad for waiting times.",
)

TABLE = (
    VLLM,
    VLLM_PRIORITY,
    VLLM_LONG_PREFILL,
    VLLM_0_32_PRIORITY,
    VLLM_0_13,
    VLLM_0_13_PRIORITY,
    VLLM_0_13_LONG_PREFILL,
    VLLM_WATERMARK,
    VLLM_LEAST_COMPUTED,
    VLLM_COST_AWARE,
    VLLM_CADENCE,
    VLLM_MIN_CHUNK,
    VLLM_PREFILL_SLOTS,
    P_PAS,
    PREFLOW,
    BATCH_LPT,
)
