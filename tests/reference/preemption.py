"""Preemption: who has to go, and where to."""

from __future__ import annotations

from infermax_gym.engine.policy import PreemptMode, QueueOrder, Victim, VictimPool
from tests.reference.keys import victim_key
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
    if policy.victim == Victim.LIST_TAIL:
        return pool[-1]
    return max(pool, key=lambda request: victim_key(policy, request))


def preempt(engine: Engine, decision: Decision, victim: Request) -> None:
    """Take a running request's blocks (and tokens of this call), and put it back into the queue."""
    decision.take_back(victim)
    decision.preempted.append(victim)
    victim.num_preemptions += 1
    engine.leave(victim)
    swap = engine.policy.preempt_mode == PreemptMode.SWAP
    if swap and 0 < victim.resident <= engine.host_free:
        engine.host_free -= victim.resident
        decision.swapped_tokens += victim.resident
        victim.on_host = True
    else:
        victim.num_recomputed_tokens += victim.resident
        victim.num_lost_tokens = victim.resident
        victim.resident = 0
        victim.is_decode = False
    engine.queue.add(victim, in_front=engine.policy.queue_order == QueueOrder.FIFO)


def bring_back(engine: Engine, decision: Decision, request: Request) -> None:
    """Move the KV of a request that has joined from the host, as far as it was not found in the cache."""
    found_tokens = engine.cache.published[request.number] * engine.b if engine.cache else 0
    engine.host_free += request.resident
    decision.swapped_tokens += request.resident - found_tokens
    engine.publish(request, request.resident)
    decision.num_resumed += 1
    request.on_host = False
