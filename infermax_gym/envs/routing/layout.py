"""Features of `InferMaxRouter-v0`: the one place for their order. squash(x, h) = x / (x + h)."""

from __future__ import annotations

REPLICA_FEATURES = (
    "waiting",  # requests that wait there, squashed at 8
    "running",  # share of sequences
    "waiting_tokens",  # their known tokens, squashed at the KV capacity
    "prefill_seconds",  # tokens to prefill over the prefill rate, squashed at 1 s
    "free_kv",  # share of capacity
    "spare_kv",  # free less waiting tokens and this prompt, share of capacity, at least -1
    "start_delay",  # the estimate of the router sal, squashed at 1 s
    "release_rate",  # tokens of finished requests per second of its iterations, squashed at 1,000
    "kv_capacity",  # tokens, squashed at 100,000
    "prefill_rate",  # tokens per second of an iteration of one prefill, squashed at 10,000
    "max_num_seqs",  # squashed at 64
    "chosen_last",  # 1 for the replica that got the last request
    "candidate",  # 1 if it can hold this request
    "prefix_match",  # share of the prompt that is presumably in its prefix cache; 0 without one
)
REQUEST_FEATURES = (
    "prompt_tokens",  # squashed at 1,000
    "predicted_output",  # tokens, squashed at 100; 0 without a prediction
    "slo_ttft",  # seconds, squashed at 1; 1 without an objective
    "gap",  # seconds since the last decision, squashed at the mean gap so far
    "arrival_rate",  # requests per second and replica so far, squashed at 4
    "snapshot_age",  # age of the signals in seconds, squashed at 1
    "replicas",  # how many there are, squashed at 16
)
