"""Fitting cost models: what is recovered, what is refused, what the errors mean."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra fit")

from infermax_gym.cost import COSTS
from infermax_gym.cost.features import DECODE_CONTEXT, NUM_TOKENS
from infermax_gym.cost.fitting import FitError, fit_cost, regions
from infermax_gym.cost.pieces import LINEAR, MIXED, Kind, Piece, assemble, seconds_of


def batches(count: int = 600, seed: int = 0) -> np.ndarray:
    """(count, 9) features of random batches, a third of each kind."""
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(round(np.exp(rng.uniform(np.log(low), np.log(high)))))

    found = []
    for i in range(count):
        prefills = [(draw(16, 4096), draw(1, 8192) - 1) for _ in range(draw(1, 4))] if i % 3 else []
        decodes = [draw(32, 8192) for _ in range(draw(1, 256))] if i % 3 != 1 else []
        found.append(
            (
                1,
                sum(c for c, _ in prefills) + len(decodes),
                bool(prefills),
                sum(c * c + 2 * c * m for c, m in prefills),
                len(prefills),
                sum(m for _, m in prefills),
                bool(decodes),
                sum(decodes),
                len(decodes),
            )
        )
    return np.array(found, np.float64)


TRUTH = assemble(
    [*LINEAR, Piece(Kind.rising, NUM_TOKENS, 300.0), *MIXED],
    [7e-3, 2e-6, 1e-3, 5e-10, 2e-5, 1e-8, 4e-4, 3e-8, 1e-6, 2e-5, 3e-5, 2e-8],
    name="truth",
)


def test_pieces_sum_to_the_model() -> None:
    x = batches(90)
    pieces = [*LINEAR, *MIXED, Piece(Kind.rising, NUM_TOKENS, 300.0), Piece(Kind.rising, DECODE_CONTEXT, 5000.0)]
    weights = np.linspace(1e-6, 2e-6, len(pieces))
    columns = np.stack([piece.column(x) for piece in pieces], axis=1)
    np.testing.assert_allclose(seconds_of(assemble(pieces, list(weights), name="m"), x), columns @ weights, rtol=1e-9)


def test_vector_and_scalar_evaluation_agree() -> None:
    model = TRUTH
    by_hand = model.seconds(prefills=[(512, 100), (64, 0)], decodes=[1000, 20])
    x = np.array([[1, 578, 1, 512**2 + 2 * 512 * 100 + 64**2, 2, 100, 1, 1020, 2]], np.float64)
    assert seconds_of(model, x)[0] == pytest.approx(by_hand, rel=1e-12)


def test_mixed_pieces_cost_nothing_without_prefills() -> None:
    x = batches(90)
    without_prefills = x[:, 2] == 0
    for piece, feature in zip(MIXED, (8, 7), strict=True):
        np.testing.assert_array_equal(piece.column(x)[without_prefills], 0.0)
        np.testing.assert_allclose(piece.column(x)[~without_prefills], x[~without_prefills, feature], rtol=1e-6)


def test_recovers_a_known_model_from_noisy_data() -> None:
    x = batches()
    noise = np.exp(np.random.default_rng(1).normal(0.0, 0.03, len(x)))
    fit = fit_cost(x, seconds_of(TRUTH, x) * noise, name="again")
    fresh = batches(300, seed=5)
    error = np.abs(seconds_of(fit.cost, fresh) / seconds_of(TRUTH, fresh) - 1.0)
    assert error.mean() < 0.01 and error.max() < 0.06
    assert fit.errors["all"].mape == pytest.approx(0.03 * np.sqrt(2 / np.pi), rel=0.3)  # what the noise leaves
    assert {piece.kind for piece, _ in fit.pieces} == {Kind.linear, Kind.rising, Kind.mixed}


def test_a_linear_model_stays_linear() -> None:
    x = batches()
    model = COSTS["llama2-7b-a100"]
    noise = np.exp(np.random.default_rng(2).normal(0.0, 0.02, len(x)))
    fit = fit_cost(x, seconds_of(model, x) * noise, name="linear")
    assert len(fit.cost.terms) == 1
    assert np.abs(fit.cost.theta[0, [0, 1, 3]] / model.theta[0, [0, 1, 3]] - 1.0).max() < 0.15


def test_the_order_of_batches_does_not_matter() -> None:
    x = batches(300)
    y = seconds_of(TRUTH, x) * np.exp(np.random.default_rng(3).normal(0.0, 0.05, len(x)))
    order = np.random.default_rng(4).permutation(len(x))
    one, other = fit_cost(x, y, name="m"), fit_cost(x[order], y[order], name="m")
    np.testing.assert_allclose(other.cost.theta, one.cost.theta, rtol=1e-4)
    np.testing.assert_array_equal(other.held_out, one.held_out[order])


def test_held_out_batches_have_no_say() -> None:
    x = batches(300)
    y = seconds_of(TRUTH, x)
    fit = fit_cost(x, y, name="m")
    assert 0.15 < fit.held_out.mean() < 0.25
    spoilt = np.where(fit.held_out, 2.0 * y, y)
    again = fit_cost(x, spoilt, name="m")
    assert again.cost == fit.cost
    assert again.errors["all"].mape == pytest.approx(0.5, abs=0.02)


def test_repeats_of_a_batch_are_held_out_together() -> None:
    x = np.repeat(batches(60), 3, axis=0)
    fit = fit_cost(x, seconds_of(TRUTH, x), name="m")
    assert (fit.held_out.reshape(60, 3).sum(axis=1) % 3 == 0).all()


def test_regions() -> None:
    x = np.zeros((3, 9))
    x[[0, 2], 8] = 1.0
    x[[1, 2], 4] = 1.0
    assert regions(x).tolist() == ["decode", "prefill", "mixed"]


def test_a_region_that_was_not_measured_has_no_error() -> None:
    x = batches(300)
    x = x[x[:, 4] == 0]
    fit = fit_cost(x, seconds_of(TRUTH, x), name="m")
    assert set(fit.errors) == {"all", "decode"}
    assert fit.measured_range["num_prefills"] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((30, 8)), np.ones(30), "expected"),
        (batches(30), np.ones(29), "expected"),
        (batches(30), np.zeros(30), "positive"),
        (-batches(30), np.ones(30), "not negative"),
        (batches(6), np.ones(6), "at least 24 different batches, got 6"),
    ],
)
def test_what_cannot_be_fitted(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(FitError, match=message):
        fit_cost(x, y, name="m")
