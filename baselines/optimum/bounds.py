"""Certified lower bounds for whole workloads: no schedule whatsoever is faster.

Every output token (i, g) is emitted by one pass, which needs the KV of its I + g tokens at once, whatever decodes,
prefills or refills it. So tokens are items of that size, iterations are bins of the KV capacity, and a dual
feasible function f gives each token a share of an iteration: all iterations together number at least the sum of the
shares. The limits on sequences and tokens give shares in the same way. To the shares come the costs that tokens cause
whoever they share their iteration with: the first prefill once, and for every later token the cheaper of a decode and
a refill (which saves a decode, so its share of the decode overhead is credited). See docs/optimum.md.

Makespan: for every arrival, all work that arrives from then on comes after it. Mean latency: a token's time is a slice
of one machine's time, so shortest remaining time first on that machine (Schrage, 1968) bounds the completions.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.minorant import minorants
from infermax_gym.baselines.optimum.packing import family
from infermax_gym.baselines.optimum.rounding import RELATIVE, as_clocked, clock_unit_s
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
from infermax_gym.engine import EngineConfig
from infermax_gym.workload import Workload

Floats = NDArray[np.float64]

_MOST_TABLE = 10_000_000
"""Table entries of all dual feasible functions together: with contexts of millions of tokens, fewer are tried."""

_ROUNDING = 1.0 - RELATIVE


@dataclass(frozen=True)
class CertifiedBounds:
    """Lower bounds that hold for every schedule of the requests that can be served at all.

    Attributes:
        makespan_s: no schedule finishes earlier.
        busy_s: no schedule computes for less time (GPU cost).
        mean_latency_s: no schedule has a smaller mean latency.
        num_requests: requests that can fit; the others are rejected by every schedule.
        num_iterations: no schedule needs fewer.
    """

    makespan_s: float
    busy_s: float
    mean_latency_s: float
    num_requests: int
    num_iterations: int


@dataclass(frozen=True)
class _Shares:
    """Shares of an iteration under one dual feasible function.

    Attributes:
        of_size: (w + 1,) share of a token whose pass needs w tokens of KV; None if shares do not depend on it.
        first: (n,) share of each request's first token.
        later: (n,) shares of its other tokens together.
    """

    of_size: Floats
    first: Floats
    later: Floats


def check_bounded(workload: Workload, config: EngineConfig) -> None:
    """Raise a ValueError where no bound holds, see `certify`."""
    if config.prefix_caching:
        raise ValueError("bounds hold for engines that compute every token: prefix_caching must be off")
    if workload.is_closed_loop:
        raise ValueError(
            f"{workload.name}: requests are sent when others have ended; bounds hold for arrivals known beforehand"
        )


def certify(workload: Workload, config: EngineConfig, *, num_functions: int = 48) -> CertifiedBounds:
    """Lower bounds for a workload on an engine.

    Args:
        workload: any number of requests.
        config: the replica. Swapping, which only adds transfer time, is covered too; a policy with a token budget of
            its own is not: it runs on another engine.
        num_functions: dual feasible functions tried.

    Raises:
        ValueError: the engine has a prefix cache, with which tokens may be had that nobody computes; or traffic is
            closed-loop, whose arrivals depend on the schedule.
    """
    check_bounded(workload, config)
    prompts, outputs, arrivals = _servable(workload, config)
    if prompts.size == 0:
        return CertifiedBounds(0.0, 0.0, 0.0, 0, 0)
    shares = _all_shares(prompts, outputs, config, num_functions)
    forms = minorants(config.cost, config.max_num_batched_tokens, config.num_kv_tokens)
    every = [_bounds(theta, prompts, outputs, arrivals, shares, config) for theta in forms]
    # A schedule that ends much later than need be is no rival; at twice the clock a unit is twice as large.
    latest_s = 2.0 * max(b.makespan_s for b in every)
    every = [_bounds(as_clocked(theta, latest_s), prompts, outputs, arrivals, shares, config) for theta in forms]
    return CertifiedBounds(
        makespan_s=max(b.makespan_s for b in every),
        busy_s=max(b.busy_s for b in every),
        mean_latency_s=max(b.mean_latency_s for b in every),
        num_requests=prompts.size,
        num_iterations=max(b.num_iterations for b in every),
    )


def most_iterations(workload: Workload, config: EngineConfig, busy_s: float, *, num_functions: int = 48) -> float:
    """How many iterations a schedule can have at most that computes for no more than `busy_s`; maybe infinite.

    Every iteration beyond the fewest possible costs the constant of an iteration once more.
    """
    prompts, outputs, arrivals = _servable(workload, config)
    if prompts.size == 0:
        return 0.0
    shares = _all_shares(prompts, outputs, config, num_functions)
    most = np.inf
    latest_s = float(arrivals[-1]) + busy_s
    for form in minorants(config.cost, config.max_num_batched_tokens, config.num_kv_tokens):
        theta = as_clocked(form, latest_s)
        if theta[ONE] > 0.0:
            least = _bounds(theta, prompts, outputs, arrivals, shares, config)
            spare = busy_s * (1.0 + RELATIVE) + clock_unit_s(latest_s) - least.busy_s
            most = min(most, least.num_iterations + np.floor(max(spare, 0.0) / theta[ONE]))
    return float(most)


def _servable(workload: Workload, config: EngineConfig) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    total = workload.num_prompt_tokens + workload.num_output_tokens
    keep = -(-(total - 1) // config.block_size) <= config.num_blocks
    if config.max_model_len is not None:
        keep &= total <= config.max_model_len
    return workload.num_prompt_tokens[keep], workload.num_output_tokens[keep], workload.arrival_s[keep]


def _sums(table: Floats, prompts: NDArray[np.int64], outputs: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Of a table over token sizes: its value at each first token (size I), and its sum over the others."""
    ends = np.concatenate([[0.0], np.cumsum(table)])
    return table[prompts], ends[prompts + outputs] - ends[prompts + 1]


