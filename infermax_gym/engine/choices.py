"""What the knobs of a `Policy` may be set to: its choices, and the features that its keys weigh."""

from __future__ import annotations

from enum import IntEnum


class PhaseOrder(IntEnum):
    """In which order the groups are served."""

    DECODE_FIRST = 0  # decodes, running prefills, waiting requests
    PREFILL_FIRST = 1  # running prefills, waiting requests, decodes
    ONE_LIST = 2  # all running in list order, decodes or not, then waiting requests


class QueueOrder(IntEnum):
    """How the waiting queue is ordered; the smallest key is the head, ties go to the earlier arrival."""

    FIFO = 0  # arrival order, preempted requests in front of all others, the last preempted first
    LINEAR = 1  # key = queue_weights . queue features, fixed while the request waits
    RESPONSE_RATIO = 2  # key = -(wait in seconds) / (queue_weights . queue features): HRRN
    LOAD_ADAPTIVE = 3  # key = queue_weights . queue features - load_aging x (number waiting) x (wait in seconds)
    FAIR = 4  # the tenant that has been served least, its requests by arrival: VTC


class RunOrder(IntEnum):
    """How the running list is ordered before it is served."""

    ADMISSION = 0  # order of admission
    ARRIVAL = 1  # order of arrival
    BATCH = 2  # last iteration's batch order, those it left out first (by arrival): the Sarathi port of Vidur
    PROCESSED_DESC = 3  # most processed tokens first (stable), base order as in BATCH: INFERMAX's SRF
    QUEUE_KEY = 4  # smallest LINEAR queue key first (stable), base order as in ADMISSION
    TOKEN_DEADLINE = 5  # earliest next-token deadline first (prefills: arrival; stable), base order as in ADMISSION


class Reserve(IntEnum):
    """How many tokens get blocks on admission; whatever is missing later grows pass by pass."""

    CHUNK = 0  # those of the first chunk
    KNOWN = 1  # all known tokens (prompt + generated)
    TOTAL_ESTIMATE = 2  # prompt + estimated output - 1, at least the known tokens
    MODEL_LENGTH = 3  # max_model_len of the engine


class AdmissionCheck(IntEnum):
    """What must fit besides the reserved blocks before a waiting request is admitted."""

    NONE = 0
    KNOWN = 1  # all known tokens must fit the free blocks, even if fewer are reserved
    HISTOGRAM = 2  # max(known, mean prompt + output of finished requests in the same power-of-two prompt bucket)
    FUTURE_PEAK = 3  # the peak KV need of all running and the waiting request, were nobody else to join


class LengthEstimate(IntEnum):
    """Which output length reservations and the future peak use; this is what sets the information class."""

    NONE = 0
    BOUND = 1  # max_output_tokens of the engine
    OPTIMISTIC_BOUND = 2  # min(max_output_tokens, max(1.1 x generated, 1024)): LightLLM
    PREDICTED = 3  # the predictor's number for this request
    HISTORY = 4  # `history_quantile` of the finished outputs that are longer than what is generated: Past-Future


class Victim(IntEnum):
    """Which candidate is preempted."""

    LIST_TAIL = 0  # the last one of the running list
    KEY = 1  # the largest victim_weights . victim features, the first in the list on ties


class VictimPool(IntEnum):
    """Which running requests are candidates."""

    UNVISITED = 0  # those not yet served or passed over in this call; the requester itself if there is none
    ALL = 1  # every running request; tokens granted to a victim in this call return to the budget


class OnMisfit(IntEnum):
    """What happens to admission when a waiting request does not fit."""

    STOP = 0
    SKIP = 1  # try the next ones, at most `max_skips` misfits per call


class PreemptMode(IntEnum):
    """What happens to a victim's KV."""

    RECOMPUTE = 0  # dropped; prompt and generated tokens are prefilled again
    SWAP = 1  # moved to host memory and back, recomputed where host memory is full
    CHEAPER = 2  # SWAP where moving it both ways takes less time than computing it again


class Prediction(IntEnum):
    """Which number of the predictor a policy is told."""

    POINT = 0  # a guess
    LOWER = 1  # the lower end of an interval that holds the truth
    UPPER = 2  # its upper end
    CLASS = 3  # the middle of the guess's class, of ten equally wide ones up to 512 tokens


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
    "num_lacking_tokens",
    "prefill_s",
    "predicted_kv_steps",
    "level",
    "level_place_s",
    "prompt_shortness",
    "log_prompt_work",
    "log_lacking_work",
)
"""What LINEAR and RESPONSE_RATIO keys may weigh; `arrival_s` with weight w equals waiting time with weight -w.

Lacking tokens: known ones that are not computed. `prefill_s`: how long an iteration with nothing but the prefill of the
known tokens takes. `predicted_kv_steps`: KV tokens times decode steps still to come, remaining x (known + remaining /
2). `level_place_s`: the place in a level, by arrival, in front of all whoever moved there, the last mover first.
`prompt_shortness`: 1 / (1 + prompt / 32,768). Attention work of n tokens is W(n) = n (n + 1) / 2: `log_prompt_work` is
ln W(prompt), `log_lacking_work` ln(W(known) - W(computed)).
New features are appended, so that stored weights keep their meaning.
"""

VICTIM_FEATURES = (
    "arrival_s",
    "num_prompt_tokens",
    "num_processed_tokens",
    "log_processed_tokens",
    "num_generated_tokens",
    "predicted_remaining_tokens",
    "priority",
    "is_prefill",
    "predicted_kv_steps",
    "level",
    "level_place_s",
    "reclaim_value",
)
"""What victim keys may weigh. Processed tokens: the KV resident, plus one for a decode's emitted token.

`reclaim_value`: blocks that preempting it frees / known tokens x (1 - generated / `max_output_tokens`).
"""
