"""A certified ceiling on goodput: no schedule gets more requests to their first token in time.

A request that meets its TTFT limit has its prompt computed in iterations that lie between its arrival and its
deadline. Each of them takes at least what its tokens cost whoever they share it with, and their share of the
iteration's constants (as in `certify`). So the requests in time are jobs on one machine, and how many of them fit in
fractions bounds how many fit at all. What fits is decided by intervals: the jobs that begin and end in one may not need
more than its length. Such sets are polymatroids, on which the greedy rule is optimal (Edmonds, 1970): the shortest job
first, each as far as it fits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.minorant import minorants
from infermax_gym.baselines.optimum.rounding import RELATIVE, as_clocked, clock_unit_s
from infermax_gym.cost.features import HAS_PREFILL, NUM_PREFILLS, NUM_TOKENS, ONE, PREFILL_WORK
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload

Floats = NDArray[np.float64]

_ROUNDING = 1e-6
"""Sums of fractions are raised by so much against their rounding."""

_BLOCK = 600
"""Requests that compete with one another."""


def most_in_time(workload: Workload, config: EngineConfig) -> int:
    """No schedule gives more requests their first token within their TTFT limits.

    Args:
        workload: any number of requests; those without a TTFT limit count as in time.
        config: the replica.

    Raises:
        ValueError: the engine has a prefix cache, with which tokens may be had that nobody computes.
    """
    if config.prefix_caching:
        raise ValueError("bounds hold for engines that compute every token: prefix_caching must be off")
    limited = np.isfinite(workload.ttft_slo_s)
    prompts = workload.num_prompt_tokens[limited].astype(np.float64)
    arrivals_s, limits_s = workload.arrival_s[limited], workload.ttft_slo_s[limited]
    budget = config.max_num_batched_tokens
    if prompts.size == 0:
        return len(workload)
    # What the clock rounds off: iterations seem shorter, deadlines later.
    latest_s = float((arrivals_s + limits_s).max())
    deadlines_s = arrivals_s + limits_s + 2.0 * clock_unit_s(latest_s)
    least = float(prompts.size)
    for form in minorants(config.cost, budget, config.num_kv_tokens):
        theta = as_clocked(form, latest_s)
        tokens_s = theta[NUM_TOKENS] * prompts + theta[PREFILL_WORK] * prompts**2 + theta[NUM_PREFILLS]
        iteration_s = theta[ONE] + theta[HAS_PREFILL]
        alone = tokens_s + iteration_s * np.ceil(prompts / budget) <= limits_s * (1.0 + RELATIVE)
        work_s = tokens_s + iteration_s * prompts / budget
        jobs = (some[alone] for some in (arrivals_s, deadlines_s, work_s))
        least = min(least, _in_blocks(*jobs))
    return int(np.floor(least + _ROUNDING)) + int((~limited).sum())


def _in_blocks(arrivals_s: Floats, deadlines_s: Floats, work_s: Floats) -> float:
    """How many jobs fit, at most, each block of consecutive arrivals on a machine of its own.

    The work of a block grows with the cube of its jobs; the bound loses something only where two blocks meet.
    """
    total = 0.0
    for first in range(0, work_s.size, _BLOCK):
        block = slice(first, first + _BLOCK)
        total += float(fractions_in_time(arrivals_s[block], deadlines_s[block], work_s[block]).sum())
    return total


def fractions_in_time(arrivals_s: Floats, deadlines_s: Floats, work_s: Floats) -> Floats:
    """(n,) how much of each job one machine does in time, of 1, such that the sum is largest; jobs may be interrupted.

    Args:
        arrivals_s: (n,) when each job may begin.
        deadlines_s: (n,) when it must have ended, later than it may begin.
        work_s: (n,) seconds that it takes, not negative.
    """
    starts, ends = np.unique(arrivals_s), np.unique(deadlines_s)
    spare_s = ends[None, :] - starts[:, None]  # of the interval from a start to an end
    first = np.searchsorted(starts, arrivals_s, side="right")
    last = np.searchsorted(ends, deadlines_s)
    done = np.zeros(work_s.size)
    for j in np.argsort(work_s, kind="stable"):
        around = spare_s[: first[j], last[j] :]
        fits_s = min(float(work_s[j]), max(float(around.min()), 0.0))
        around -= fits_s
        done[j] = fits_s / work_s[j] if work_s[j] > 0.0 else 1.0
    return done
