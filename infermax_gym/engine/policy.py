"""A scheduler as data: the knobs of the one scheduling algorithm.

INFERMAX's insight is that practical schedulers are settings of one algorithm. `infermax_gym.engine.kernel`
implements that algorithm once; a `Policy` is one setting of it. This module is the specification of the knobs.

One call of the algorithm decides one iteration:

1. `displace`: with `preempt_for_newcomer`, the head of the waiting queue may push out running requests whose
   queue key is strictly larger (worse).
2. Put the running list in `run_order`.
3. Serve the groups in `phase_order`: running decodes, running prefills, newcomers. Without `hybrid`, the first
   group that put a token into the batch is the last (running prefills and newcomers count as one group).
4. Each served request gets c tokens: 1 for a decode; for a prefill the remaining known tokens, cut by
   `max_chunk` and by what is left of the token budget (not cut when `chunking` is off: it then waits, a
   newcomer that does not fit the budget closing admission).
5. A running request whose blocks do not fit preempts victims (`victim`, `victim_pool`) until they do. With no
   candidate left it preempts itself.
6. A newcomer that does not fit (`reserve`, `admission_check`, `watermark`, headroom) closes admission or is
   skipped (`on_misfit`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum


class PhaseOrder(IntEnum):
    """In which order the groups are served."""

    DECODE_FIRST = 0  # decodes, running prefills, newcomers
    PREFILL_FIRST = 1  # running prefills, newcomers, decodes
    ONE_LIST = 2  # all running in list order, decodes or not, then newcomers


class QueueOrder(IntEnum):
    """How the waiting queue is ordered; the smallest key is the head, ties go to the earlier arrival."""

    FIFO = 0  # arrival order, preempted requests in front of all others, the last preempted first
    LINEAR = 1  # key = queue_weights . queue features, fixed while the request waits
    RESPONSE_RATIO = 2  # key = -(wait in seconds) / (queue_weights . queue features): HRRN
    LOAD_ADAPTIVE = 3  # key = queue_weights . queue features - load_aging x (number waiting) x (wait in seconds)


class RunOrder(IntEnum):
    """How the running list is ordered before it is served."""

    ADMISSION = 0  # order of admission
    ARRIVAL = 1  # order of arrival
    BATCH = 2  # last iteration's batch order, those it left out first (by arrival): the Sarathi port of Vidur
    PROCESSED_DESC = 3  # most processed tokens first (stable), base order as in BATCH: INFERMAX's SRF
    QUEUE_KEY = 4  # smallest LINEAR queue key first (stable), base order as in ADMISSION


class Reserve(IntEnum):
    """How many tokens get blocks on admission; whatever is missing later grows pass by pass."""

    CHUNK = 0  # those of the first chunk
    KNOWN = 1  # all known tokens (prompt + generated)
    TOTAL_ESTIMATE = 2  # prompt + estimated output - 1, at least the known tokens
    MODEL_LENGTH = 3  # max_model_len of the engine


class AdmissionCheck(IntEnum):
    """What must fit besides the reserved blocks before a newcomer is admitted."""

    NONE = 0
    KNOWN = 1  # all known tokens must fit the free blocks, even if fewer are reserved
    HISTOGRAM = 2  # max(known, mean prompt + output of finished requests in the same power-of-two prompt bucket)
    FUTURE_PEAK = 3  # the peak KV need of all running and the newcomer, were nobody else to join


class LengthEstimate(IntEnum):
    """Which output length reservations and the future peak use; this is what sets the information class."""

    NONE = 0
    BOUND = 1  # max_output_tokens of the engine
    OPTIMISTIC_BOUND = 2  # min(max_output_tokens, max(1.1 x generated, 1024)): LightLLM
    PREDICTED = 3  # the predictor's number for this request


class Victim(IntEnum):
    """Which candidate is preempted."""

    LIST_TAIL = 0  # the last one of the running list
    KEY = 1  # the largest victim_weights . victim features, the first in the list on ties


class VictimPool(IntEnum):
    """Which running requests are candidates."""

    UNVISITED = 0  # those not yet served or passed over in this call; the requester itself if there is none
    ALL = 1  # every running request; tokens granted to a victim in this call return to the budget


class OnMisfit(IntEnum):
    """What happens to admission when a newcomer does not fit."""

    STOP = 0
    SKIP = 1  # try the next ones, at most `max_skips` misfits per call


class PreemptMode(IntEnum):
    """What happens to a victim's KV."""

    RECOMPUTE = 0  # dropped; prompt and generated tokens are prefilled again
    SWAP = 1  # moved to host memory and back, recomputed where host memory is full


class Information(IntEnum):
    """What a policy knows about output lengths."""

    NONE = 0
    BOUND = 1  # an upper bound
    PREDICTED = 2  # a noisy prediction
    ORACLE = 3  # the truth


