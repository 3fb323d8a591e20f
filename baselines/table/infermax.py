"""INFERMAX's simulator to the bit (with an `-infermax` cost and blocks of one token), and its rules on any block."""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    LengthEstimate,
    PhaseOrder,
    Policy,
    QueueOrder,
    Reserve,
    RunOrder,
    queue_weights,
)

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

# -- its replacement rules on any block size ---

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
# Its rank scheduler sorts waiting and running requests together. Who makes room there is the last to have joined; here
# it is the worst of the order, and waiting requests preempt only those behind them.
RANK_INPUT = Policy(
    "rank-input",
    phase_order=PhaseOrder.ONE_LIST,
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_prompt_tokens=1.0),
    run_order=RunOrder.QUEUE_KEY,
    preempt_for_waiting=True,
    source="after INFERMAX code f18ad5a, rank_replica_scheduler by input; the worst of the order makes room",
    note="Short prompts preempt long ones: quick first tokens, much computed twice where memory is short.",
)
RANK_OUTPUT = replace(
    RANK_INPUT,
    name="rank-output-oracle",
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_generated_tokens=1.0),
    information=Information.ORACLE,
    source="after INFERMAX code f18ad5a, rank_replica_scheduler by output; the worst of the order makes room",
    note="Short answers preempt long ones, however much of those is done: SRPT with a bad memory.",
)
RANK_ARRIVAL = replace(
    RANK_INPUT,
    name="rank-arrival",
    queue_weights=queue_weights(arrival_s=1.0),
    source="after INFERMAX code f18ad5a, rank_replica_scheduler by number",
    note="FCFS in which whoever was evicted may preempt those who came later.",
)

TABLE = (
    INFERMAX_VLLM,
    INFERMAX_VLLM_NOEVICT,
    INFERMAX_SARATHI,
    INFERMAX_SRF,
    INFERMAX_SRF_HISTOGRAM,
    SRF,
    SRF_HISTOGRAM,
    RANK_INPUT,
    RANK_OUTPUT,
    RANK_ARRIVAL,
)
