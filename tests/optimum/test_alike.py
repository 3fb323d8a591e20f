"""The layered search over identical requests: equal to brute force and to the best-first search, bounds never above."""

from __future__ import annotations

import itertools
import os
import random

import numpy as np
import pytest

from infermax_gym.baselines.optimum.instance import Instance, Request
from infermax_gym.baselines.optimum.plan import score
from infermax_gym.baselines.optimum.portfolio import _exact_search
from infermax_gym.baselines.optimum.search import alike_kernel, astar
from infermax_gym.baselines.optimum.search.alike import TOLERANCE, AlikeSearch, suits
from infermax_gym.baselines.optimum.search.alike_lists import lists_by_rank
from infermax_gym.baselines.optimum.search.exact import ExactSearch, exact_options
from infermax_gym.baselines.optimum.search.tables import TooLargeError
from tests.engine.strategies import CONCAVE
from tests.optimum.brute import optimum
from tests.optimum.draw import OBJECTIVES, VARIANTS

MORE = int(os.environ.get("INFERMAX_MORE_OPTIMA", "0"))
MODELS = ("llama2-7b-a100", "llama3-70b-a100x4")


def _drawn(seed: int, longest: tuple[int, ...], most_prompt: int) -> tuple[Instance, str, str]:
    """Identical requests, as many as `longest` is long at most, and what to solve."""
    rng = random.Random(seed)
    count = rng.randint(1, len(longest))
    prompt, output, block_size = (
        rng.randint(1, most_prompt),
        rng.randint(1, longest[count - 1]),
        rng.choice([1, 1, 2, 3]),
    )
    peak = prompt + output - 1
    kv_tokens = -(-peak // block_size) * block_size + rng.randint(0, peak + 1)
    instance = Instance.of(
        [(prompt, output)] * count, kv_tokens, rng.choice(MODELS), max_num_batched_tokens=4096,
        max_num_seqs=rng.choice([64, 2, 3]), block_size=block_size,
    )  # fmt: skip
    return instance, rng.choice(OBJECTIVES), rng.choice((*VARIANTS, "preemptive"))


def _solved(search: AlikeSearch | ExactSearch, instance: Instance, objective: str) -> float:
    search.advance(60.0)
    plan = search.plan()
    assert search.status == astar.EXHAUSTED and plan is not None
    value = score(instance, plan).objective(objective)
    count = len(instance) if objective == "latency" else 1
    assert value * count == pytest.approx(search.incumbent, rel=1e-9)
    return value


@pytest.mark.parametrize("seed", range(25 + MORE))
def test_agrees_with_brute_force(seed: int) -> None:
    instance, objective, variant = _drawn(seed, (5, 4, 2), 2)
    search = AlikeSearch(instance, exact_options(instance, objective, variant))
    assert _solved(search, instance, objective) == pytest.approx(optimum(instance, objective, variant), rel=1e-9)


@pytest.mark.parametrize("seed", range(25 + MORE))
def test_agrees_with_the_best_first_search(seed: int) -> None:
    instance, objective, variant = _drawn(1000 + seed, (12, 12, 9, 7, 5), 6)
    options = exact_options(instance, objective, variant)
    first = ExactSearch(instance, options, max_bytes=200_000_000)
    expected = _solved(first, instance, objective)
    assert _solved(AlikeSearch(instance, options), instance, objective) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_bound_holds_at_every_moment(objective: str) -> None:
    instance = Instance.of([(2, 9)] * 4, kv_tokens=13, cost="llama3-70b-a100x4")
    options = exact_options(instance, objective, "preemptive")
    full = AlikeSearch(instance, options)
    full.advance(60.0)
    search = AlikeSearch(instance, options)
    search.offer(full.incumbent * 1.02)
    bounds = [search.bound]
    while not alike_kernel.advance(*search._records, 50, TOLERANCE):
        bounds.append(search.bound)
    assert len(bounds) > 20
    assert max(bounds) <= full.incumbent * (1.0 + 1e-12)
    assert bounds[0] < bounds[-1] and bounds == sorted(bounds)
    assert search.incumbent == pytest.approx(full.incumbent, rel=1e-12)


def test_lists_are_in_order_of_their_ranks() -> None:
    for length, most in ((1, 4), (3, 3), (4, 2)):
        expected = sorted(itertools.combinations_with_replacement(range(most + 1), length), key=lambda x: x[::-1])
        out = np.zeros((len(expected), length), np.int8)
        lists_by_rank(length, most, out)
        assert [tuple(row) for row in out.tolist()] == expected


def test_it_is_left_to_the_best_first_search_where_it_does_not_suit() -> None:
    same = Instance.of([(2, 5)] * 3, kv_tokens=9)
    late = Instance((*same.requests[:2], Request(0.1, 2, 5)), kv_tokens=9)
    for instance, expected in (
        (same, True),
        (late, False),
        (Instance.of([(2, 5), (2, 4)], kv_tokens=9), False),
        (Instance.of([(2, 5)] * 3, kv_tokens=9, max_num_batched_tokens=4), False),
        (Instance.of([(2, 5)] * 3, kv_tokens=9, cost=CONCAVE), False),
    ):
        assert suits(instance, exact_options(instance, "makespan", "preemptive")) == expected
    large = Instance.of([(2, 100)] * 12, kv_tokens=300)
    with pytest.raises(TooLargeError):
        AlikeSearch(large, exact_options(large, "makespan", "preemptive"))


def test_six_identical_requests_are_proven() -> None:
    """The shape of the headline, with one request more and shorter outputs."""
    instance = Instance.of([(2, 8)] * 6, kv_tokens=11, cost="llama3-70b-a100x4")
    search = _exact_search(instance, "latency", "preemptive")
    assert isinstance(search, AlikeSearch)
    while search.status == astar.RUNNING:
        search.advance(1.0)
    plan = search.plan()
    assert plan is not None and search.num_expanded < search.num_states
    replayed = score(instance, plan)
    assert replayed.num_preemptions > 0
    assert replayed.latency_s * 6 == pytest.approx(search.bound, rel=1e-9)
