"""Joining the figures of several seeds."""

from __future__ import annotations

import pytest

from infermax_gym.evaluation.figures import combine, flatten, lookup

SEEDS = [
    {"num_finished": 4, "goodput_per_s": None, "ttft_s": {"mean": 1.0, "max": 5.0}},
    {"num_finished": 4, "goodput_per_s": None, "ttft_s": {"mean": 2.0, "max": float("nan")}},
]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_leaves_are_joined_one_by_one() -> None:
    assert combine(SEEDS, mean) == {"num_finished": 4, "goodput_per_s": None, "ttft_s": {"mean": 1.5, "max": None}}


def test_counts_that_agree_stay_whole() -> None:
    assert isinstance(combine(SEEDS, mean)["num_finished"], int)


@pytest.mark.parametrize(
    ("path", "value"), [("ttft_s.mean", 1.0), ("num_finished", 4), ("ttft_s.p99", None), ("num_finished.x", None)]
)
def test_lookup(path: str, value: float | None) -> None:
    assert lookup(SEEDS[0], path) == value


def test_flat_names_lead_back() -> None:
    flat = flatten(SEEDS[0])
    assert list(flat) == ["num_finished", "goodput_per_s", "ttft_s.mean", "ttft_s.max"]
    assert all(lookup(SEEDS[0], path) == value for path, value in flat.items())
