"""Observations of `InferMaxRouter-v0`, written by compiled code. Names: `infermax_gym.envs.routing.layout`."""

from __future__ import annotations

from typing import Any

from infermax_gym.cluster.kernel.candidates import is_candidate
from infermax_gym.cluster.kernel.choose import KV_TOKENS, PREFILL_RATE, match_next, start_delay
from infermax_gym.cluster.kernel.memory import arrivals_of, constants_of, cores_of, matched_of, seen_by
from infermax_gym.cluster.kernel.next_arrival import next_row
from infermax_gym.cluster.kernel.signals import FREE_KV, RELEASE_RATE, RUNNING, WAITING, WAITING_TOKENS
from infermax_gym.compile import compiled
from infermax_gym.envs.routing.layout import REPLICA_FEATURES, REQUEST_FEATURES, ReplicaFeature, RequestFeature
from infermax_gym.envs.scales import squash
from infermax_gym.envs.status import RUNNING_ON

NUM_REPLICA = len(REPLICA_FEATURES)
NUM_REQUEST = len(REQUEST_FEATURES)


@compiled
def _observe_replicas(f: Any, prompt: int, mask: Any, out: Any) -> None:
    cores = cores_of(f)
    seen = seen_by(f)
    constants = constants_of(f)
    matched = matched_of(f)
    for i in range(f.num_replicas):
        at = NUM_REQUEST + i * NUM_REPLICA
        max_num_seqs = float(cores[i].max_num_seqs)
        capacity = constants[KV_TOKENS, i]
        free = seen[FREE_KV, i]
        out[at + ReplicaFeature.WAITING] = squash(seen[WAITING, i], 8.0)
        out[at + ReplicaFeature.RUNNING] = seen[RUNNING, i] / max_num_seqs
        out[at + ReplicaFeature.WAITING_TOKENS] = squash(seen[WAITING_TOKENS, i], capacity)
        out[at + ReplicaFeature.PREFILL_SECONDS] = squash(start_delay(seen, constants, i, 0), 1.0)
        out[at + ReplicaFeature.FREE_KV] = free / capacity
        out[at + ReplicaFeature.SPARE_KV] = max(-1.0, (free - seen[WAITING_TOKENS, i] - prompt) / capacity)
        out[at + ReplicaFeature.START_DELAY] = squash(start_delay(seen, constants, i, prompt), 1.0)
        out[at + ReplicaFeature.RELEASE_RATE] = squash(seen[RELEASE_RATE, i], 1000.0)
        out[at + ReplicaFeature.KV_CAPACITY] = squash(capacity, 100_000.0)
        out[at + ReplicaFeature.PREFILL_RATE] = squash(constants[PREFILL_RATE, i], 10_000.0)
        out[at + ReplicaFeature.MAX_NUM_SEQS] = squash(max_num_seqs, 64.0)
        out[at + ReplicaFeature.CHOSEN_LAST] = f.next_request > 0 and f.last_chosen == i
        out[at + ReplicaFeature.CANDIDATE] = mask[i]
        out[at + ReplicaFeature.PREFIX_MATCH] = matched[i] / prompt if prompt > 0 else 0.0


@compiled
def observe(f: Any, v: Any, out: Any, mask: Any) -> None:
    """Write one observation.

    Args:
        f: the fleet's record.
        v: the lane's record.
        out: (NUM_REQUEST + num_replicas * NUM_REPLICA,) float32: request, then replica after replica.
        mask: (num_replicas,) int8, 1 where the replica can hold the request.
    """
    out[:NUM_REQUEST] = 0.0
    prompt = 0
    mask[:] = 1  # nothing is left to decide: every action does nothing
    if v.status == RUNNING_ON:
        q = arrivals_of(f)[next_row(f)]
        prompt = q.prompt
        match_next(f, q)
        for i in range(f.num_replicas):
            mask[i] = is_candidate(f, i, q)
        mean_gap_s = v.clock_s / max(f.next_request, 1)
        age_s = max(v.clock_s - f.last_snapshot * f.staleness_s, 0.0)  # a snapshot on the grid may round up
        out[RequestFeature.PROMPT_TOKENS] = squash(prompt, 1000.0)
        out[RequestFeature.PREDICTED_OUTPUT] = squash(q.prediction, 100.0) if q.prediction > 0.0 else 0.0
        out[RequestFeature.SLO_TTFT] = squash(q.slo_ttft_s, 1.0) if q.slo_ttft_s > 0.0 else 1.0
        out[RequestFeature.GAP] = squash(v.gap_s, mean_gap_s) if mean_gap_s > 0.0 else 0.0
        out[RequestFeature.ARRIVAL_RATE] = squash(f.next_request / max(v.clock_s, 1.0) / f.num_replicas, 4.0)
        out[RequestFeature.SNAPSHOT_AGE] = squash(age_s, 1.0) if f.staleness_s > 0.0 else 0.0
    out[RequestFeature.REPLICAS] = squash(f.num_replicas, 16.0)
    _observe_replicas(f, prompt, mask, out)
