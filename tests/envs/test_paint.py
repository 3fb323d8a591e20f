"""Pictures of environments: letters are readable shapes, curves stand where their values are."""

from __future__ import annotations

import itertools
import string

import numpy as np
import pytest

from infermax_gym.envs.glyphs import stamp, width_of
from infermax_gym.envs.paint import INK, KV, PAGE, Canvas


def test_letters_differ_and_stay_within_their_stamps() -> None:
    letters = string.ascii_letters + string.digits + ".,:%/-+()"
    shapes = {letter: stamp(letter, 20.0, 2.0)[0] for letter in letters}
    for cover in shapes.values():
        assert cover.max() == 1.0 and cover.min() == 0.0
        assert not cover[[0, -1]].any() and not cover[:, [0, -1]].any()
    for a, b in itertools.combinations(letters, 2):
        same = shapes[a].shape == shapes[b].shape and np.array_equal(shapes[a], shapes[b])
        assert not same or {a, b} in ({"0", "O"}, {"I", "l"})


def test_digits_are_as_wide_as_each_other() -> None:
    assert len({width_of(digit, 12.0) for digit in string.digits}) == 1
    assert width_of("il", 12.0) < width_of("mw", 12.0)


def test_text_ends_where_it_says() -> None:
    canvas = Canvas(40, 200)
    end = canvas.text(10, 5, "KV 42 %")
    drawn = np.flatnonzero((canvas.pixels != PAGE).any(axis=(0, 2)))
    assert drawn[0] >= 4 and end - 8 <= drawn[-1] <= end
    right = Canvas(40, 200)
    right.text_to(10, 190, "KV 42 %")
    assert 185 <= np.flatnonzero((right.pixels != PAGE).any(axis=(0, 2)))[-1] <= 191
    assert (canvas.pixels == INK).all(axis=2).any()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_curve_is_as_high_as_its_value(share: float) -> None:
    canvas = Canvas(120, 100)
    canvas.steps((10, 0, 110, 100), np.array([0.0, 1.0]), np.array([share * 8.0] * 2), 8.0, KV)
    height = (canvas.pixels[:, 50] != PAGE).any(axis=1).sum()
    assert height == pytest.approx(100 * share, abs=2.5)


def test_what_lies_outside_is_left_out() -> None:
    canvas = Canvas(20, 30)
    canvas.text(-5, -4, "88888888888")
    canvas.box(-5, -5, 3, 3, INK)
    assert canvas.pixels.shape == (20, 30, 3) and (canvas.pixels[0, 0] == INK).all()
    assert (Canvas(20, 30).pixels == PAGE).all()
