"""Policies that find out as they go: feedback queues, refreshed and interval predictions, clearing, histories."""

from __future__ import annotations

from dataclasses import replace

from infermax_gym.baselines.table.weights import LEVEL_S
from infermax_gym.engine.policy import (
    AdmissionCheck,
    Information,
    LengthEstimate,
    PhaseOrder,
    Policy,
    Prediction,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    VictimPool,
    queue_weights,
    victim_weights,
)

# -- feedback queues and learned lengths ---------------------------------------------------------------------------

# It swaps ahead of need, which leaves about as many blocks free as sequences may run. Here a twentieth of memory stays
# free on admission, and 1,024 tokens may be on their way. Who starves is looked for every 1,000 iterations, as there.
FASTSERVE = Policy(
    "fastserve",
    phase_order=PhaseOrder.ONE_LIST,
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(level=LEVEL_S, level_place_s=1.0),
    run_order=RunOrder.QUEUE_KEY,
    chunking=False,
    victim=Victim.KEY,
    victim_weights=victim_weights(level=LEVEL_S, level_place_s=1.0),
    preempt_for_waiting=True,
    preempt_mode=PreemptMode.SWAP,
    overlap_swaps=True,
    swap_lag_tokens=1024,
    watermark=0.05,
    quantum_s=0.01,
    quantum_growth=2.0,
    skip_join=True,
    starvation_s=3.0,
    starvation_every=1000,
    source="FastServe (2305.05920): skip-join MLFQ, 10 ms x 2^k, boost after 3 s; swaps beside the computation",
    note="Heavy-tailed answers: short jobs first without a predictor; many swaps where memory holds few requests.",
)
TRAIL = Policy(
    "trail",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(predicted_remaining_tokens=1.0),
    run_order=RunOrder.QUEUE_KEY,
    watermark=0.01,
    victim=Victim.KEY,
    victim_weights=victim_weights(predicted_remaining_tokens=1.0),
    preempt_for_waiting=True,
    pin_after=0.8,
    refresh_tokens=8,
    prediction_sigma=0.6,
    information=Information.PREDICTED,
    source="TRAIL (2410.01035), c = 0.8; relative error sigma 0.6 of what remains, renewed every 8 tokens",
    note="SRPT whose predictions get better; pins spare little that SRPT would evict at c = 0.8.",
)
TRAIL_ORACLE = replace(
    TRAIL,
    name="trail-oracle",
    refresh_tokens=0,
    prediction_sigma=0.0,
    information=Information.ORACLE,
    source="TRAIL+ (2410.01035), c = 0.8: remaining lengths known",
    note="What TRAIL's rule is worth with perfect predictions.",
)
LTR = Policy(
    "ltr",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(level=LEVEL_S, predicted_remaining_tokens=1.0, num_generated_tokens=1.0),
    run_order=RunOrder.QUEUE_KEY,
    watermark=0.01,
    victim=Victim.KEY,
    victim_weights=victim_weights(level=LEVEL_S, predicted_remaining_tokens=1.0, num_generated_tokens=1.0),
    preempt_for_waiting=True,
    quantum_iterations=10,
    mlfq_levels=1,
    starvation_iterations=200,
    prediction_sigma=0.6,
    information=Information.PREDICTED,
    source="vLLM-LTR (2408.15792): rank by length at arrival, sigma 0.6; starving after 200 steps, served for 10",
    note="Short answers first; where memory is short the guard makes requests evict each other in turn.",
)

# -- intervals and clearing ----------------------------------------------------------------------------------------

A_MAX = Policy(
    "a-max",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(predicted_remaining_tokens=1.0),
    admission_check=AdmissionCheck.FUTURE_PEAK,
    estimate=LengthEstimate.PREDICTED,
    prediction=Prediction.UPPER,
    interval_ratio=0.5,
    information=Information.PREDICTED,
    source="A_max (2508.14544): MC-SF on the upper end of an interval, lower over upper end 0.5",
    note="No overflow, but memory stays empty as intervals widen.",
)
A_MIN = replace(
    A_MAX,
    name="a-min",
    queue_weights=queue_weights(predicted_remaining_tokens=1.0, num_generated_tokens=1.0),
    prediction=Prediction.LOWER,
    victim=Victim.KEY,
    victim_weights=victim_weights(predicted_remaining_tokens=-1.0, num_generated_tokens=-1.0),
    victim_pool=VictimPool.ALL,
    source="A_min (2508.14544): max(lower end, generated) as length, the smallest evicted; answers are kept",
    note="Uses the lower end only and corrects itself: fuller than A_max, at the price of evictions.",
)
ALPHA_PROTECTION = Policy(
    "alpha-protection",
    watermark=0.2,
    evict_share=1.0,
    victim_pool=VictimPool.ALL,
    source="alpha-protection greedy, a benchmark of MC-SF (2502.07115): alpha 0.2, all cleared on overflow",
    note="FCFS with a fifth of memory in reserve; an overflow throws everything away.",
)
BETA_CLEARING = replace(
    ALPHA_PROTECTION,
    name="beta-clearing",
    evict_share=0.2,
    source="alpha-protection beta-clearing (2502.07115): the newest fifth goes, where they toss coins",
    note="Clears a share instead of everything: less to recompute.",
)

# -- history -------------------------------------------------------------------------------------------------------

PAST_FUTURE = Policy(
    "past-future",
    phase_order=PhaseOrder.PREFILL_FIRST,
    hybrid=False,
    reserve=Reserve.CHUNK,
    admission_check=AdmissionCheck.FUTURE_PEAK,
    estimate=LengthEstimate.HISTORY,
    information=Information.BOUND,
    source="Past-Future (2507.10150) in LightLLM: lengths from finished ones; their 0.9 quantile, no sampling",
    note="LightLLM that learns how long answers get: fills memory, hardly preempts.",
)
PAST_FUTURE_HYBRID = replace(
    PAST_FUTURE,
    name="past-future-hybrid",
    phase_order=PhaseOrder.DECODE_FIRST,
    hybrid=True,
    reserve=Reserve.KNOWN,
    history_quantile=0.5,
    source="ours: Past-Future's admission, median length, under Sarathi's batches",
    note="FCFS that hardly preempts without knowing lengths, decodes never stalled.",
)
SPF_PAST_FUTURE = replace(
    PAST_FUTURE_HYBRID,
    name="spf-past-future",
    queue_order=QueueOrder.LINEAR,
    queue_weights=queue_weights(num_known_tokens=1.0),
    history_quantile=0.3,
    source="ours: shortest known tokens first, admitted by Past-Future's look at the memory to come",
    note="spf-headroom without a number to tune: it learns how much room answers need.",
)
CACHEOPT_LIKE = Policy(
    "cacheopt-like",
    reserve=Reserve.TOTAL_ESTIMATE,
    estimate=LengthEstimate.HISTORY,
    history_quantile=0.7,
    victim=Victim.KEY,
    victim_weights=victim_weights(priority=1e6, num_processed_tokens=-1.0),
    preempt_mode=PreemptMode.CHEAPER,
    information=Information.BOUND,
    source="after CacheOPT (2503.13773): padded reservation, cheapest victim, cheaper of swap and recompute",
    note="Reserves what most answers need; no borrowing of unused reservations, unlike the paper.",
)

TABLE = (
    FASTSERVE,
    TRAIL,
    TRAIL_ORACLE,
    LTR,
    A_MAX,
    A_MIN,
    ALPHA_PROTECTION,
    BETA_CLEARING,
    PAST_FUTURE,
    PAST_FUTURE_HYBRID,
    SPF_PAST_FUTURE,
    CACHEOPT_LIKE,
)
