"""Looking ahead in the plain-Python fleet: docs/cluster.md, `block`."""

from __future__ import annotations

import copy
import math

from infermax_gym.cluster import Router
from tests.cluster.reference_replica import Replica
from tests.reference.engine import _Run
from tests.reference.request import Request

NUM_BINS = 1024


def choose_ahead(
    router: Router, replicas: list[Replica], line: list[int], prefill_tokens: list[int], request: Request
) -> int:
    """The first of the line at which the request finishes first; beyond the horizon, the fewest prefill tokens."""
    finish_s = {i: finish_ahead(router, replicas[i], request) for i in line}
    if min(finish_s.values()) < math.inf:
        return min(line, key=lambda i: finish_s[i])
    return min(line, key=lambda i: prefill_tokens[i])


def finish_ahead(router: Router, replica: Replica, request: Request) -> float:
    """When the request would finish in a copy of the replica whose outputs are as long as estimated."""
    twin = copy_of(replica)
    waiting_request = twin.requests[request.number]
    waiting_request.order = replica.num_entered
    twin.run.to_come.append(waiting_request)
    engine = twin.run.engine
    for live in (*engine.queue, *engine.running, *twin.run.to_come):
        live.num_output_tokens = estimate(router, twin.run, live)
    horizon_s = request.arrival_s + router.horizon_s
    while waiting_request.status != "finished":
        if engine.clock_s >= horizon_s or not twin.iterate():
            return math.inf
    return waiting_request.finish_s


def copy_of(replica: Replica) -> Replica:
    """The replica once more, without its prefix cache."""
    engine = replica.run.engine
    cache, engine.cache = engine.cache, None
    twin = copy.deepcopy(replica, {id(shared): shared for shared in (engine.config, engine.policy, engine.duration)})
    engine.cache = cache
    return twin


def estimate(router: Router, run: _Run, request: Request) -> int:
    """Output tokens that a request is taken to have."""
    engine = run.engine
    width = math.ceil(engine.max_output_tokens / NUM_BINS)
    tokens = router.first_guess_tokens
    if router.uses_predictions and request.prediction > 0.0:
        tokens = math.ceil(request.prediction)
    else:
        finished = [min((output - 1) // width, NUM_BINS - 1) for output in engine.finished_outputs]
        longer = [k for k in finished if k >= min(request.generated // width, NUM_BINS - 1)]
        if longer:
            twice = sum(2 * k * width + width + 1 for k in longer)
            tokens = -(-twice // (2 * len(longer)))
    longest = engine.N * engine.b + 1
    if engine.config.max_model_len is not None:
        longest = min(longest, engine.config.max_model_len)
    return max(min(tokens, longest - request.num_prompt_tokens), request.generated + 1)