QUEUE_FEATURES = (
    "arrival_s",
    "num_prompt_tokens",
    "num_known_tokens",
    "log_known_tokens",
    "num_generated_tokens",
    "predicted_remaining_tokens",
    "priority",
    "slo_ttft_s",
)
"""What LINEAR and RESPONSE_RATIO keys may weigh; `arrival_s` with weight w equals waiting time with weight -w."""

VICTIM_FEATURES = (
    "arrival_s",
    "num_prompt_tokens",
    "num_processed_tokens",
    "log_processed_tokens",
    "num_generated_tokens",
    "predicted_remaining_tokens",
    "priority",
    "is_prefill",
)
"""What victim keys may weigh. Processed tokens: the KV resident, plus one for a decode's emitted token."""

NO_LIMIT = 2**62


@dataclass(frozen=True)
class Policy:
    """One row of the table of schedulers: a setting of every knob.

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
        prefill_share: share of the token budget, rounded down but at least one token, that all prefill tokens
            of an iteration together may use while some decode is running (1 = no limit).
        max_num_batched_tokens: the row's own token budget; None takes the engine's.
        reserve: see `Reserve`.
        admission_check: see `AdmissionCheck`.
        estimate: see `LengthEstimate`.
        watermark: share of all blocks that admission must leave free (rounded down to blocks).
        headroom_tokens: KV tokens that must stay free per running request (before the newcomer) on admission.
        peak_margin: the future peak must not exceed (1 - peak_margin) of the KV capacity.
        max_running: the row's own cap on running requests; None takes the engine's `max_num_seqs` alone.
        on_misfit: see `OnMisfit`.
        max_skips: misfits that SKIP passes over per call.
        victim: see `Victim`.
        victim_weights: one weight per entry of `VICTIM_FEATURES`.
        victim_pool: see `VictimPool`.
        self_preemption_ends: a request that preempts itself ends the pass over the running list (vLLM V1).
        admit_after_preemption: whether newcomers may join in a call that preempted somebody for memory.
        preempt_for_newcomer: see `displace` in the module docstring.
        preempt_mode: see `PreemptMode`.
        admit_when_empty_only: newcomers join only while nothing runs (static batching).
        release_at_batch_end: finished requests keep their blocks until nothing runs (FasterTransformer).
        delay_factor: newcomers wait until the oldest has waited delay_factor x the last prefill iteration's
            duration, unless nothing runs (vLLM V0).
        min_decodes_between_prefills: decode iterations that must pass between two admissions while something
            runs (LightLLM).
        prediction_sigma: log-normal error of the predicted output lengths, O exp(sigma Z - sigma^2 / 2); 0 = exact.
        information: what it knows about output lengths.
        source: paper or code the row follows.
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
    prefill_share: float = 1.0
    max_num_batched_tokens: int | None = None
    reserve: Reserve = Reserve.KNOWN
    admission_check: AdmissionCheck = AdmissionCheck.NONE
    estimate: LengthEstimate = LengthEstimate.NONE
    watermark: float = 0.0
    headroom_tokens: float = 0.0
    peak_margin: float = 0.0
    max_running: int | None = None
    on_misfit: OnMisfit = OnMisfit.STOP
    max_skips: int = 16
    victim: Victim = Victim.LIST_TAIL
    victim_weights: tuple[float, ...] = (0.0,) * len(VICTIM_FEATURES)
    victim_pool: VictimPool = VictimPool.UNVISITED
    self_preemption_ends: bool = False
    admit_after_preemption: bool = True
    preempt_for_newcomer: bool = False
    preempt_mode: PreemptMode = PreemptMode.RECOMPUTE
    admit_when_empty_only: bool = False
    release_at_batch_end: bool = False
    delay_factor: float = 0.0
    min_decodes_between_prefills: int = 0
    prediction_sigma: float = 0.0
    information: Information = Information.NONE
    source: str = field(default="", compare=False)
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check(self)


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
    for name in ("queue_weights", "victim_weights", "headroom_tokens", "delay_factor", "load_aging"):
        value = getattr(policy, name)
        finite = all(map(math.isfinite, value)) if isinstance(value, tuple) else math.isfinite(value)
        require(finite, f"{name} must be finite, got {value}")
    require(policy.max_chunk >= 1, f"max_chunk must be at least 1, got {policy.max_chunk}")
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
        policy.queue_order == QueueOrder.LINEAR or not policy.preempt_for_newcomer,
        "preempt_for_newcomer needs queue_order LINEAR",
    )
    require(
        not (policy.preempt_for_newcomer and policy.admission_check == AdmissionCheck.FUTURE_PEAK),
        "preempt_for_newcomer does not go with admission_check FUTURE_PEAK",
    )
    require(0 <= policy.max_skips <= 1024, f"max_skips must be in 0..1024, got {policy.max_skips}")


def queue_weights(**weights: float) -> tuple[float, ...]:
    """Queue weights by feature name, zero where not named.

    Example:
        >>> queue_weights(num_prompt_tokens=1.0)
        (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
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
