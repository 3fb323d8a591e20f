"""Policies for deadlines, classes and tenants, and policies that wait on purpose."""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.baselines.table.weights import BY_PRIORITY, LEAST_URGENT, LEVEL_S
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
    queue_weights,
    victim_weights,
)

EDF = Policy(
    "edf",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(arrival_s=1.0, slo_ttft_s=1.0),
    watermark=0.01,
    source="earliest deadline first, deadline = arrival + the class's TTFT objective",
    note="Meets mixed objectives below capacity; wastes work on lost causes above it. FCFS with one class.",
)

SLAI = Policy(
    "slai",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    run_order=RunOrder.TOKEN_DEADLINE,
    watermark=0.01,
    max_running=128,
    victim=Victim.KEY,
    victim_weights=victim_weights(is_prefill=LEVEL_S, arrival_s=1.0),
    hold_iterations=5.0,
    hold_tpot_s=0.1,
    source="SLAI (2508.01002): decodes held until 5 (10 if full) mean iterations before due; at most 128 run",
    note="Quick first tokens out of the slack of decodes; uses up the limit on time per token.",
)
SLAI_FCFS = replace(
    SLAI,
    name="slai-fcfs",
    queue_order=QueueOrder.FIFO,
    queue_weights=queue_weights(),
    source="SLAI (2508.01002) with its FCFS flag: prompts by arrival",
    note="What holding decodes back is worth without shortest prompts first.",
)

DYNAMIC_CHUNK = Policy(
    "dynamic-chunk",
    max_num_batched_tokens=4096,
    max_iteration_s=0.05,
    watermark=0.01,
    source="dynamic chunking (Niyama, 2503.22562): chunks as large as 50 ms iterations allow",
    note="Sarathi that sets its chunk by the clock: the gap between tokens is what was asked for.",
)
PRIORITY_FCFS = Policy(
    "priority-fcfs",
    queue_order=QueueOrder.LINEAR,
    queue_weights=BY_PRIORITY,
    run_order=RunOrder.QUEUE_KEY,
    watermark=0.01,
    victim=Victim.KEY,
    victim_weights=LEAST_URGENT,
    source="first come, first served within priority classes, on Sarathi's batches",
    note="Urgent classes never wait for others; the last class waits for all.",
)
ECHO_LIKE = replace(
    PRIORITY_FCFS,
    name="echo-like",
    preempt_for_waiting=True,
    max_iteration_s=0.05,
    max_num_batched_tokens=4096,
    source="after Echo (2504.03651): online first, offline (priority > 0) fills 50 ms iterations; no prefix plan",
    note="Offline work in the gaps of online work, thrown out when that needs memory.",
)
LLF = Policy(
    "llf",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(arrival_s=1.0, slo_ttft_s=1.0, prefill_s=-1.0),
    watermark=0.01,
    source="least laxity first: deadline of the first token less the time of the prefill alone",
    note="EDF that starts long prompts earlier; as wasteful above capacity.",
)
VTC = Policy(
    "vtc",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    queue_order=QueueOrder.FAIR,
    reserve=Reserve.CHUNK,
    admission_check=AdmissionCheck.FUTURE_PEAK,
    estimate=LengthEstimate.BOUND,
    information=Information.BOUND,
    source="VTC (2401.00588) on LightLLM's admission: 1 per prompt token, 2 per output token",
    note="Tenants with work get equal service whatever they send; under-fills memory as lightllm-safe does.",
)
VTC_SARATHI = Policy(
    "vtc-sarathi",
    queue_order=QueueOrder.FAIR,
    watermark=0.01,
    source="ours: VTC's queue (2401.00588) under Sarathi's batches and memory",
    note="Fair among tenants at Sarathi's throughput; one tenant is Sarathi, but for who returns first.",
)
WAIT_THRESHOLD = Policy(
    "wait-threshold",
    min_waiting=8,
    watermark=0.01,
    source="WAIT (2504.11320) with one type: waiting requests join when 8 wait; the rest when nobody is to come",
    note="Fewer, larger prefills; who comes into a quiet hour waits for the next seven.",
)

TABLE = (
    EDF,
    SLAI,
    SLAI_FCFS,
    DYNAMIC_CHUNK,
    PRIORITY_FCFS,
    ECHO_LIKE,
    LLF,
    VTC,
    VTC_SARATHI,
    WAIT_THRESHOLD,
)
