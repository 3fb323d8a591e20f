"""Schedules that never preempt, of requests that are all there: a bound on their GPU seconds, and good ones.

The bound is certified.
Whoever is resident stays until its end. Of those resident at any time let r be the first to end. At its last pass it
holds its peak P, and the others still hold what they have. So in every iteration all but one request fit into what P
leaves free: memory less the smallest peak. Iterations are bins of that size, and each holds one more item of any size.
A dual feasible function (`infermax_gym.baselines.optimum.packing`) turns that into a number of iterations. All else is
exact: nothing is computed twice.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.bounds import certify
from infermax_gym.baselines.optimum.instance import Instance
from infermax_gym.baselines.optimum.minorant import minorants
from infermax_gym.baselines.optimum.packing import family
from infermax_gym.baselines.policies import POLICIES
from infermax_gym.baselines.predict import predictions
from infermax_gym.cost.features import (
    DECODE_CONTEXT,
    HAS_DECODE,
    HAS_PREFILL,
    NUM_DECODES,
    NUM_PREFILLS,
    NUM_TOKENS,
    ONE,
    PREFILL_WORK,
)
from infermax_gym.engine.policy import PhaseOrder, QueueOrder, queue_weights
from infermax_gym.evaluation import run_contender

_MARGIN = 1.0 - 1e-7
"""For the rounding of the engine's clock."""


def fewest_bins(sizes: NDArray[np.int64], room: int, num_functions: int = 48) -> int:
    """Bins of `room` that hold all items, if each bin holds one item more, of any size.

    Args:
        sizes: (n,) of the items, at least 1.
        room: of a bin beside that item, at least 0.
        num_functions: dual feasible functions tried.
    """
    ordered = np.sort(sizes)[::-1]
    count = int(np.searchsorted(-ordered, -room))  # items that can only be the one more
    if room < 1:
        return len(ordered)
    rest = ordered[count:]
    best = max(count, 1)
    for function in family(room, num_functions):
        shares = np.sort(function(rest))[::-1]
        left = np.concatenate([[shares.sum()], shares.sum() - np.cumsum(shares)])
        # Beyond the large items, k bins take the k largest shares and hold the others.
        bins = count + np.arange(len(left))
        enough = left <= bins * function.bin
        best = max(best, int(bins[int(np.argmax(enough))]))
    return best


def busy_bound_s(instance: Instance) -> float:
    """No schedule without preemption computes for fewer seconds.

    Raises:
        ValueError: the requests do not all arrive together.
    """
    if not instance.is_offline:
        raise ValueError("the bound is for requests that all arrive together")
    prompts = np.array([request.num_prompt_tokens for request in instance.requests])
    outputs = np.array([request.num_output_tokens for request in instance.requests])
    room = instance.num_blocks * instance.block_size - int((prompts + outputs - 1).min())
    later = np.concatenate([np.arange(i + 1, i + o) for i, o in zip(prompts, outputs, strict=True)])
    num_iterations = fewest_bins(np.concatenate([prompts, later]), room)
    num_iterations = max(num_iterations, math.ceil((len(prompts) + len(later)) / instance.max_num_seqs))
    num_with_decodes = fewest_bins(later, room) if len(later) else 0
    contexts = float((later - 1).sum())
    best = certify(instance.workload(), instance.engine()).busy_s
    for theta in minorants(instance.cost, instance.max_num_batched_tokens, instance.kv_tokens):
        seconds = (
            theta[ONE] * num_iterations
            + theta[NUM_TOKENS] * float(prompts.sum() + len(later))
            + theta[HAS_PREFILL]
            + theta[PREFILL_WORK] * float((prompts.astype(float) ** 2).sum())
            + theta[NUM_PREFILLS] * len(prompts)
            + theta[HAS_DECODE] * num_with_decodes
            + theta[DECODE_CONTEXT] * contexts
            + theta[NUM_DECODES] * len(later)
        )
        best = max(best, _MARGIN * float(seconds))
    return best


def best_paced_s(instance: Instance) -> float:
    """Makespan of the best schedule that admits at an even pace and never preempts; infinite if none is found.

    Requests that begin together grow together, so memory is half empty. A pace sets them apart. Tried are gaps between
    admissions, prompts per admission, and three orders; all look ahead at memory with true lengths.
    """
    mean = sum(request.num_output_tokens for request in instance.requests) / len(instance)
    prompt = max(request.num_prompt_tokens for request in instance.requests)
    peaks = sum(request.peak_tokens for request in instance.requests) / len(instance)
    together = instance.kv_tokens / peaks * np.linspace(0.9, 2.2, 14)
    gaps = sorted({0, *(mean / together).astype(int).tolist()})
    outputs = np.array([request.num_output_tokens for request in instance.requests])
    best, workload = math.inf, instance.workload()
    for order in (np.zeros_like(outputs), outputs, -outputs):
        ordered = replace(workload, priority=np.argsort(np.argsort(order, kind="stable"), kind="stable"))
        for gap in gaps:
            for prompts_at_once in (1, len(instance)):
                policy = replace(
                    POLICIES["mc-fcfs-oracle"],
                    name="paced",
                    phase_order=PhaseOrder.PREFILL_FIRST,
                    hybrid=False,
                    queue_order=QueueOrder.LINEAR,
                    queue_weights=queue_weights(priority=1.0),
                    min_decodes_between_prefills=gap,
                    max_num_batched_tokens=min(
                        max(prompts_at_once * prompt, len(instance)), instance.max_num_batched_tokens
                    ),
                )
                run = run_contender(policy, ordered, instance.engine(), predict=predictions).result
                if run.num_preemptions == 0 and bool(run.finished.all()):
                    best = min(best, run.makespan_s)
    return best
