"""Linear lower bounds on cost models: below every batch, and as good as they can be in the tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermax_gym.baselines.optimum.minorant import is_lean, is_linear_in_prefills, minorants
from infermax_gym.cost import COSTS, CostModel
from tests.cost.test_model import features
from tests.engine.strategies import CONCAVE, cost_models, examples, form_ms

CAPACITY, BUDGET = 120, 40


@examples(500)
@given(
    model=cost_models(),
    prefills=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30)), max_size=2),
    decodes=st.lists(st.integers(0, 20), max_size=4),
)
def test_no_batch_is_below(model: CostModel, prefills: list[tuple[int, int]], decodes: list[int]) -> None:
    num_tokens = sum(c for c, _ in prefills) + len(decodes)
    if not 1 <= num_tokens <= BUDGET or sum(sum(p) for p in prefills) + sum(decodes) + len(decodes) > CAPACITY:
        return
    forms = minorants(model, BUDGET, CAPACITY)
    assert (forms >= 0.0).all() and forms.shape[1] == 9
    assert (forms @ features(prefills, decodes)).max() <= model.seconds(prefills, decodes) * (1.0 + 1e-12)


def test_a_minimum_in_the_tokens_is_met_at_both_ends() -> None:
    """One token, and as many as a batch can have: there nothing is lost."""
    wake = (form_ms(num_tokens=3.0), form_ms(one=5.0, num_tokens=0.1), form_ms(one=7.0))
    model = CostModel("moe", ((form_ms(one=1.0),),), min_terms=(wake,))
    (form,) = minorants(model, BUDGET, CAPACITY)
    for tokens in (1, BUDGET):
        assert form @ features([(tokens, 0)], []) == pytest.approx(model.seconds([(tokens, 0)]), rel=1e-12)
    (form,) = minorants(model, 1, CAPACITY)
    assert form @ features([(1, 0)], []) == pytest.approx(0.004, rel=1e-12)


def test_what_counts_as_linear() -> None:
    linear = COSTS["llama2-7b-a100"]
    assert is_lean(linear) and is_linear_in_prefills(linear)
    for model in (CONCAVE, replace(linear, min_terms=((form_ms(one=1.0),),))):
        assert not is_lean(model) and not is_linear_in_prefills(model)
    np.testing.assert_array_equal(minorants(linear, BUDGET, CAPACITY), linear.theta)
