"""A short round of `tests.engine.fuzz`."""

from __future__ import annotations

from collections import Counter

from tests.engine.fuzz import run_round


def test_a_short_round() -> None:
    count: Counter[str] = Counter()
    run_round(7, 3, count)
    assert {"engine, open", "engine, closed loop", "fleet"} <= count.keys() and count.total() > 50_000
