"""Preemption: who has to go, and where to."""

from __future__ import annotations

from collections.abc import Sequence

from infermax_gym.engine.policy import Policy, PreemptMode, QueueOrder, Victim, VictimPool
from tests.reference.keys import is_pinned, victim_key
from tests.reference.request import Request
from tests.reference.state import Decision, Engine


def choose_victim(engine: Engine, decision: Decision, requester: Request) -> Request:
    """The running request that makes room for the requester; the requester itself if there is no other."""
    policy = decision.policy
    if policy.victim_pool == VictimPool.ALL:
        pool = engine.running
    else:
        later = engine.running[engine.running.index(requester) + 1 :]
        pool = [request for request in later if request not in decision.batch]
    if not pool:
        return requester
    return worst(engine, policy, pool)


def worst(engine: Engine, policy: Policy, pool: Sequence[Request]) -> Request:
    """The victim in a pool: its last one, or the largest key, the pinned after all others."""
    if policy.victim == Victim.LIST_TAIL:
        return pool[-1]

    def badness(request: Request) -> tuple[bool, float]:
        key = victim_key(policy, request, engine.blocks_alone(request), engine.max_output_tokens)
        return not is_pinned(policy, request), key

    return max(pool, key=badness)


def moves_to_host(engine: Engine, num_tokens: int) -> bool:
    """Whether a victim with so many resident tokens is swapped."""
    mode = engine.policy.preempt_mode
    if not 0 < num_tokens <= engine.host_free:
        return False
    if mode == PreemptMode.CHEAPER:
        return 2.0 * num_tokens / engine.config.swap_tokens_per_s < engine.duration.of_prefill(num_tokens)
    return mode == PreemptMode.SWAP


def preempt(engine: Engine, decision: Decision, victim: Request) -> None:
    """Take a running request's blocks (and tokens of this call), and put it back into the queue."""
    decision.take_back(victim)
    decision.preempted.append(victim)
    victim.num_preemptions += 1
    engine.leave(victim)
    if moves_to_host(engine, victim.resident):
        engine.host_free -= victim.resident
        decision.swapped_tokens += victim.resident
        victim.on_host = True
    else:
        victim.num_recomputed_tokens += victim.resident
        engine.num_recomputed += victim.resident
        victim.num_lost_tokens = victim.resident
        victim.resident = 0
        victim.is_decode = False
    victim.waiting_since_s = engine.clock_s
    victim.waiting_since_iteration = engine.num_iterations
    engine.queue.add(victim, in_front=engine.policy.queue_order == QueueOrder.FIFO)


def bring_back(engine: Engine, decision: Decision, request: Request) -> None:
    """Move the KV of a request that has joined from the host, as far as it was not found in the cache."""
    found_tokens = engine.cache.published[request.number] * engine.b if engine.cache else 0
    engine.host_free += request.resident
    decision.swapped_tokens += request.resident - found_tokens
    engine.publish(request, request.resident)
    decision.num_resumed += 1
    request.on_host = False
