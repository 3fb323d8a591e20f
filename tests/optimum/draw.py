"""Random instances for the tests of the optimum."""

from __future__ import annotations

import random

from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.cost import COSTS

VARIANTS = ("preemptive", "no-preemption", "reserve")
OBJECTIVES = ("makespan", "latency")


def tiny(seed: int, limits: bool = True) -> tuple[Instance, str, str]:
    """An instance that brute force can solve, with arrivals, chunks, blocks, sequences and limits; what to solve."""
    rng = random.Random(seed)
    count = rng.choice([1, 2, 2, 3])
    lengths = [(rng.randint(1, 4 if count < 3 else 2), rng.randint(1, 3)) for _ in range(count)]
    block_size = rng.choice([1, 1, 2])
    peak = max(i + o - 1 for i, o in lengths)
    kv_tokens = -(-peak // block_size) * block_size + rng.randint(0, 4)
    arrivals = sorted(rng.choice([0.0, 0.0, 0.03, 0.05]) for _ in lengths)
    limit = [float("inf")] * 3 + ([0.08] if limits else [])
    requests = tuple(Request(a, i, o, rng.choice(limit)) for a, (i, o) in zip(arrivals, lengths, strict=True))
    cost = COSTS[rng.choice(["llama2-7b-a100", "llama3-70b-a100x4", "llama3-70b-a100x4-infermax"])]
    instance = Instance(requests, kv_tokens, rng.choice([2, 3, 64]), rng.choice([2, 64]), block_size, cost)
    return instance, rng.choice(OBJECTIVES), rng.choice(VARIANTS)


def small(seed: int, longest: tuple[int, int] = (8, 7)) -> tuple[Instance, str, str]:
    """An instance beyond brute force, of 2 or 3 requests that arrive together, and what to solve.

    Args:
        seed: of everything.
        longest: prompt and output tokens of a request at the most.
    """
    rng = random.Random(seed)
    lengths = [(rng.randint(1, longest[0]), rng.randint(1, longest[1])) for _ in range(rng.choice([2, 3, 3]))]
    peaks = [i + o - 1 for i, o in lengths]
    kv_tokens = max(max(peaks), round(rng.uniform(0.3, 0.9) * sum(peaks)))
    cost = rng.choice(["llama2-7b-a100", "llama3-70b-a100x4"])
    instance = Instance.of(lengths, kv_tokens, cost, max_num_batched_tokens=rng.choice([4, 64]))
    return instance, rng.choice(OBJECTIVES), rng.choice(VARIANTS)
