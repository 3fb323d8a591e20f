"""What a controller sets, sees and keeps account of: names, and where each stands in its array."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.policy import QUEUE_FEATURES, VICTIM_FEATURES
from infermax_gym.envs.knobs.layout import KNOB_NAMES
from infermax_gym.envs.scheduling.layout import ENGINE_FEATURES

EXTRA_KNOBS = (
    "log_generated",  # queue key: ln(1 + generated)
    "log_remaining",  # queue key: ln(1 + estimated remaining tokens)
    "memory_time",  # queue key: estimated KV tokens x iterations still needed, per million
    "overdue",  # queue key: minus the square of the seconds waited, per 30 s (positive: nobody waits for ever)
    "shed",  # above 0: sheds whoever would miss its TTFT limit if its prefill took 2 x the knob times as long as alone
    "class_ttft",  # queue key: the class's TTFT limit, per 2 s
    "victim_remaining",  # victim key: estimated remaining tokens, per 100
    "victim_index",  # victim key: the queue key's nonlinear part (the knobs from log_generated to shed)
    "preempt",  # above 0: requests that rank further behind the head than a margin are preempted; 1 = any
)
CONTROLLER_KNOBS = KNOB_NAMES + EXTRA_KNOBS
"""What a controller sets, each in [-1, 1]; the first ones (`KNOB_NAMES`) are the action of `InferMaxKnobs-v0`."""

EXTRA_FEATURES = (
    "log_output",  # mean of ln(output) as estimated now, over 8
    "log_output_spread",  # its standard deviation, over 2
    "arrivals_share",  # arrivals / (arrivals + finishes), smoothed over half a minute: 0.5 in balance
    "mean_prompt",  # of arrivals so far, squashed at 1,000
    "backlog",  # waiting requests, squashed at 100
    "long_wait",  # seconds since the oldest arrival, squashed at 60
    "missed_share",  # waiting requests whose TTFT limit has passed, share
    "good_share",  # finished requests that met their SLOs, share
    "context_cost",  # reading the KV of a mean prompt, over the rest of a decode's iteration, squashed at 1
)
CONTROLLER_FEATURES = ("one", *ENGINE_FEATURES, *EXTRA_FEATURES)
"""What a controller sees: a constant, the engine features of the environments, and what it keeps account of."""

NUM_KNOBS, NUM_FEATURES = len(CONTROLLER_KNOBS), len(CONTROLLER_FEATURES)
NUM_ENGINE_FEATURES = len(ENGINE_FEATURES)

ACCOUNT = np.dtype(
    [
        ("interval_s", "f8"),
        ("max_num_seqs", "i8"),  # of the engine, before any cap
        ("estimates_lengths", "i8"),  # whether output lengths are estimated
        ("sigma", "f8"),  # log-normal error of predictions; 0: there are none
        ("prior_log", "f8"),  # prior of ln(output): mean ...
        ("prior_spread", "f8"),  # ... standard deviation ...
        ("prior_weight", "f8"),  # ... worth so many finished requests
        ("group_weight", "f8"),  # a group's own figures count once it has so many
        ("first_alive", "i8"),  # all requests before it are finished or rejected
        ("arrived", "i8"),
        ("arrival_rate", "f8"),  # smoothed counts
        ("finish_rate", "f8"),
        ("last_s", "f8"),
        ("next_s", "f8"),
        ("preempts", "i8"),  # whether running requests may be preempted
        ("pace", "f8"),  # prefills are expected to take so many times as long as alone; 0: nobody is shed
        ("num_settings", "i8"),
    ],
    align=True,
)

# Places of the knobs.
KNOB_AGING = CONTROLLER_KNOBS.index("aging")
KNOB_KNOWN_TOKENS = CONTROLLER_KNOBS.index("known_tokens")
KNOB_LOG_KNOWN_TOKENS = CONTROLLER_KNOBS.index("log_known_tokens")
KNOB_GENERATED_TOKENS = CONTROLLER_KNOBS.index("generated_tokens")
KNOB_PREDICTED_REMAINING = CONTROLLER_KNOBS.index("predicted_remaining")
KNOB_HEADROOM = CONTROLLER_KNOBS.index("headroom")
KNOB_MAX_RUNNING = CONTROLLER_KNOBS.index("max_running")
KNOB_PREFILL_SHARE = CONTROLLER_KNOBS.index("prefill_share")
KNOB_VICTIM_PROCESSED = CONTROLLER_KNOBS.index("victim_processed")
KNOB_VICTIM_GENERATED = CONTROLLER_KNOBS.index("victim_generated")
KNOB_VICTIM_ARRIVAL = CONTROLLER_KNOBS.index("victim_arrival")
KNOB_LOG_GENERATED = CONTROLLER_KNOBS.index("log_generated")
KNOB_LOG_REMAINING = CONTROLLER_KNOBS.index("log_remaining")
KNOB_MEMORY_TIME = CONTROLLER_KNOBS.index("memory_time")
KNOB_OVERDUE = CONTROLLER_KNOBS.index("overdue")
KNOB_SHED = CONTROLLER_KNOBS.index("shed")
KNOB_CLASS_TTFT = CONTROLLER_KNOBS.index("class_ttft")
KNOB_VICTIM_REMAINING = CONTROLLER_KNOBS.index("victim_remaining")
KNOB_VICTIM_INDEX = CONTROLLER_KNOBS.index("victim_index")
KNOB_PREEMPT = CONTROLLER_KNOBS.index("preempt")

# Places of the features.
FEATURE_ONE = CONTROLLER_FEATURES.index("one")
FEATURE_LOG_OUTPUT = CONTROLLER_FEATURES.index("log_output")
FEATURE_LOG_OUTPUT_SPREAD = CONTROLLER_FEATURES.index("log_output_spread")
FEATURE_ARRIVALS_SHARE = CONTROLLER_FEATURES.index("arrivals_share")
FEATURE_MEAN_PROMPT = CONTROLLER_FEATURES.index("mean_prompt")
FEATURE_BACKLOG = CONTROLLER_FEATURES.index("backlog")
FEATURE_LONG_WAIT = CONTROLLER_FEATURES.index("long_wait")
FEATURE_MISSED_SHARE = CONTROLLER_FEATURES.index("missed_share")
FEATURE_GOOD_SHARE = CONTROLLER_FEATURES.index("good_share")
FEATURE_CONTEXT_COST = CONTROLLER_FEATURES.index("context_cost")

# Places of the engine's queue and victim weights that a controller sets.
QUEUE_ARRIVAL_S = QUEUE_FEATURES.index("arrival_s")
QUEUE_NUM_PROMPT_TOKENS = QUEUE_FEATURES.index("num_prompt_tokens")
QUEUE_NUM_KNOWN_TOKENS = QUEUE_FEATURES.index("num_known_tokens")
QUEUE_LOG_KNOWN_TOKENS = QUEUE_FEATURES.index("log_known_tokens")
QUEUE_NUM_GENERATED_TOKENS = QUEUE_FEATURES.index("num_generated_tokens")
QUEUE_PREDICTED_REMAINING_TOKENS = QUEUE_FEATURES.index("predicted_remaining_tokens")
QUEUE_PRIORITY = QUEUE_FEATURES.index("priority")
QUEUE_SLO_TTFT_S = QUEUE_FEATURES.index("slo_ttft_s")
VICTIM_ARRIVAL_S = VICTIM_FEATURES.index("arrival_s")
VICTIM_NUM_PROCESSED_TOKENS = VICTIM_FEATURES.index("num_processed_tokens")
VICTIM_NUM_GENERATED_TOKENS = VICTIM_FEATURES.index("num_generated_tokens")
VICTIM_PREDICTED_REMAINING_TOKENS = VICTIM_FEATURES.index("predicted_remaining_tokens")
VICTIM_PRIORITY = VICTIM_FEATURES.index("priority")

# Columns of `Observed.totals`.
COUNT, SUM, SUM_OF_SQUARES = range(3)


class Specialists(NamedTuple):
    """Weights of the specialists and of the gating network between them, for the compiled code.

    Attributes:
        weights: (specialists, NUM_KNOBS, NUM_FEATURES) float64.
        inner: (hidden, NUM_FEATURES) float64.
        outer: (specialists, hidden + 1) float64.
    """

    weights: NDArray[np.float64]
    inner: NDArray[np.float64]
    outer: NDArray[np.float64]


class Observed(NamedTuple):
    """What a controller remembers of the requests while it serves them.

    Attributes:
        groups: (n,) int64, from 1: requests of a group are expected to have like output lengths.
        predicted: (n,) float64 predicted output tokens, 0 where there is no prediction.
        counted: (n,) int8, whether a finished request is in `totals`.
        shed: (n,) int8, whether a request has been shed.
        totals: (number of groups + 1, 3) float64: count, sum and sum of squares of ln(output); entry 0 is everybody.
    """

    groups: NDArray[np.int64]
    predicted: NDArray[np.float64]
    counted: NDArray[np.int8]
    shed: NDArray[np.int8]
    totals: NDArray[np.float64]
