"""Which packing bounds the search carries: a few that are good where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.baselines.optimum.packing import family

if TYPE_CHECKING:
    from infermax_gym.baselines.optimum.search.automaton import RequestModel

Ints = NDArray[np.int64]

_HEADS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
_TAILS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Loads(NamedTuple):
    """Packing bounds: J >= outside + ceil(sum of load / cap) wherever that sum is positive.

    Attributes:
        load: (codes, k) remaining load of a request.
        cap: (k,) what one batch takes.
        outside: (k,) batches at both ends that are not counted: only tokens that cannot be in them add to the load.
    """

    load: Ints
    cap: Ints
    outside: Ints


class _Load(NamedTuple):
    """One of `Loads`."""

    load: Ints
    cap: int
    outside: int


def best_loads(models: list[RequestModel], samples: Ints | None, limit: int) -> Loads:
    """The bounds that together do best on the samples, at most `limit` of them.

    Args:
        models: the requests in canonical order.
        samples: (k, n) codes of states; made up (all requests side by side, and at random) if None.
        limit: how many.
    """
    offset = np.cumsum([0] + [len(m.situations) + 1 for m in models])
    states = (_made_up(models) if samples is None else samples) + offset[:-1]
    best: list[_Load] = []
    have = np.zeros(len(states), dtype=np.int64)
    candidates = list(_candidates(models, states))
    values = np.array([value for _, value in candidates])
    for _ in range(limit):
        gain = np.maximum(values - have, 0).sum(axis=1)
        k = int(gain.argmax())
        if gain[k] == 0 and best:
            break
        best.append(candidates[k][0])
        have = np.maximum(have, values[k])
    load = np.ascontiguousarray(np.array([b.load for b in best], dtype=np.int64).T)
    return Loads(load, np.array([b.cap for b in best]), np.array([b.outside for b in best]))


def _made_up(models: list[RequestModel]) -> Ints:
    rng = np.random.default_rng(0)
    last = np.array([len(m.situations) - 1 for m in models])
    even = np.outer(np.linspace(0.0, 0.9, 20), last)
    return np.concatenate([even, rng.random((40, len(models))) * last]).astype(np.int64)


def _candidates(models: list[RequestModel], states: Ints) -> Iterator[tuple[_Load, Ints]]:
    """Every candidate with its value on the sampled states."""
    options, instance = models[0].options, models[0].instance
    longest = max(m.output for m in models)
    starts = np.concatenate(([0], np.cumsum([m.output + 1 for m in models])))
    spans_of = {}
    for head in (k for k in _HEADS if k < longest):
        for tail in (k for k in _TAILS if k < longest):
            spans = [m.spans(head, tail) for m in models]
            first = np.concatenate([s[0] + at for s, at in zip(spans, starts, strict=False)])
            last = np.concatenate([s[1] + at for s, at in zip(spans, starts, strict=False)])
            spans_of[head + tail, head] = first, last
    for function in family(instance.num_blocks, 120):
        total = np.concatenate([np.concatenate(([0], np.cumsum(function(m.sizes())))) for m in models])
        for (outside, _), (first, last) in spans_of.items():
            yield _valued(total[last] - total[first], function.bin, outside, states)
    first, last = spans_of[0, 0]
    if instance.max_num_seqs < len(models):
        yield _valued(last - first, instance.max_num_seqs, 0, states)
    if options.budget < sum(m.request.peak_tokens for m in models):
        yield _valued(np.concatenate([m.passes() for m in models]), options.budget, 0, states)


def _valued(load: Ints, cap: int, outside: int, states: Ints) -> tuple[_Load, Ints]:
    sums = load[states].sum(axis=1)
    return _Load(load, cap, outside), np.where(sums > 0, outside - (-sums // cap), 0)
