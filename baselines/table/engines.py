"""Engines in wide use: vLLM's V0 scheduler, Sarathi-Serve, Orca, FasterTransformer, TensorRT-LLM, LightLLM."""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.baselines.table.weights import BY_PRIORITY, LEAST_URGENT
from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    LengthEstimate,
    PhaseOrder,
    Policy,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    queue_weights,
    victim_weights,
)

# -- vLLM V0 -----------------------------------------------------------------------------------------------------

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
VLLM_V0_SRF = replace(
    VLLM_V0,
    name="vllm-v0-srf",
    victim=Victim.KEY,
    victim_weights=victim_weights(num_processed_tokens=-1.0),
    source="INFERMAX's vLLM with use_srf_preemption: the fewest computed tokens of those not yet served",
    note="V0 whose evictions are cheap to redo; more of them.",
)
VLLM_V0_PRIORITY = replace(
    VLLM_V0,
    name="vllm-v0-priority",
    queue_order=QueueOrder.LINEAR,
    queue_weights=BY_PRIORITY,
    run_order=RunOrder.QUEUE_KEY,
    victim=Victim.KEY,
    victim_weights=LEAST_URGENT,
    preempt_for_waiting=True,
    source="vLLM V0, policy priority; here the head may preempt others beside prefills too",
    note="Urgent prompts preempt less urgent answers: they hardly wait, the rest is computed again.",
)
VLLM_V0_DELAY = replace(
    VLLM_V0,
    name="vllm-v0-delay",
    delay_factor=0.5,
    source="vLLM V0 with scheduler_delay_factor, 0.5 here: prompts gather for half the last prefill's time",
    note="Fewer, fuller prefill batches; at these batch sizes nearly V0.",
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
# Scores rank as weights: those of the wait differ as arrivals do, at 0.5 / 5 s.
TRT_SJF = replace(
    TRT_NO_EVICT,
    name="trt-sjf",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(prompt_shortness=-0.5, arrival_s=0.1),
    source="TensorRT-LLM PR 12423, waiting queue sjf: 0.5 / (1 + prompt / 32,768) + 0.5 x wait / 5 s, the most first",
    note="Nearly FCFS: a wait of 2.5 s weighs as much as any difference in length below 32,768 tokens.",
)
TRT_STATIC_BATCH = replace(
    TRT_NO_EVICT,
    name="trt-static-batch",
    admit_when_empty_only=True,
    source="TensorRT-LLM capacityScheduler, STATIC_BATCH",
    note="The no-evict test, but a batch must end before the next begins: idle sequences, long queues.",
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
LIGHTLLM_ORACLE = replace(
    LIGHTLLM_SAFE,
    name="lightllm-oracle",
    estimate=LengthEstimate.PREDICTED,
    min_decodes_between_prefills=10,
    information=Information.ORACLE,
    source="LightLLM as in Vidur's lightllm_replica_scheduler: true lengths, max_waiting_iters = 10",
    note="What LightLLM's look ahead is worth with true lengths: memory full, no eviction.",
)

TABLE = (
    VLLM_V0,
    VLLM_V0_HYBRID,
    VLLM_V0_SWAP,
    VLLM_V0_SRF,
    VLLM_V0_PRIORITY,
    VLLM_V0_DELAY,
    VLLM_V0_NOEVICT,
    SARATHI,
    SARATHI_2048,
    SARATHI_NO_CHUNK,
    SARATHI_NO_HYBRID,
    SARATHI_NOEVICT,
    ORCA,
    FASTERTRANSFORMER,
    TRT_NO_EVICT,
    TRT_SJF,
    TRT_STATIC_BATCH,
    TRT_MAX_UTILIZATION,
    LIGHTLLM_SAFE,
    LIGHTLLM,
    LIGHTLLM_PACED,
    LIGHTLLM_ORACLE,
)
