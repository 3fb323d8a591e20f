"""Orders by size, known, predicted or not: shortest first in many forms, and what limits its harm."""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.baselines.table.engines import SARATHI
from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    LengthEstimate,
    OnMisfit,
    Policy,
    Prediction,
    QueueOrder,
    RunOrder,
    Victim,
    VictimPool,
    queue_weights,
    victim_weights,
)

SJF_ORACLE = Policy(
    "sjf-oracle",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(predicted_remaining_tokens=1.0),
    watermark=0.01,
    information=Information.ORACLE,
    source="shortest job first by output length; vLLM-LTR's sjf (2408.15792)",
    note="Good mean latency; ignores prompts, starves long outputs.",
)
SJF_TOTAL_ORACLE = replace(
    SJF_ORACLE,
    name="sjf-total-oracle",
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_known_tokens=1.0),
    source="shortest job first by prompt and output tokens together",
    note="SJF that does not forget prompts: better on all traffic here, and no weight to tune.",
)
SJF_CLASSES = replace(
    SJF_ORACLE,
    name="sjf-classes",
    prediction=Prediction.CLASS,
    prediction_sigma=0.3,
    information=Information.PREDICTED,
    source="SJF told one of ten length classes up to 512 tokens (vLLM-LTR's classification; bins of TRAIL), sigma 0.3",
    note="Classes are enough to put short answers first; all beyond 512 tokens are one.",
)

SRPT_ORACLE = replace(
    SJF_ORACLE,
    name="srpt-oracle",
    run_order=RunOrder.QUEUE_KEY,
    victim=Victim.KEY,
    victim_weights=victim_weights(predicted_remaining_tokens=1.0),
    preempt_for_waiting=True,
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
# The noisy MC-SF of the paper: whatever the predictions were wrong about is thrown out with everybody else.
MC_SF_ALPHA = replace(
    MC_SF_ORACLE,
    name="mc-sf-alpha",
    peak_margin=0.1,
    evict_share=1.0,
    victim_pool=VictimPool.ALL,
    prediction_sigma=0.6,
    information=Information.PREDICTED,
    source="noisy MC-SF (2502.07115): peak below 0.9 of memory, overflow clears all; answers are kept; sigma 0.6",
    note="The margin makes overflows rare; each throws away everything computed.",
)
MC_SF_BETA = replace(
    MC_SF_ALPHA,
    name="mc-sf-beta",
    evict_share=0.2,
    source="noisy MC-SF (2502.07115), clearing a share: the newest fifth, where they toss coins; sigma 0.6",
    note="Clears a fifth instead of everything: less to recompute.",
)

MC_SF_WORK_ORACLE = replace(
    MC_SF_ORACLE,
    name="mc-sf-work-oracle",
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_lacking_tokens=0.3),
    source="ours: MC-SF by work, a prompt token worth 0.3 output tokens",
    note="The lowest mean latency of all policies on most traffic; the longest requests wait.",
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

TABLE = (
    SJF_ORACLE,
    _noisy(SJF_ORACLE, 0.3),
    _noisy(SJF_ORACLE, 0.6),
    SJF_TOTAL_ORACLE,
    SJF_CLASSES,
    SRPT_ORACLE,
    _noisy(SRPT_ORACLE, 0.3),
    _noisy(SRPT_ORACLE, 0.6),
    SRPT_WORK_ORACLE,
    _noisy(SRPT_WORK_ORACLE, 0.6),
    MC_SF_ORACLE,
    _noisy(replace(MC_SF_ORACLE, peak_margin=0.1), 0.6),
    MC_SF_ALPHA,
    MC_SF_BETA,
    MC_SF_WORK_ORACLE,
    _noisy(MC_SF_WORK_ORACLE, 0.6),
    MC_FCFS_ORACLE,
    SHORTEST_PROMPT,
    LEAST_ATTAINED_SERVICE,
    HRRN,
    LARRY,
    FCFS_HEADROOM,
    SPF_HEADROOM,
    SPF_AGING_HEADROOM,
    BEST_FIT,
)
