"""The optimum of tiny instances by enumeration, for reading: every batch, every chunk, every hold, no shortcuts."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

from infermax_gym.baselines.optimum.instance import Instance

Standing = tuple[int, int, bool]  # generated, resident tokens, whether it decodes next
State = tuple[Standing | None, ...]  # None: finished


def optimum(instance: Instance, objective: str, variant: str = "preemptive") -> float:
    """Least makespan or mean latency in seconds; infinite if no schedule meets the limits."""
    n = len(instance)
    start: State = ((0, 0, False),) * n
    best: dict[tuple[State, float], float] = {(start, 0.0): 0.0}
    heap: list[tuple[float, int, float, State]] = [(0.0, 0, 0.0, start)]
    order = itertools.count(1)
    while heap:
        cost, _, clock, state = heapq.heappop(heap)
        if best[state, clock] < cost:
            continue
        if all(s is None for s in state):
            total = sum(r.arrival_s for r in instance.requests)
            return cost if objective == "makespan" else (cost - total) / n
        left = sum(s is not None for s in state)
        for end, after in _successors(instance, state, clock, variant):
            new = cost + (end - clock) * (left if objective == "latency" else 1)
            key = after, end
            if new < best.get(key, math.inf) - 1e-15:
                best[key] = new
                heapq.heappush(heap, (new, next(order), end, after))
    return math.inf


def _successors(instance: Instance, state: State, clock: float, variant: str) -> Iterator[tuple[float, State]]:
    later = [r.arrival_s for r in instance.requests if r.arrival_s > clock]
    if later:
        yield min(later), state
    for picks in itertools.product(*(_actions(instance, r, s, clock, variant) for r, s in enumerate(state))):
        tokens = sum(p[1] for p in picks)
        blocks = [p[2] for p in picks]
        if tokens == 0 or tokens > instance.max_num_batched_tokens or sum(blocks) > instance.num_blocks:
            continue
        if sum(b > 0 for b in blocks) > instance.max_num_seqs:
            continue
        prefills = [p[3] for p in picks if p[3] is not None]
        decodes = [p[4] for p in picks if p[4] is not None]
        end = clock + instance.cost.seconds(prefills, decodes)
        after = tuple(p[0] for p in picks)
        firsts = (
            r for r, (a, s) in enumerate(zip(after, state, strict=True)) if s and s[0] == 0 and (a is None or a[0] == 1)
        )
        requests = instance.requests
        if all(end - requests[r].arrival_s <= requests[r].ttft_limit_s for r in firsts):
            yield end, after


Pick = tuple[Standing | None, int, int, tuple[int, int] | None, int | None]  # after, tokens, blocks, prefill, decode


def _actions(instance: Instance, r: int, s: Standing | None, clock: float, variant: str) -> list[Pick]:
    if s is None:
        return [(None, 0, 0, None, None)]
    request = instance.requests[r]
    generated, resident, decodes = s

    def blocks(tokens: int) -> int:
        return instance.blocks(request.peak_tokens if tokens > 0 and variant == "reserve" else tokens)

    def emitted() -> Standing | None:
        g = generated + 1
        return None if g == request.num_output_tokens else (g, request.num_prompt_tokens + g - 1, True)

    picks: list[Pick] = [(s, 0, blocks(resident), None, None)]
    if request.arrival_s > clock:
        return picks
    known = request.num_prompt_tokens + generated
    if decodes:
        picks.append((emitted(), 1, blocks(resident + 1), None, resident))
    starts = {0} if decodes else {resident}
    if resident > 0 and variant == "preemptive":
        picks.append(((generated, 0, False), 0, 0, None, None))
        starts.add(0)
    elif decodes:
        starts = set()
    for m in starts:
        for c in range(1, known - m + 1):
            after = emitted() if m + c == known else (generated, m + c, False)
            picks.append((after, c, blocks(m + c), (c, m), None))
    return picks