def _all_shares(
    prompts: NDArray[np.int64], outputs: NDArray[np.int64], config: EngineConfig, count: int
) -> list[_Shares]:
    sizes = np.arange(int((prompts + outputs).max()), dtype=np.int64)
    blocks = -(-sizes // config.block_size)
    result = []
    count = max(min(count, _MOST_TABLE // sizes.size), 1)
    for function in itertools.islice(family(config.num_blocks, count), 2 * count):
        table = function(blocks) / function.bin
        result.append(_Shares(table, *_sums(table, prompts, outputs)))
    sequence = np.full(sizes.size, 1.0 / config.max_num_seqs)
    result.append(_Shares(sequence, *_sums(sequence, prompts, outputs)))
    token = np.full(sizes.size, 1.0 / config.max_num_batched_tokens)
    result.append(_Shares(token, prompts / config.max_num_batched_tokens, _sums(token, prompts, outputs)[1]))
    return result


def _tail(values: Floats) -> Floats:
    """Sums from each request to the last."""
    return np.asarray(np.cumsum(values[::-1])[::-1])


def _bounds(
    theta: Floats,
    prompts: NDArray[np.int64],
    outputs: NDArray[np.int64],
    arrivals: Floats,
    shares: list[_Shares],
    config: EngineConfig,
) -> CertifiedBounds:
    sizes = np.arange(int((prompts + outputs).max()), dtype=np.float64)
    decode = theta[NUM_TOKENS] + theta[NUM_DECODES] + theta[DECODE_CONTEXT] * np.maximum(sizes - 1.0, 0.0)
    refill = theta[NUM_TOKENS] * sizes + theta[PREFILL_WORK] * sizes**2 + theta[NUM_PREFILLS]
    own = refill[prompts] + _sums(decode, prompts, outputs)[1]
    later = [_later_overhead(theta, s, decode, refill, prompts, outputs) for s in shares]
    iterations = np.max([np.ceil(_tail(s.first + s.later) * _ROUNDING) for s in shares], axis=0)
    iterations = _staggered(iterations, shares, prompts, outputs)
    prefills = np.max([np.ceil(_tail(s.first) * _ROUNDING) for s in shares], axis=0)
    overhead = np.max([_tail(x) for x in later], axis=0)
    work = _tail(own) + theta[ONE] * iterations + theta[HAS_PREFILL] * prefills + overhead
    alone = _alone(theta, own, decode, refill, prompts, outputs, config)
    slices = _slices(theta, own, shares, later)
    queued = _srpt_latency(arrivals, slices)
    return CertifiedBounds(
        makespan_s=float((arrivals + _ROUNDING * np.maximum(work, alone)).max()) * (1.0 - 2.0**-50),
        busy_s=_ROUNDING * float(work[0]),
        mean_latency_s=_ROUNDING * max(queued, float(alone.sum())) / prompts.size,
        num_requests=prompts.size,
        num_iterations=int(iterations[0]),
    )


_MOST_STAGGERED = 4_000_000  # array elements that the staggered bound may touch per share and cut


def _staggered(
    iterations: Floats, shares: list[_Shares], prompts: NDArray[np.int64], outputs: NDArray[np.int64]
) -> Floats:
    """Raise iteration counts by the order of tokens: a request's token g comes after g iterations of its own.

    So the tokens with at least `head` tokens of their request before them and at least `tail` behind them all lie
    between the first `head` and the last `tail` iterations: iterations >= head + tail + their shares. With head
    the longest output this is the longest chain, with neither it is the packing bound.
    """
    raised = iterations.copy()
    longest = int(outputs.max())
    steps = np.unique(np.linspace(0, longest - 1, min(longest, 48)).astype(np.int64))
    cuts = np.unique(np.linspace(0, prompts.size - 1, min(prompts.size, 24)).astype(np.int64))
    if steps.size * prompts.size > _MOST_STAGGERED:
        cuts = cuts[:1]
    # The share that packs best overall packs best here too, nearly; three of them are enough.
    ranked = sorted(shares, key=lambda s: -float((s.first + s.later).sum()))[:3]
    for share in ranked:
        ends = np.concatenate([[0.0], np.cumsum(share.of_size)])
        for cut in cuts:
            first, sizes = prompts[cut:], outputs[cut:]
            for ahead in steps:
                # Tokens g in ahead .. O - 1, and by symmetry those with at least `ahead` behind them.
                long = sizes > ahead
                if not long.any():
                    continue
                start, end = first[long], first[long] + sizes[long]
                late = float((ends[end] - ends[start + ahead]).sum())
                early = float((ends[end - ahead] - ends[start]).sum())
                raised[cut] = max(raised[cut], ahead + np.ceil(max(late, early) * _ROUNDING))
    return raised


def _later_overhead(
    theta: Floats,
    shares: _Shares,
    decode: Floats,
    refill: Floats,
    prompts: NDArray[np.int64],
    outputs: NDArray[np.int64],
) -> Floats:
    """(n,) seconds beyond `decode` for a request's later tokens: decode overhead, less what refills save."""
    saved = np.minimum(refill - decode - theta[HAS_DECODE] * shares.of_size, 0.0)
    return np.asarray(theta[HAS_DECODE] * shares.later + _sums(saved, prompts, outputs)[1])


def _alone(
    theta: Floats,
    own: Floats,
    decode: Floats,
    refill: Floats,
    prompts: NDArray[np.int64],
    outputs: NDArray[np.int64],
    config: EngineConfig,
) -> Floats:
    """(n,) least seconds from arrival to finish of a request that has the engine to itself."""
    chunks = -(-prompts // config.max_num_batched_tokens)
    cheaper = np.minimum(decode + theta[HAS_DECODE], refill + theta[HAS_PREFILL]) - decode
    each = theta[ONE] * (chunks + outputs - 1) + theta[HAS_PREFILL] * chunks
    return np.asarray(own + each + _sums(cheaper, prompts, outputs)[1])


def _slices(theta: Floats, own: Floats, shares: list[_Shares], later: list[Floats]) -> Floats:
    """(n,) seconds of the machine that each request uses up, its shares of iterations included."""
    iterations = max((s.first + s.later for s in shares), key=lambda x: float(x.sum()))
    prefills = max((s.first for s in shares), key=lambda x: float(x.sum()))
    overhead = max(later, key=lambda x: float(x.sum()))
    return np.asarray(own + theta[ONE] * iterations + theta[HAS_PREFILL] * prefills + overhead)


def _srpt_latency(arrivals: Floats, slices: Floats) -> float:
    """Total latency of shortest remaining processing time first on one machine, less what rounding may add.

    Clocks count from the beginning of each busy period, so that they stay small.
    """
    waiting: list[tuple[float, float]] = []  # seconds left, arrival
    began = clock = total = error = 0.0
    num_added = 0
    nexts = [*arrivals.tolist()[1:], np.inf]
    for arrival, size, until in zip(arrivals.tolist(), slices.tolist(), nexts, strict=True):
        if not waiting:
            began, clock, num_added = arrival, 0.0, 0
        heapq.heappush(waiting, (size, arrival - began))
        horizon = until - began
        while waiting and clock < horizon:
            num_added += 1
            rest, since = heapq.heappop(waiting)
            if clock + rest <= horizon:
                clock += rest
                total += clock - since
                error += num_added * clock_unit_s(clock)
            else:
                heapq.heappush(waiting, (rest - (horizon - clock), since))
                clock = horizon
    return total - error
