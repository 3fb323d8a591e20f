"""The published INFERMAX coefficients, and the rounding of its code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from infermax_gym.cost import COSTS

# Milliseconds per layer: 1, T, 1[P>0], sum c^2 + 2cm, P, sum_p m, 1[D>0], sum_d m, D.
PUBLISHED = {
    "llama2-7b-a100": (32, 1, (0.06486, 0.00191, 0.0926, 1.6773e-07, 0.001534, 9.224e-06, 0.01921, 8.513e-06, 0.00074)),
    "llama3-70b-a100x4": (80, 4, (0.159, 0.002, 0.2112, 4.309e-08, 9.03e-4, 3.805e-07, 0.081, 1.222e-06, 3.92e-4)),
}


def test_names() -> None:
    assert set(COSTS) == {*PUBLISHED, *(f"{name}-infermax" for name in PUBLISHED)}
    assert all(name == model.name for name, model in COSTS.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    layers, num_devices, ms = PUBLISHED[name]
    for model in (COSTS[name], COSTS[f"{name}-infermax"]):
        np.testing.assert_allclose(model.theta, [np.array(ms) * layers / 1000], rtol=1e-14)
        np.testing.assert_array_equal(model.term_end, [1])
        assert model.num_devices == num_devices
        assert "2411.07447" in model.source
    assert not COSTS[name].floor_context
    assert COSTS[f"{name}-infermax"].floor_context


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_batch_by_hand(name: str) -> None:
    """Two prefills of 5 behind 0 and 3 behind 7 tokens, decodes behind 10 and 21."""
    layers, _, (b_o, a_o, b_p, a_p, s_p, m_p, b_d, a_d, s_d) = PUBLISHED[name]
    ms = (a_o * 10 + b_o) + (a_p * (25 + 9 + 2 * 21) + b_p + s_p * 2 + m_p * 7) + (a_d * 31 + b_d + s_d * 2)
    seconds = COSTS[name].seconds(prefills=[(5, 0), (3, 7)], decodes=[10, 21])
    assert seconds == pytest.approx(ms * layers / 1000, rel=1e-13)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("contexts", [[10], [10, 21], [3, 3, 4], [0], [1000, 1, 1, 1, 1, 1, 1]])
def test_the_twin_floors_the_mean_of_contexts_counted_one_higher(name: str, contexts: list[int]) -> None:
    """In INFERMAX's code a decode's context holds the token just emitted; the batch uses the floor of the mean."""
    floored = math.floor(sum(m + 1 for m in contexts) / len(contexts))
    expected = COSTS[name].seconds(decodes=[floored] * len(contexts))
    assert COSTS[f"{name}-infermax"].seconds(decodes=contexts) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_twin_leaves_prefills_alone(name: str) -> None:
    prefills = [(512, 0), (17, 333)]
    assert COSTS[f"{name}-infermax"].seconds(prefills) == COSTS[name].seconds(prefills)
