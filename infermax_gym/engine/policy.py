"""A scheduler as data: the knobs of the one scheduling algorithm.

INFERMAX's insight is that practical schedulers are settings of one algorithm. `infermax_gym.engine.kernel`
implements that algorithm once; a `Policy` is one setting of it. This module is the specification of the knobs.

One call of the algorithm decides one iteration:

1. `displace`: with `preempt_for_waiting`, the head of the waiting queue may preempt running requests whose
   queue key is strictly larger (worse).
2. Put the running list in `run_order`.
3. Serve the groups in `phase_order`: running decodes, running prefills, waiting requests. Without `hybrid`, the first
   group that put a token into the batch is the last (running prefills and waiting requests count as one group).
4. Each served request gets c tokens: 1 for a decode; for a prefill the remaining known tokens, cut by
   `max_chunk` and by what is left of the token budget (not cut when `chunking` is off: it then waits, a
   waiting request that does not fit the budget closing admission).
5. A running request whose blocks do not fit preempts victims (`victim`, `victim_pool`) until they do. With no
   candidate left it preempts itself.
6. A waiting request that does not fit (`reserve`, `admission_check`, `watermark`, headroom) closes admission or is
   skipped (`on_misfit`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from infermax_gym.engine.choices import (
    QUEUE_FEATURES,
    VICTIM_FEATURES,
    AdmissionCheck,
    Information,
    LengthEstimate,
    OnMisfit,
    PhaseOrder,
    Prediction,
    PreemptMode,
    QueueOrder,
    Reserve,
    RunOrder,
    Victim,
    VictimPool,
)

NO_LIMIT = 2**62


@dataclass(frozen=True)
class Policy:
    """One policy of the table of schedulers: a setting of every knob.

    Attributes:
        name: kebab-case.
        phase_order: see `PhaseOrder`.
        hybrid: whether prefills and decodes may share an iteration.
        queue_order: see `QueueOrder`.
        queue_weights: one weight per entry of `QUEUE_FEATURES`.
        load_aging: of LOAD_ADAPTIVE: key units per second waited and waiting request.
        run_order: see `RunOrder`.
        chunking: whether a prefill may be cut.
        max_chunk: most tokens of one prefill chunk.
        uncapped_when_alone: `max_chunk` does not hold while one request is all that runs or waits (vLLM 0.32).
        min_chunk: a chunk that the budgets cut to fewer tokens, and that is not the last of its prefill, waits while
            some decode is running.
        max_prefills: waiting requests join only while fewer requests are in prefill.
        prefill_interval: while some decode is running and the queue could be emptied when it was last served, prefills
            get tokens in one of so many iterations at most (vLLM's prefill cadence); 0 and 1 hold nobody.
        prefill_share: share of the token budget, rounded down but at least one token, that all prefill tokens
            of an iteration together may use while some decode is running (1 = no limit).
        prefill_share_from: `prefill_share` holds only while at least so many requests wait or are in prefill.
        max_num_batched_tokens: the policy's own token budget; None takes the engine's.
        reserve: see `Reserve`.
        admission_check: see `AdmissionCheck`.
        estimate: see `LengthEstimate`.
        history_quantile: of HISTORY, in (0, 1].
        watermark: share of all blocks that admission must leave free (rounded down to blocks).
        headroom_tokens: KV tokens that must stay free per running request (before the waiting request) on admission.
        peak_margin: the future peak must not exceed (1 - peak_margin) of the KV capacity.
        max_running: the policy's own cap on running requests; None takes the engine's `max_num_seqs` alone.
        max_iteration_s: prefill chunks are cut so that the iteration takes no longer; a first token is always
            allowed, and 0 is no limit.
        on_misfit: see `OnMisfit`.
        max_skips: misfits that SKIP passes over per call.
        victim: see `Victim`.
        victim_weights: one weight per entry of `VICTIM_FEATURES`.
        victim_pool: see `VictimPool`.
        evict_share: when memory runs out in a call, at least this share of the running requests is preempted.
        pin_after: a running request that has generated this multiple of its first prediction is not displaced, and
            no KEY victim while there is another (TRAIL).
        self_preemption_ends: a request that preempts itself ends the pass over the running list (vLLM V1).
        admit_after_preemption: whether waiting requests may join in a call that preempted somebody for memory.
        preempt_for_waiting: see `displace` in the module docstring.
        preempt_mode: see `PreemptMode`.
        overlap_swaps: swap transfers run beside the computation, so that an iteration takes the longer of both.
        swap_lag_tokens: with `overlap_swaps`, KV tokens whose transfer may still be under way when an iteration ends:
            what FastServe's proactive swapping, which keeps blocks free in advance, lets it put off.
        admit_when_empty_only: waiting requests join only while nothing runs (static batching).
        min_waiting: waiting requests join only while at least so many wait, or no request is to arrive any more (WAIT;
            not in a fleet, whose replicas do not know who is to come).
        release_at_batch_end: finished requests keep their blocks until nothing runs (FasterTransformer).
        delay_factor: waiting requests wait until the oldest has waited delay_factor x the last prefill iteration's
            duration, unless nothing runs (vLLM V0).
        min_decodes_between_prefills: decode iterations that must pass between two admissions while something
            runs (LightLLM).
        hold_iterations: decodes whose next token is not due for so many mean iterations wait until prefills and
            waiting requests are served; twice as many once 96 % of the KV blocks are used; 0 holds nobody (SLAI).
        hold_tpot_s: seconds between tokens that deadlines are made of where a request has no limit of its own.
        quantum_iterations: iterations in a level after which a request goes to the next; 0 counts none.
        quantum_s: seconds in iterations after which a request goes from level 0 to level 1; 0 leaves levels alone.
        quantum_growth: factor from a level's quantum to the next one's.
        mlfq_levels: levels 0 .. mlfq_levels - 1; the last is never left.
        skip_join: a request starts at the first level whose quantum holds its prefill (FastServe).
        starvation_s: a request that has waited so long moves to level -1; 0 does without.
        starvation_iterations: the same for one that has waited through so many iterations (vLLM-LTR: 200).
        starvation_every: iterations between two looks at who has waited so long (FastServe: 1,000).
        prompt_charge: of FAIR, what a tenant pays per prompt token on admission.
        output_charge: of FAIR, what it pays per output token.
        tenant_weights: of FAIR, by tenant; charges are divided by it; 1 for tenants beyond its end.
        refresh_tokens: predictions are renewed each time so many tokens have been generated: the relative error of
            the first one, applied to what remains; 0 keeps the first.
        prediction: which number of the predictor the policy is told, see `Prediction`.
        interval_ratio: of LOWER and UPPER, lower end over upper end of the predicted interval; 1 = exact.
        prediction_sigma: log-normal error of the predicted output lengths, O exp(sigma Z - sigma^2 / 2); 0 = exact.
        information: what it knows about output lengths.
        source: paper or code the policy follows.
        note: one line, good and bad at.
    """

    name: str
    phase_order: PhaseOrder = PhaseOrder.DECODE_FIRST
    hybrid: bool = True
    queue_order: QueueOrder = QueueOrder.FIFO
    queue_weights: tuple[float, ...] = (0.0,) * len(QUEUE_FEATURES)
    load_aging: float = 0.0
    run_order: RunOrder = RunOrder.ARRIVAL
    chunking: bool = True
    max_chunk: int = NO_LIMIT
    uncapped_when_alone: bool = False
    min_chunk: int = 0
    max_prefills: int = NO_LIMIT
    prefill_interval: int = 0
    prefill_share: float = 1.0
    prefill_share_from: int = 0
    max_num_batched_tokens: int | None = None
    reserve: Reserve = Reserve.KNOWN
    admission_check: AdmissionCheck = AdmissionCheck.NONE
    estimate: LengthEstimate = LengthEstimate.NONE
    history_quantile: float = 0.9
    watermark: float = 0.0
    headroom_tokens: float = 0.0
    peak_margin: float = 0.0
    max_running: int | None = None
    max_iteration_s: float = 0.0
    on_misfit: OnMisfit = OnMisfit.STOP
    max_skips: int = 16
    victim: Victim = Victim.LIST_TAIL
    victim_weights: tuple[float, ...] = (0.0,) * len(VICTIM_FEATURES)
    victim_pool: VictimPool = VictimPool.UNVISITED
    evict_share: float = 0.0
    pin_after: float = float(NO_LIMIT)
    self_preemption_ends: bool = False
    admit_after_preemption: bool = True
    preempt_for_waiting: bool = False
    preempt_mode: PreemptMode = PreemptMode.RECOMPUTE
    overlap_swaps: bool = False
    swap_lag_tokens: int = 0
    admit_when_empty_only: bool = False
    min_waiting: int = 0
    release_at_batch_end: bool = False
    delay_factor: float = 0.0
    min_decodes_between_prefills: int = 0
    hold_iterations: float = 0.0
    hold_tpot_s: float = 0.1
    quantum_s: float = 0.0
    quantum_iterations: int = 0
    quantum_growth: float = 2.0
    mlfq_levels: int = 16
    skip_join: bool = False
    starvation_s: float = 0.0
    starvation_iterations: int = 0
    starvation_every: int = 1
    prompt_charge: float = 1.0
    output_charge: float = 2.0
    tenant_weights: tuple[float, ...] = ()
    refresh_tokens: int = 0
    prediction: Prediction = Prediction.POINT
    interval_ratio: float = 1.0
    prediction_sigma: float = 0.0
    information: Information = Information.NONE
    source: str = field(default="", compare=False)
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check(self)


_NOT_NEGATIVE = (
    "hold_iterations",
    "max_iteration_s",
    "min_chunk",
    "min_waiting",
    "output_charge",
    "pin_after",
    "prefill_interval",
    "prefill_share_from",
    "prompt_charge",
    "quantum_iterations",
    "quantum_s",
    "refresh_tokens",
    "starvation_iterations",
    "starvation_s",
    "swap_lag_tokens",
)
_FINITE = (
    "queue_weights",
    "victim_weights",
    "tenant_weights",
    "headroom_tokens",
    "delay_factor",
    "load_aging",
    "hold_tpot_s",
    "quantum_growth",
    *_NOT_NEGATIVE,
)


def _check(policy: Policy) -> None:
    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(f"policy {policy.name!r}: {what}")

    require(
        len(policy.queue_weights) == len(QUEUE_FEATURES),
        f"queue_weights needs {len(QUEUE_FEATURES)} numbers ({', '.join(QUEUE_FEATURES)})",
    )
    require(
        len(policy.victim_weights) == len(VICTIM_FEATURES),
        f"victim_weights needs {len(VICTIM_FEATURES)} numbers ({', '.join(VICTIM_FEATURES)})",
    )
    for name in _FINITE:
        value = getattr(policy, name)
        finite = all(map(math.isfinite, value)) if isinstance(value, tuple) else math.isfinite(value)
        require(finite, f"{name} must be finite, got {value}")
    for name in _NOT_NEGATIVE:
        require(getattr(policy, name) >= 0, f"{name} must not be negative, got {getattr(policy, name)}")
    require(policy.max_chunk >= 1, f"max_chunk must be at least 1, got {policy.max_chunk}")
    require(policy.max_prefills >= 1, f"max_prefills must be at least 1, got {policy.max_prefills}")
    require(0.0 < policy.prefill_share <= 1.0, f"prefill_share must be in (0, 1], got {policy.prefill_share}")
    require(0.0 <= policy.watermark < 1.0, f"watermark must be in [0, 1), got {policy.watermark}")
    require(0.0 <= policy.peak_margin < 1.0, f"peak_margin must be in [0, 1), got {policy.peak_margin}")
    require(policy.max_running is None or policy.max_running >= 1, "max_running must be at least 1")
    require(
        policy.max_num_batched_tokens is None or policy.max_num_batched_tokens >= 1,
        "max_num_batched_tokens must be at least 1",
    )
    require(policy.prediction_sigma >= 0.0, f"prediction_sigma must not be negative, got {policy.prediction_sigma}")
    require(
        policy.information != Information.ORACLE or policy.prediction_sigma == 0.0,
        "an ORACLE policy has exact predictions: prediction_sigma must be 0",
    )
    needs_estimate = policy.reserve == Reserve.TOTAL_ESTIMATE or policy.admission_check == AdmissionCheck.FUTURE_PEAK
    require(
        not needs_estimate or policy.estimate != LengthEstimate.NONE,
        "TOTAL_ESTIMATE and FUTURE_PEAK need a length estimate",
    )
    require(
        policy.queue_order == QueueOrder.LINEAR or policy.run_order != RunOrder.QUEUE_KEY,
        "run_order QUEUE_KEY needs queue_order LINEAR",
    )
    require(
        policy.queue_order == QueueOrder.LINEAR or not policy.preempt_for_waiting,
        "preempt_for_waiting needs queue_order LINEAR",
    )
    require(
        not (policy.preempt_for_waiting and policy.admission_check == AdmissionCheck.FUTURE_PEAK),
        "preempt_for_waiting does not go with admission_check FUTURE_PEAK",
    )
    require(
        policy.queue_order == QueueOrder.LINEAR
        or not (
            policy.quantum_s > 0.0
            or policy.quantum_iterations > 0
            or policy.starvation_s > 0.0
            or policy.starvation_iterations > 0
            or policy.skip_join
        ),
        "levels (quantum_s, quantum_iterations, skip_join, starvation_s, starvation_iterations) need queue_order "
        "LINEAR, whose key may weigh them",
    )
    require(policy.quantum_s > 0.0 or not policy.skip_join, "skip_join needs a quantum_s")
    require(policy.starvation_every >= 1, f"starvation_every must be at least 1, got {policy.starvation_every}")
    require(policy.quantum_growth >= 1.0, f"quantum_growth must be at least 1, got {policy.quantum_growth}")
    require(1 <= policy.mlfq_levels <= 64, f"mlfq_levels must be in 1..64, got {policy.mlfq_levels}")
    require(
        policy.hold_iterations == 0.0 or (policy.hybrid and policy.phase_order == PhaseOrder.DECODE_FIRST),
        "hold_iterations needs hybrid batches and phase_order DECODE_FIRST",
    )
    require(policy.hold_tpot_s > 0.0, f"hold_tpot_s must be positive, got {policy.hold_tpot_s}")
    require(0.0 <= policy.evict_share <= 1.0, f"evict_share must be in [0, 1], got {policy.evict_share}")
    require(
        policy.evict_share == 0.0 or policy.preempt_mode == PreemptMode.RECOMPUTE,
        "evict_share needs preempt_mode RECOMPUTE: what is cleared at once would come back at once",
    )
    require(policy.overlap_swaps or policy.swap_lag_tokens == 0, "swap_lag_tokens needs overlap_swaps")
    require(0.0 < policy.history_quantile <= 1.0, f"history_quantile must be in (0, 1], got {policy.history_quantile}")
    require(0.0 < policy.interval_ratio <= 1.0, f"interval_ratio must be in (0, 1], got {policy.interval_ratio}")
    require(all(weight > 0.0 for weight in policy.tenant_weights), "tenant_weights must be positive")
    require(0 <= policy.max_skips <= 1024, f"max_skips must be in 0..1024, got {policy.max_skips}")


def queue_weights(**weights: float) -> tuple[float, ...]:
    """Queue weights by feature name, zero where not named.

    Example:
        >>> queue_weights(num_prompt_tokens=1.0)
        (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """
    return _by_name(QUEUE_FEATURES, weights)


def victim_weights(**weights: float) -> tuple[float, ...]:
    """Victim weights by feature name, zero where not named."""
    return _by_name(VICTIM_FEATURES, weights)


def _by_name(names: tuple[str, ...], weights: dict[str, float]) -> tuple[float, ...]:
    unknown = set(weights) - set(names)
    if unknown:
        raise ValueError(f"unknown feature {sorted(unknown)[0]!r}; known: {', '.join(names)}")
    return tuple(float(weights.get(name, 0.0)) for name in names)


__all__ = [
    "NO_LIMIT",
    "QUEUE_FEATURES",
    "VICTIM_FEATURES",
    "AdmissionCheck",
    "Information",
    "LengthEstimate",
    "OnMisfit",
    "PhaseOrder",
    "Policy",
    "Prediction",
    "PreemptMode",
    "QueueOrder",
    "Reserve",
    "RunOrder",
    "Victim",
    "VictimPool",
    "queue_weights",
    "victim_weights",
]
