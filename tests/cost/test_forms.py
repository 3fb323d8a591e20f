"""Terms by name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings

from infermax_gym.cost import CostModel, CostModelError, only_with_prefills
from infermax_gym.cost.features import NUM_FEATURES
from tests.cost.test_model import DECODES, PREFILLS, features, form

LINEAR = form(one=0.01, num_tokens=1e-4)
EXTRA = form(num_decodes=1e-4, decode_context=2e-7)


@settings(max_examples=200, deadline=None)
@given(prefills=PREFILLS, decodes=DECODES)
def test_it_counts_beside_prefills_alone(prefills: list[tuple[int, int]], decodes: list[int]) -> None:
    model = CostModel("mixed", ((LINEAR,), only_with_prefills(EXTRA, limit_s=1.0)))
    phi = features(prefills, decodes)
    expected = LINEAR @ phi + (EXTRA @ phi if prefills else 0.0)
    assert model.is_convex
    assert model.seconds(prefills, decodes) == pytest.approx(expected, rel=1e-9)


def test_what_is_negative_counts_as_nothing() -> None:
    term = only_with_prefills(form(num_decodes=-0.5, num_prefills=1.0), limit_s=10.0)
    model = CostModel("mixed", (term,))
    assert model.seconds([(1, 0)], [0]) == pytest.approx(0.5)
    assert model.seconds([(1, 0)], [0] * 3) == 0.0


def test_the_limit_must_hold_every_batch_of_decodes() -> None:
    """Beyond it decodes alone cost something too, what the form exceeds it by."""
    model = CostModel("mixed", (only_with_prefills(form(num_decodes=1.0), limit_s=3.0),))
    assert [model.seconds(decodes=[0] * count) for count in (3, 4)] == [0.0, 1.0]


@pytest.mark.parametrize("limit_s", [0.0, -1.0, math.inf, math.nan])
def test_invalid_limits(limit_s: float) -> None:
    with pytest.raises(CostModelError, match="limit_s must be positive and finite"):
        only_with_prefills(EXTRA, limit_s)


def test_invalid_forms() -> None:
    with pytest.raises(CostModelError, match=f"form needs {NUM_FEATURES} coefficients, got 8"):
        only_with_prefills(EXTRA[:8], 1.0)
