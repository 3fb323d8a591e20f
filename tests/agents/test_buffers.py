"""Discounting in time: by hand, against stable-baselines3, and the invariances that make it right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer

from infermax_gym.agents.buffers import TimeDiscountBuffer, advantages_in_time, squashed


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def estimate(rewards, values, last, dt, tau=10.0, lambda_tau=4.0, ends=None):
    dt = column(*dt)
    ends = np.zeros(dt.shape, bool) if ends is None else np.array(ends)[:, None]
    return advantages_in_time(
        column(*rewards),
        column(*values),
        np.array([last], np.float32),
        ends,
        np.exp(-dt / tau),
        np.exp(-dt / lambda_tau),
    )[:, 0]


def test_by_hand() -> None:
    d, trace = np.exp(-2.0 / 10.0), np.exp(-2.0 / 4.0)
    last = -3.0 + d * -1.0 - -5.0  # delta of the third decision
    second = 0.0 + 1.0 * -5.0 - -4.5 + last  # takes no time: discount 1, trace 1
    first = -1.0 + d * -4.5 - -4.0 + d * trace * second
    found = estimate([-1.0, 0.0, -3.0], [-4.0, -4.5, -5.0], -1.0, [2.0, 0.0, 2.0])
    assert found == pytest.approx([first, second, last], rel=1e-5)


def test_episodes_do_not_leak() -> None:
    found = estimate([-1.0, -7.0], [-4.0, -2.0], 100.0, [2.0, 2.0], ends=[True, False])
    assert found[0] == pytest.approx(-1.0 + 4.0)


def test_decisions_without_time_change_nothing() -> None:
    """A turn of three admissions and a run is worth what the run alone is, from the first decision's value on."""
    short = estimate([-2.0, -3.0], [-4.0, -6.0], -5.0, [1.0, 2.0])
    long = estimate([0.0, 0.0, 0.0, -2.0, -3.0], [-4.0, -9.0, -1.0, -4.0, -6.0], -5.0, [0.0, 0.0, 0.0, 1.0, 2.0])
    assert long[0] == pytest.approx(short[0], rel=1e-5)


def test_cutting_time_finer_changes_nothing() -> None:
    """With a critic that is right, halving the decisions gives the same advantage: tiny batches do not pay."""
    tau = 10.0
    rate = -6.0  # six requests in the system for ever: value = rate * tau

    def piece(seconds: float) -> float:
        return rate * tau * (1.0 - float(np.exp(-seconds / tau)))

    coarse = estimate([piece(2.0)] * 2, [rate * tau] * 2, rate * tau, [2.0] * 2)
    fine = estimate([piece(0.1)] * 40, [rate * tau] * 40, rate * tau, [0.1] * 40)
    assert coarse == pytest.approx(0.0, abs=1e-4) and fine == pytest.approx(0.0, abs=1e-4)


def filled(kind, **settings):
    box, choices = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(2)
    buffer = kind(5, box, choices, "cpu", gae_lambda=0.9, gamma=0.95, n_envs=2, **settings)
    rng = np.random.default_rng(0)
    for _ in range(5):
        arguments = (
            rng.random((2, 3), np.float32),
            rng.integers(0, 2, (2, 1)),
            rng.random(2),
            rng.random(2) < 0.3,
            torch.from_numpy(rng.random((2, 1), np.float32)),
            torch.zeros(2),
        )
        dt_s = rng.exponential(1.0, 2)
        masks = np.ones((2, 2))
        if isinstance(buffer, TimeDiscountBuffer):
            buffer.add_timed(*arguments, action_masks=masks, dt_s=dt_s)
        else:
            buffer.add(*arguments, action_masks=masks)
    buffer.compute_returns_and_advantage(torch.tensor([[0.3], [0.7]]), np.array([True, False]))
    return buffer


def test_without_tau_it_is_the_usual_buffer() -> None:
    ours, theirs = filled(TimeDiscountBuffer, tau_s=None), filled(MaskableRolloutBuffer)
    assert np.allclose(ours.advantages, theirs.advantages, atol=1e-6)
    assert np.allclose(ours.returns, theirs.returns, atol=1e-6)


def test_with_tau_it_is_not() -> None:
    ours, theirs = filled(TimeDiscountBuffer, tau_s=20.0), filled(MaskableRolloutBuffer)
    assert not np.allclose(ours.advantages, theirs.advantages, atol=1e-2)


def test_gains_are_all_there_is() -> None:
    """With a horizon of zero nothing that follows counts, not even after decisions that take no time."""
    buffer = filled(TimeDiscountBuffer, tau_s=0.0)
    np.testing.assert_allclose(buffer.returns, squashed(buffer.rewards), atol=1e-6)
    np.testing.assert_allclose(buffer.advantages, squashed(buffer.rewards) - buffer.values, atol=1e-6)
    assert (buffer.discount(np.zeros(3)) == 0.0).all()


def test_squashing_tames_the_tails_only() -> None:
    gains = np.zeros(1_000, np.float32)
    gains[:10] = np.linspace(-1.0, 1.0, 10)
    gains[10] = -400.0
    limit = 2.0 * gains.std()
    found = squashed(gains)
    np.testing.assert_allclose(found[:10], gains[:10], rtol=1e-2)
    assert found[10] == pytest.approx(-limit, rel=1e-3)
    np.testing.assert_allclose(squashed(7.0 * gains), 7.0 * found, rtol=1e-5)
    assert (squashed(np.zeros(5, np.float32)) == 0.0).all()
