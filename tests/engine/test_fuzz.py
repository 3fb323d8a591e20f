"""A short round of `tests.engine.fuzz`."""

from __future__ import annotations

from collections import Counter

from tests.engine.fuzz import run_round


def test_a_short_round() -> None:
    count: Counter[str] = Counter()
    run_round(7, 3, count)
    assert {"engine, open", "engine, closed loop", "fleet"} <= count.keys() and count.total() > 50_000


def test_a_swap_back_and_forth_beside_memory_that_is_set_aside_ends() -> None:
    """A replica with no free block swapped its only request out and in without end, at one moment."""
    count: Counter[str] = Counter()
    run_round(2017, 8, count)
    assert count["fleet, migration"] > 0
