"""The table of schedulers: each row is one setting of the engine's scheduling algorithm.

The rows are grouped by what they descend from. `POLICIES` maps every name to its row. A row names its source and
says in a line what it is good and bad at; where it deviates from the source, the line says so. Token budget, seats
and block size come from the engine unless a row states its own.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.research import RESEARCH_ROWS
from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    LengthEstimate,
    OnMisfit,
    PhaseOrder,
    Policy,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    VictimPool,
    queue_weights,
    victim_weights,
)

PRIORITY_WEIGHT_S = 1e8
"""One priority level against one second of arrival, so that (priority, arrival) is one number."""

# -- INFERMAX's own simulator, to the bit (with an `-infermax` cost and block size 1) --------------------------

INFERMAX_VLLM = Policy(
    "infermax-vllm",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    chunking=False,
    source="INFERMAX code f18ad5a, vllm_replica_scheduler (arXiv 2411.07447)",
    note="Quick first tokens; decodes stall behind prompts, evicts the newest when memory runs out.",
)
INFERMAX_VLLM_NOEVICT = replace(
    INFERMAX_VLLM,
    name="infermax-vllm-noevict",
    reserve=Reserve.TOTAL_ESTIMATE,
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
    source="INFERMAX code f18ad5a, vllm_replica_scheduler with no_evict",
    note="Reserves I + O - 1 with the true O: never preempts, fills memory late.",
)
INFERMAX_SARATHI = Policy(
    "infermax-sarathi",
    run_order=RunOrder.BATCH,
    source="INFERMAX code f18ad5a, sarathi_replica_scheduler",
    note="Smooth decodes; the last admitted is evicted first and recomputed.",
)
INFERMAX_SRF = replace(
    INFERMAX_SARATHI,
    name="infermax-srf",
    run_order=RunOrder.PROCESSED_DESC,
    source="INFERMAX code f18ad5a, test_replica_scheduler with sortI",
    note="Evicts the request with the fewest cached tokens: cheap to redo, frees little at a time.",
)
INFERMAX_SRF_HISTOGRAM = replace(
    INFERMAX_SRF,
    name="infermax-srf-histogram",
    admission_check=AdmissionCheck.HISTOGRAM,
    source="INFERMAX code f18ad5a, test_replica_scheduler with sortI and histogram",
    note="SRF that admits only what the mean length of like prompts leaves room for: fewer evictions.",
)

# -- vLLM --------------------------------------------------------------------------------------------------------

VLLM_V0 = Policy(
    "vllm-v0",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    chunking=False,
    watermark=0.01,
    source="vLLM (SOSP'23, 2309.06180), V0 scheduler defaults",
    note="Best time to first token at low load; generation stalls behind prompts, preemption storms near full memory.",
)
VLLM_V0_HYBRID = replace(
    VLLM_V0,
    name="vllm-v0-hybrid",
    hybrid=True,
    source="INFERMAX's vLLM variant with hybrid_batch",
    note="V0 whose decodes ride along with whole prompts: no stall, but long iterations.",
)
VLLM_V0_SWAP = replace(
    VLLM_V0,
    name="vllm-v0-swap",
    preempt_mode=PreemptMode.SWAP,
    source="vLLM V0 with preemption_mode=swap",
    note="V0 that moves victims to host memory: no recomputation, but transfers stop the batch.",
)
VLLM_V0_NOEVICT = replace(
    VLLM_V0,
    name="vllm-noevict-oracle",
    watermark=0.0,
    reserve=Reserve.TOTAL_ESTIMATE,
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
    source="INFERMAX no_evict, any block size",
    note="What avoiding preemption altogether costs, even with known lengths.",
)
VLLM_V1 = Policy(
    "vllm-v1",
    phase_order=PhaseOrder.ONE_LIST,
    run_order=RunOrder.ADMISSION,
    reserve=Reserve.CHUNK,
    self_preemption_ends=True,
    admit_after_preemption=False,
    source="vLLM 0.13.0, v1/core/sched/scheduler.py, FCFS",
    note="Simple and smooth; no look-ahead on memory, so long outputs make it recompute.",
)
VLLM_V1_FULL_ISL = replace(
    VLLM_V1,
    name="vllm-v1-full-isl",
    admission_check=AdmissionCheck.KNOWN,
    source="vLLM V1 with scheduler_reserve_full_isl",
    note="V1 that admits a prompt only if all of it fits: fewer evictions of half-done prefills.",
)
VLLM_V1_PRIORITY = replace(
    VLLM_V1,
    name="vllm-v1-priority",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(priority=PRIORITY_WEIGHT_S, arrival_s=1.0),
    victim=Victim.KEY,
    victim_weights=victim_weights(priority=PRIORITY_WEIGHT_S, arrival_s=1.0),
    victim_pool=VictimPool.ALL,
    source="vLLM 0.13.0, v1/core/sched/scheduler.py, PRIORITY",
    note="Urgent requests first, the least urgent evicted; one class with distinct arrivals is vllm-v1.",
)

# -- Sarathi-Serve -----------------------------------------------------------------------------------------------

SARATHI = Policy(
    "sarathi",
    watermark=0.01,
    source="Sarathi-Serve (OSDI'24, 2403.02310)",
    note="Decodes never stall; time to first token of long prompts suffers with a small budget.",
)
SARATHI_2048 = replace(
    SARATHI,
    name="sarathi-2048",
    max_num_batched_tokens=2048,
    note="The same with a budget of 2,048: quicker first tokens, longer gaps between tokens.",
)
SARATHI_NO_CHUNK = replace(
    SARATHI,
    name="sarathi-no-chunk",
    chunking=False,
    source="Sarathi-Serve ablation in INFERMAX (no_chunked_prefill)",
    note="Whole prompts beside decodes: each long prompt is a gap for everybody.",
)
SARATHI_NO_HYBRID = replace(
    SARATHI,
    name="sarathi-no-hybrid",
    hybrid=False,
    source="Sarathi-Serve ablation in INFERMAX (no_hybrid_batch)",
    note="Prompts wait until no decode runs: static batching in disguise.",
)
SARATHI_NOEVICT = replace(
    SARATHI,
    name="sarathi-noevict-oracle",
    watermark=0.0,
    reserve=Reserve.TOTAL_ESTIMATE,
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
    source="INFERMAX no_evict on Sarathi",
    note="Smooth decodes without any preemption, at the price of late admission; needs true lengths.",
)

# -- static and reserving engines --------------------------------------------------------------------------------

ORCA = Policy(
    "orca",
    chunking=False,
    reserve=Reserve.MODEL_LENGTH,
    source="Orca (OSDI'22) as in Vidur's orca_replica_scheduler",
    note="Never preempts; reserves the model length for everyone, so few run at once.",
)
FASTERTRANSFORMER = Policy(
    "fastertransformer",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    chunking=False,
    reserve=Reserve.MODEL_LENGTH,
    admit_when_empty_only=True,
    release_at_batch_end=True,
    source="FasterTransformer as in Vidur's faster_transformer_replica_scheduler",
    note="Best gaps between tokens; worst queueing: a batch lasts as long as its longest member.",
)
TRT_NO_EVICT = Policy(
    "trt-no-evict",
    phase_order=PhaseOrder.ONE_LIST,
    run_order=RunOrder.ADMISSION,
    reserve=Reserve.TOTAL_ESTIMATE,
    estimate=LengthEstimate.BOUND,
    information=Information.BOUND,
    source="TensorRT-LLM capacityScheduler, GUARANTEED_NO_EVICT",
    note="Predictable, never pauses; under-fills memory when the output bound is loose.",
)
TRT_STATIC_BATCH = replace(
    TRT_NO_EVICT,
    name="trt-static-batch",
    admit_when_empty_only=True,
    source="TensorRT-LLM capacityScheduler, STATIC_BATCH",
    note="The no-evict test, but a batch must end before the next begins: idle seats, long queues.",
)
TRT_MAX_UTILIZATION = Policy(
    "trt-max-utilization",
    phase_order=PhaseOrder.ONE_LIST,
    run_order=RunOrder.ADMISSION,
    reserve=Reserve.CHUNK,
    admission_check=AdmissionCheck.KNOWN,
    admit_after_preemption=False,
    source="TensorRT-LLM capacityScheduler, MAX_UTILIZATION",
    note="Fills memory to the brim; pauses of the last started hurt the tail.",
)
LIGHTLLM_SAFE = Policy(
    "lightllm-safe",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    reserve=Reserve.CHUNK,
    admission_check=AdmissionCheck.FUTURE_PEAK,
    estimate=LengthEstimate.BOUND,
    information=Information.BOUND,
    source="LightLLM router, router_token_ratio = 0 (chunked prefill)",
    note="Looks ahead to the memory peak; as loose as the bound on outputs.",
)
LIGHTLLM = replace(
    LIGHTLLM_SAFE,
    name="lightllm",
    estimate=LengthEstimate.OPTIMISTIC_BOUND,
    source="LightLLM router, optimistic estimate min(max_new, max(1.1 g, 1024))",
    note="Nearly no preemption without worst-case reservation; blind to short outputs.",
)

LIGHTLLM_PACED = replace(
    LIGHTLLM,
    name="lightllm-paced",
    min_decodes_between_prefills=6,
    source="LightLLM router with router_max_wait_tokens = 6 (no aggressive scheduling)",
    note="Six decode iterations between two admissions: smoother answers, later first tokens.",
)

# -- INFERMAX's replacement rules on any block size ---------------------------------------------------------------

SRF = Policy(
    "srf",
    run_order=RunOrder.PROCESSED_DESC,
    watermark=0.01,
    source="INFERMAX (2411.07447), SRF on Sarathi with its watermark",
    note="Cheap evictions under pressure; may starve requests that never grow large.",
)
SRF_HISTOGRAM = replace(
    SRF,
    name="srf-histogram",
    admission_check=AdmissionCheck.HISTOGRAM,
    source="INFERMAX (2411.07447), SRF with the length histogram",
    note="SRF with a self-learned idea of how long like prompts get: fewer evictions.",
)

# -- size-based orders --------------------------------------------------------------------------------------------

SJF_ORACLE = Policy(
    "sjf-oracle",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(predicted_remaining_tokens=1.0),
    watermark=0.01,
    information=Information.ORACLE,
    source="shortest job first by output length; vLLM-LTR's sjf (2408.15792)",
    note="Good mean latency; ignores prompts, starves long outputs.",
)
SRPT_ORACLE = replace(
    SJF_ORACLE,
    name="srpt-oracle",
    run_order=RunOrder.QUEUE_KEY,
    victim=Victim.KEY,
    victim_weights=victim_weights(predicted_remaining_tokens=1.0),
    preempt_for_newcomer=True,
    source="shortest remaining processing time by output; vLLM-LTR's srtf, FastServe's SRPT",
    note="Best on output-heavy traffic; preempts and recomputes much, ignores prompts.",
)
SRPT_WORK_ORACLE = replace(
    SRPT_ORACLE,
    name="srpt-work-oracle",
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_lacking_tokens=1.0),
    victim_weights=victim_weights(predicted_remaining_tokens=1.0, num_processed_tokens=-1.0),
    source="ours: SRPT by the tokens still to compute, those of the prompt and of the answer alike",
    note="SRPT that knows what recomputing costs: long prompts wait, and stay once they are computed.",
)
MC_SF_ORACLE = Policy(
    "mc-sf-oracle",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(predicted_remaining_tokens=1.0),
    admission_check=AdmissionCheck.FUTURE_PEAK,
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
    source="MC-SF (2502.07115): shortest first, admitted if the future memory peak fits; chunked here",
    note="Strong mean latency, no preemption unless prompts are cut; needs lengths, starves long outputs.",
)
MC_SF_WORK_ORACLE = replace(
    MC_SF_ORACLE,
    name="mc-sf-work-oracle",
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_lacking_tokens=0.3),
    source="ours: MC-SF by work, a prompt token worth 0.3 output tokens",
    note="The lowest mean latency of all rows on most traffic; the longest requests wait.",
)
MC_FCFS_ORACLE = replace(
    MC_SF_ORACLE,
    name="mc-fcfs-oracle",
    queue_order=QueueOrder.FIFO,
    queue_weights=queue_weights(),
    source="memory-aware FCFS, the benchmark of 2502.07115",
    note="FCFS that overflows only if prompts are cut: fair and full, but the head blocks the line.",
)


def _noisy(row: Policy, sigma: float) -> Policy:
    name = row.name.removesuffix("-oracle")
    return replace(
        row,
        name=f"{name}-noisy-{sigma}",
        prediction_sigma=sigma,
        information=Information.PREDICTED,
        source=f"{name} with log-normal prediction error, sigma {sigma}",
        note=f"What {name} keeps of its advantage when lengths are only predicted.",
    )


SHORTEST_PROMPT = Policy(
    "shortest-prompt-first",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    watermark=0.01,
    source="shortest prefill first; LMCache reports it for prefill nodes",
    note="Halves mean latency without any prediction; the longest prompts wait for a lull.",
)
LEAST_ATTAINED_SERVICE = Policy(
    "least-attained-service",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_generated_tokens=1.0, num_prompt_tokens=0.01),
    victim=Victim.KEY,
    victim_weights=victim_weights(num_generated_tokens=1.0),
    source="least attained service (foreground-background) by generated tokens, applied where memory forces a choice",
    note="Heavy-tailed outputs: short ones get through without prediction; long ones are recomputed, makespan grows.",
)
HRRN = Policy(
    "hrrn",
    queue_order=QueueOrder.RESPONSE_RATIO,
    queue_weights=queue_weights(num_known_tokens=1.0),
    watermark=0.01,
    source="highest response ratio next (Brinch Hansen), work = known tokens",
    note="Short first, but nobody waits for ever: mean a little worse, tail much better than shortest first.",
)
LARRY = Policy(
    "larry",
    queue_order=QueueOrder.LOAD_ADAPTIVE,
    queue_weights=queue_weights(num_known_tokens=1.0),
    load_aging=0.02,
    run_order=RunOrder.PROCESSED_DESC,
    admission_check=AdmissionCheck.HISTOGRAM,
    source="after LARRY of 2410.17840: memory-aware, token-aware, waiting time and load enter the key; formula is ours",
    note="Short first while queues are short, towards FCFS as they grow; few preemptions.",
)
EDF = Policy(
    "edf",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(arrival_s=1.0, slo_ttft_s=1.0),
    watermark=0.01,
    source="earliest deadline first, deadline = arrival + the class's TTFT objective",
    note="Meets mixed objectives below capacity; wastes work on lost causes above it. FCFS with one class.",
)

# -- admission headroom --------------------------------------------------------------------------------------------

FCFS_HEADROOM = replace(
    SARATHI,
    name="fcfs-headroom",
    watermark=0.0,
    headroom_tokens=100.0,
    source="ours: Sarathi that keeps 100 free KV tokens per running request when it admits",
    note="One number removes most evictions of FCFS under tight memory.",
)
SPF_HEADROOM = replace(
    SHORTEST_PROMPT,
    name="spf-headroom",
    watermark=0.0,
    headroom_tokens=50.0,
    max_running=64,
    victim=Victim.KEY,
    victim_weights=victim_weights(num_processed_tokens=-1.0),
    source="ours: shortest known tokens first, fewest-cached victim, headroom 50 tokens, at most 64 sequences",
    note="Hard to beat on mean latency with unknown lengths; a p99 above FCFS's.",
)
SPF_AGING_HEADROOM = replace(
    SPF_HEADROOM,
    name="spf-aging-headroom",
    queue_weights=queue_weights(num_known_tokens=1.0, arrival_s=20.0),
    source="ours: the same with 20 tokens of credit per second waited",
    note="Gives a little of the mean back for half the tail.",
)
BEST_FIT = replace(
    SARATHI,
    name="best-fit",
    on_misfit=OnMisfit.SKIP,
    source="FCFS that looks past a head that does not fit (16 at most)",
    note="Fills holes in memory; large prompts wait longer.",
)

_ROWS = (
    INFERMAX_VLLM,
    INFERMAX_VLLM_NOEVICT,
    INFERMAX_SARATHI,
    INFERMAX_SRF,
    INFERMAX_SRF_HISTOGRAM,
    VLLM_V0,
    VLLM_V0_HYBRID,
    VLLM_V0_SWAP,
    VLLM_V0_NOEVICT,
    VLLM_V1,
    VLLM_V1_FULL_ISL,
    VLLM_V1_PRIORITY,
    SARATHI,
    SARATHI_2048,
    SARATHI_NO_CHUNK,
    SARATHI_NO_HYBRID,
    SARATHI_NOEVICT,
    ORCA,
    FASTERTRANSFORMER,
    TRT_NO_EVICT,
    TRT_STATIC_BATCH,
    TRT_MAX_UTILIZATION,
    LIGHTLLM_SAFE,
    LIGHTLLM,
    LIGHTLLM_PACED,
    SRF,
    SRF_HISTOGRAM,
    SJF_ORACLE,
    _noisy(SJF_ORACLE, 0.3),
    _noisy(SJF_ORACLE, 0.6),
    SRPT_ORACLE,
    _noisy(SRPT_ORACLE, 0.3),
    _noisy(SRPT_ORACLE, 0.6),
    SRPT_WORK_ORACLE,
    _noisy(SRPT_WORK_ORACLE, 0.6),
    MC_SF_ORACLE,
    _noisy(replace(MC_SF_ORACLE, peak_margin=0.1), 0.6),
    MC_SF_WORK_ORACLE,
    _noisy(MC_SF_WORK_ORACLE, 0.6),
    MC_FCFS_ORACLE,
    SHORTEST_PROMPT,
    LEAST_ATTAINED_SERVICE,
    HRRN,
    LARRY,
    EDF,
    FCFS_HEADROOM,
    SPF_HEADROOM,
    SPF_AGING_HEADROOM,
    BEST_FIT,
    *RESEARCH_ROWS,
)

POLICIES: dict[str, Policy] = {row.name: row for row in _ROWS}
"""Every row by name."""
