"""Charts: marks stand where their values are."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from infermax_gym.viewer.charts import Point, Series, bars, curves, frontier, ranges, scatter
from infermax_gym.viewer.svg import Axis, free_labels, number, path, spanning, tick_label


@pytest.mark.parametrize("kind", ["linear", "log", "tail"])
def test_an_axis_keeps_the_order_and_its_ends(kind: str) -> None:
    low, high = (0.0, 0.999) if kind == "tail" else (0.5, 40.0)
    axis = Axis(low, high, 10.0, 110.0, kind)
    pixels = axis(np.linspace(low, high, 50))
    assert pixels[0] == pytest.approx(10.0) and pixels[-1] == pytest.approx(110.0) and (np.diff(pixels) > 0.0).all()
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 7 and all(low <= value <= high for value, _ in ticks)


def test_numbers_and_ticks_read_well() -> None:
    assert [number(v) for v in (0.0001234, 12.0, 123456.7, 5, math.nan, -3.14159)] == [
        "0.000123",
        "12.0",
        "123,457",
        "5",
        "–",
        "-3.14",
    ]
    assert [tick_label(v) for v in (0.5, 2000.0, 179_900.0, 3e6)] == ["0.5", "2k", "180k", "3M"]


def test_all_values_lie_on_a_spanning_axis() -> None:
    for values in ([3.0], [0.0, 0.0], [1e-4, 1e5], [-2.0, 7.0]):
        for kind in ("linear", "log"):
            axis = spanning(values, 0.0, 100.0, kind=kind)
            assert axis.low < axis.high and all(0.0 <= x <= 100.0 for x in axis(values))


def test_a_line_breaks_where_a_value_is_missing() -> None:
    assert path([0.0, 1.0, 2.0, 3.0], [1.0, math.nan, 2.0, 3.0]) == "M0 1M2 2L3 3"


def test_the_frontier_is_what_nobody_beats() -> None:
    rng = np.random.default_rng(5)
    points = [tuple(p) for p in rng.uniform(size=(40, 2)).tolist()]
    front = frontier(points, ("low", "high"))
    beaten = {i for i, (a, b) in enumerate(points) if any(c < a and d > b for c, d in points)}
    assert set(front) == set(range(40)) - beaten


def test_labels_do_not_overlap() -> None:
    spots = [(50.0 + 4.0 * k, 60.0 + 3.0 * (k % 3)) for k in range(12)]
    names = [f"policy-{k}" for k in range(12)]
    boxes = []
    for name, spot in zip(names, free_labels(spots, names, (0.0, 0.0, 300.0, 120.0)), strict=True):
        if spot is not None:
            wide = 5.9 * len(name)
            start = spot[0] - {"start": 0.0, "middle": wide / 2, "end": wide}[spot[2]]
            boxes.append((start, spot[1] - 9.0, start + wide, spot[1] + 3.0))
    assert len(boxes) > 2
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


def test_a_smaller_value_stands_further_left_and_lower() -> None:
    marks = [Point("a", 1.0, 10.0, 0, 0), Point("b", 2.0, 20.0, 1, 1)]
    circles = re.findall(
        r'cx="([\d.]+)" cy="([\d.]+)"', scatter(marks, x="x, s", y="y, s", label="l", bound=(0.5, "b"))
    )
    (ax, ay), (bx, by) = ((float(x), float(y)) for x, y in circles)
    assert ax < bx and ay > by
    widths = [float(w) for w in re.findall(r'class="bar f\d" .*? width="([\d.]+)"', bars(marks, x="x", label="l"))]
    assert widths[1] == pytest.approx(2.0 * widths[0], abs=0.2)


def test_charts_are_xml_whatever_their_names() -> None:
    name = "<&'\">"
    series = [Series(name, np.array([1.0, np.nan, 3.0]), 0, 0)]
    point = Point(name, 1.0, 2.0, 0, 0, name)
    drawn = (
        curves([0.0, 0.5, 0.9], series, x=name, y=name, label=name, x_kind="tail", y_kind="log"),
        scatter([point], x=name, y=name, label=name),
        ranges([(point, [1.0, None, 2.0])], x=name, label=name),
        bars([point], x=name, label=name, bound=(2.0, name)),
    )
    for text in drawn:
        assert ElementTree.fromstring(text).tag.endswith("svg")
