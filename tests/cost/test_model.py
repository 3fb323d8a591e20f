"""What a cost model must be, and what it makes of a batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermax_gym.cost import COSTS, CostModel, CostModelError
from infermax_gym.cost.features import FEATURE_NAMES, NUM_FEATURES
from infermax_gym.cost.kernel import batch_seconds

ONE_SECOND = (1.0, *[0.0] * 8)


def form(**coefficients: float) -> tuple[float, ...]:
    return tuple(coefficients.get(name, 0.0) for name in FEATURE_NAMES)


def features(prefills: list[tuple[int, int]], decodes: list[int]) -> np.ndarray:
    """phi of a batch, written from its definition."""
    c, m = np.array(prefills, float).reshape(-1, 2).T
    d = np.array(decodes, float)
    return np.array(
        [
            1.0,
            c.sum() + len(d),
            len(c) > 0,
            (c**2 + 2 * c * m).sum(),
            len(c),
            m.sum(),
            len(d) > 0,
            d.sum(),
            len(d),
        ]
    )


def test_features_are_nine() -> None:
    assert len(FEATURE_NAMES) == NUM_FEATURES == 9


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((), "needs at least one term, each with at least one form"),
        (((),), "needs at least one term, each with at least one form"),
        (((ONE_SECOND,), ()), "needs at least one term, each with at least one form"),
        (((ONE_SECOND[:8],),), r"term 0, form 0: needs 9 coefficients \(one, num_tokens, .*\), got 8"),
        (((ONE_SECOND,), (ONE_SECOND, (*ONE_SECOND, 0.0))), "term 1, form 1: needs 9 coefficients .* got 10"),
        (((form(one=1.0, num_decodes=math.nan),),), "term 0, form 0: coefficient of num_decodes must be finite"),
        (((form(one=math.inf),),), "coefficient of one must be finite, got inf"),
        (((("1.0x",) * 9,),), "terms must be lists of lists of 9 numbers"),
        (((1.0,),), "terms must be lists of lists of 9 numbers"),
        (3.0, "terms must be lists of lists of 9 numbers"),
        (((form(one=-1e-9),),), "would take -1e-09 s; time must not be negative"),
        (((form(num_tokens=-1.0),),), "time must not be negative"),
        (((form(one=1.0, decode_context=-1e-6),),), r"decodes \(m=10000000\) would take"),
        (((form(one=1.0, num_prefills=-0.01),),), "a batch of 4096 prefills"),
        (((form(one=1.0, has_prefill=-2.0),),), "time must not be negative"),
        (((form(one=1.0, has_decode=-0.6, has_prefill=-0.6),),), r"prefills .* and \d+ decodes"),
        (((form(prefill_work=1.0, num_tokens=-100.0),),), r"prefills \(c=64, m=0\)"),
    ],
)
def test_invalid_coefficients(terms: Any, message: str) -> None:
    with pytest.raises(CostModelError, match=message) as caught:
        CostModel("broken", terms)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("cost model 'broken'")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_devices": 0}, "num_devices must be at least 1, got 0"),
        ({"price_usd_per_device_hour": -1.0}, "must be finite and not negative, got -1.0"),
        ({"price_usd_per_device_hour": math.nan}, "must be finite and not negative, got nan"),
        ({"price_usd_per_device_hour": math.inf}, "must be finite and not negative, got inf"),
    ],
)
def test_invalid_attributes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CostModelError, match=message):
        replace(COSTS["llama2-7b-a100"], **change)


def test_a_negative_form_may_hide_behind_another() -> None:
    model = CostModel("max", ((form(one=1.0), form(one=-5.0, num_tokens=1.0)),))
    assert model.seconds(prefills=[(3, 0)]) == 1.0
    assert model.seconds(prefills=[(10, 0)]) == 5.0


@pytest.mark.parametrize(
    ("min_terms", "message"),
    [
        (((),), "needs at least one term, each with at least one form"),
        (((ONE_SECOND[:8],),), r"min term 0, form 0: needs 9 coefficients"),
        (((form(num_tokens=math.nan),),), "min term 0, form 0: coefficient of num_tokens must be finite"),
        (((1.0,),), "min_terms must be lists of lists of 9 numbers"),
        (((ONE_SECOND, form(num_tokens=-1e-6)),), r"prefills \(c=10000000, m=0\).*time must not be negative"),
        (((form(one=-2.0),),), "time must not be negative"),
    ],
)
def test_invalid_minima(min_terms: Any, message: str) -> None:
    with pytest.raises(CostModelError, match=message) as caught:
        CostModel("broken", ((ONE_SECOND,),), min_terms=min_terms)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("cost model 'broken'")


def test_a_mixture_of_experts_by_hand() -> None:
    """3 ms for each token until all experts are awake, at 5 ms; from there on 0.1 ms: concave in the tokens."""
    wake = (form(num_tokens=3e-3), form(one=5e-3, num_tokens=1e-4))
    model = CostModel("moe", ((form(one=1e-3),),), min_terms=(wake,))
    seconds = [model.seconds(prefills=[(tokens, 0)]) for tokens in (1, 2, 16, 64)]
    assert seconds == pytest.approx([0.004, 0.0062, 0.0076, 0.0124])
    assert not model.is_convex and CostModel("max", (wake,)).is_convex


def test_a_negative_minimum_counts_if_the_terms_make_up_for_it() -> None:
    """Each token beyond the tenth costs 0.1 s instead of 1 s."""
    model = CostModel(
        "bend", ((form(num_tokens=1.0),),), min_terms=((form(), form(one=9.0, num_tokens=-0.9)),)
    )  # fmt: skip
    assert model.seconds(prefills=[(8, 0)]) == 8.0
    assert model.seconds(prefills=[(12, 0)]) == pytest.approx(10.2)


def test_terms_become_tuples_of_floats() -> None:
    loose = CostModel("loose", [[np.ones(9)], [[1] * 9]])  # type: ignore[arg-type]
    assert loose.terms == (((1.0,) * 9,), ((1.0,) * 9,))
    assert hash(loose) == hash(CostModel("loose", loose.terms))
    assert replace(loose, min_terms=[[np.ones(9)]]).min_terms == (((1.0,) * 9,),)  # type: ignore[arg-type]


def test_theta_puts_the_forms_of_a_term_side_by_side() -> None:
    a, b, c = form(one=1.0), form(one=2.0), form(num_tokens=1.0)
    model = CostModel("three", ((a,), (b, c)))
    np.testing.assert_array_equal(model.theta, [a, b, c])
    np.testing.assert_array_equal(model.term_end, [1, 3])
    mixed = replace(model, min_terms=((c, a), (b,)))
    np.testing.assert_array_equal(mixed.theta, [a, b, c, c, a, b])
    np.testing.assert_array_equal(mixed.term_end, [1, 3, -5, -6])
    assert model.theta.dtype == np.float64
    assert model.term_end.dtype == np.int64


FORMS = st.lists(st.floats(0.0, 10.0), min_size=9, max_size=9).map(tuple)
TERMS = st.lists(FORMS, min_size=1, max_size=3).map(tuple)
MODELS = st.builds(
    lambda terms, min_terms: CostModel("random", tuple(terms), min_terms=tuple(min_terms)),
    st.lists(TERMS, min_size=1, max_size=3),
    st.lists(TERMS, max_size=2),
)
PREFILLS = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 100_000)), max_size=5)
DECODES = st.lists(st.integers(0, 100_000), max_size=5)


@settings(max_examples=200, deadline=None)
@given(model=MODELS, prefills=PREFILLS, decodes=DECODES)
def test_sum_of_maxima_and_minima(model: CostModel, prefills: list[tuple[int, int]], decodes: list[int]) -> None:
    phi = features(prefills, decodes)
    expected = sum(max(np.dot(form, phi) for form in term) for term in model.terms)
    expected += sum(min(np.dot(form, phi) for form in term) for term in model.min_terms)
    assert model.seconds(prefills, decodes) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(model=MODELS, prefills=PREFILLS, decodes=DECODES, floored=st.booleans())
def test_compiled_and_plain_evaluation_agree(
    model: CostModel, prefills: list[tuple[int, int]], decodes: list[int], floored: bool
) -> None:
    arguments = (
        model.theta,
        model.term_end,
        floored,
        sum(c for c, _ in prefills) + len(decodes),
        sum(c * c + 2 * c * m for c, m in prefills),
        len(prefills),
        sum(m for _, m in prefills),
        sum(decodes),
        len(decodes),
    )
    plain: Any = batch_seconds
    assert replace(model, floor_context=floored).seconds(prefills, decodes) == plain.py_func(*arguments)


def test_a_batch_of_nothing_costs_the_constant() -> None:
    assert CostModel("constant", ((ONE_SECOND,),)).seconds() == 1.0
