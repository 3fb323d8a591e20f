"""Features of `InferMaxRouter-v0`: the one place for their order. squash(x, h) = x / (x + h)."""

from __future__ import annotations

from enum import IntEnum


class ReplicaFeature(IntEnum):
    """Numbers that describe a replica, in order."""

    WAITING = 0  # requests that wait there, squashed at 8
    RUNNING = 1  # share of sequences
    WAITING_TOKENS = 2  # their known tokens, squashed at the KV capacity
    PREFILL_SECONDS = 3  # tokens to prefill over the prefill rate, squashed at 1 s
    FREE_KV = 4  # share of capacity
    SPARE_KV = 5  # free less waiting tokens and this prompt, share of capacity, at least -1
    START_DELAY = 6  # the estimate of the router sal, squashed at 1 s
    RELEASE_RATE = 7  # tokens of finished requests per second of its iterations, squashed at 1,000
    KV_CAPACITY = 8  # tokens, squashed at 100,000
    PREFILL_RATE = 9  # tokens per second of an iteration of one prefill, squashed at 10,000
    MAX_NUM_SEQS = 10  # squashed at 64
    CHOSEN_LAST = 11  # 1 for the replica that got the last request
    CANDIDATE = 12  # 1 if it can hold this request
    PREFIX_MATCH = 13  # share of the prompt that is presumably in its prefix cache; 0 without one


REPLICA_FEATURES = tuple(entry.name.lower() for entry in ReplicaFeature)


class RequestFeature(IntEnum):
    """Numbers that describe the arriving request and the traffic, in order."""

    PROMPT_TOKENS = 0  # squashed at 1,000
    PREDICTED_OUTPUT = 1  # tokens, squashed at 100; 0 without a prediction
    SLO_TTFT = 2  # seconds, squashed at 1; 1 without an objective
    GAP = 3  # seconds since the last decision, squashed at the mean gap so far
    ARRIVAL_RATE = 4  # requests per second and replica so far, squashed at 4
    SNAPSHOT_AGE = 5  # age of the signals in seconds, squashed at 1
    REPLICAS = 6  # how many there are, squashed at 16


REQUEST_FEATURES = tuple(entry.name.lower() for entry in RequestFeature)
