"""What a replica tells its router."""

from __future__ import annotations

from typing import Any

from infermax_gym.cluster.kernel.memory import cores_of, num_released_of, released_of, seen_by, signals_of
from infermax_gym.cluster.router import SIGNALS
from infermax_gym.compile import compiled, inlined
from infermax_gym.engine.kernel.memory import histogram_of, requests, running
from infermax_gym.engine.layout import LANDING

WAITING = SIGNALS.index("num_waiting")
RUNNING = SIGNALS.index("num_running")
WAITING_TOKENS = SIGNALS.index("waiting_tokens")
PREFILL_TOKENS = SIGNALS.index("prefill_tokens")
FREE_KV = SIGNALS.index("free_kv_tokens")
RELEASE_RATE = SIGNALS.index("released_tokens_per_s")


@inlined
def _unjoined(s: Any) -> Any:
    """Requests that were sent here and have not joined the queue, their known tokens, and requests that have landed."""
    req = requests(s)
    count = 0
    tokens = 0
    landed = 0
    for r in range(s.next_arrival, s.num_requests):
        if req[r].place == LANDING:
            landed += 1
        else:
            count += 1
            tokens += req[r].prompt + req[r].generated
    return count, tokens, landed


@inlined
def _running_prefill_tokens(s: Any) -> Any:
    """Tokens that running prefills lack; they are looked for from the end of the list, where most are."""
    req = requests(s)
    run = running(s)
    left = s.num_running_prefills
    position = s.num_running - 1
    tokens = 0
    while left > 0:
        q = req[run[position]]
        if q.in_prefill:
            tokens += q.prompt + q.generated - q.computed
            left -= 1
        position -= 1
    return tokens


@compiled
def refresh(f: Any, i: int) -> None:
    """Take the signals of replica i as it stands now."""
    s = cores_of(f)[i]
    signals = signals_of(f)
    released = released_of(f)
    counted = num_released_of(f)
    unjoined, unjoined_tokens, landed = _unjoined(s)
    waiting_tokens = s.waiting_tokens + unjoined_tokens
    signals[WAITING, i] = s.num_waiting + unjoined
    signals[RUNNING, i] = s.num_running + landed
    signals[WAITING_TOKENS, i] = waiting_tokens
    signals[PREFILL_TOKENS, i] = waiting_tokens + _running_prefill_tokens(s)
    signals[FREE_KV, i] = s.free_blocks * s.block_size
    if s.num_finished != counted[i]:
        histogram = histogram_of(s)
        total = 0
        for bucket in range(histogram.shape[0]):
            total += histogram[bucket, 1]
        released[i] = total
        counted[i] = s.num_finished
    if s.busy_s > 0.0:
        signals[RELEASE_RATE, i] = released[i] / s.busy_s


@inlined
def count_routed(f: Any, i: int, num_known_tokens: int) -> None:
    """A request goes to replica i: it counts there at once, and in a snapshot if the router keeps count."""
    signals = signals_of(f)
    signals[WAITING, i] += 1.0
    signals[WAITING_TOKENS, i] += num_known_tokens
    signals[PREFILL_TOKENS, i] += num_known_tokens
    if f.staleness_s > 0.0 and f.counts_routed:
        seen = seen_by(f)
        seen[WAITING, i] += 1.0
        seen[WAITING_TOKENS, i] += num_known_tokens
        seen[PREFILL_TOKENS, i] += num_known_tokens
