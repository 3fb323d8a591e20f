"""The rows of the table that reproduce public peers."""

from __future__ import annotations

from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    LengthEstimate,
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

INFERMAX_VLLM = Policy(
    "infermax-vllm",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    chunking=False,
    run_order=RunOrder.ARRIVAL,
    reserve=Reserve.KNOWN,
)
INFERMAX_VLLM_NOEVICT = Policy(
    "infermax-vllm-noevict",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    chunking=False,
    run_order=RunOrder.ARRIVAL,
    reserve=Reserve.TOTAL_ESTIMATE,
    estimate=LengthEstimate.PREDICTED,
    information=Information.ORACLE,
)
INFERMAX_SARATHI = Policy("infermax-sarathi", run_order=RunOrder.BATCH, reserve=Reserve.KNOWN)
INFERMAX_SRF = Policy("infermax-srf", run_order=RunOrder.PROCESSED_DESC, reserve=Reserve.KNOWN)
INFERMAX_SRF_HISTOGRAM = Policy(
    "infermax-srf-histogram",
    run_order=RunOrder.PROCESSED_DESC,
    reserve=Reserve.KNOWN,
    admission_check=AdmissionCheck.HISTOGRAM,
)

VLLM_V1 = Policy(
    "vllm-v1",
    phase_order=PhaseOrder.ONE_LIST,
    run_order=RunOrder.ADMISSION,
    reserve=Reserve.CHUNK,
    self_preemption_ends=True,
    admit_after_preemption=False,
)
PRIORITY_WEIGHT = 1e8
"""Weight of one priority level against one second of arrival, so that (priority, arrival) is one number."""

VLLM_V1_PRIORITY = Policy(
    "vllm-v1-priority",
    phase_order=PhaseOrder.ONE_LIST,
    run_order=RunOrder.ADMISSION,
    reserve=Reserve.CHUNK,
    self_preemption_ends=True,
    admit_after_preemption=False,
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(priority=PRIORITY_WEIGHT, arrival_s=1.0),
    victim=Victim.KEY,
    victim_weights=victim_weights(priority=PRIORITY_WEIGHT, arrival_s=1.0),
    victim_pool=VictimPool.ALL,
)

ROWS: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        INFERMAX_VLLM,
        INFERMAX_VLLM_NOEVICT,
        INFERMAX_SARATHI,
        INFERMAX_SRF,
        INFERMAX_SRF_HISTOGRAM,
        VLLM_V1,
        VLLM_V1_PRIORITY,
    )
}
"""Every row by name."""
