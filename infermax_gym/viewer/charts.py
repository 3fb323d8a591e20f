"""Charts as SVG, from numbers alone: no library, no script needed to see them.

Colours and type come from page.css; `data-hover` is what page.js shows under the pointer. An element with `data-p`
belongs to a policy, and the legend shows or hides it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from infermax_gym.viewer.svg import (
    Axis,
    area,
    escape,
    free_labels,
    line,
    number,
    path,
    spanning,
    steps,
    text,
    tick_label,
)

WIDTH, HEIGHT = 380.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 370.0, 28.0, 242.0


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: of the policy.
        values: (k,) over the chart's places; nan where there is none.
        style: number of its colour.
        policy: number that the legend knows it by.
    """

    name: str
    values: NDArray[np.float64]
    style: int
    policy: int


@dataclass(frozen=True)
class Point:
    """One mark of a chart: a name, where it is, an interval around each value, and its colour."""

    name: str
    x: float
    y: float
    style: int
    policy: int
    tip: str = ""
    half: float | None = None


def curves(
    places: ArrayLike,
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    label: str,
    x_kind: str = "linear",
    y_kind: str = "linear",
    from_zero: bool = False,
) -> str:
    """Lines over the same places.

    Args:
        places: (k,) ascending; shares below 1 where `x_kind` is "tail".
        series: the lines.
        x: name and unit of the horizontal axis.
        y: name and unit of the vertical axis.
        label: what the picture shows, for those who do not see it.
        x_kind: see `Axis`.
        y_kind: see `Axis`.
        from_zero: let a linear vertical axis begin at 0.
    """
    at = np.asarray(places, np.float64)
    across = Axis(float(at[0]), float(at[-1]) if at[-1] > at[0] else float(at[0]) + 1.0, _LEFT, _RIGHT, x_kind)
    values = np.concatenate([s.values for s in series])
    up = spanning(values, _BOTTOM, _TOP, kind=y_kind, from_zero=from_zero)
    parts = [_frame(across, up, x, y)]
    px = across(at)
    for s in series:
        parts.append(f'<path {_of(s.policy)} class="curve s{s.style}" d="{path(px, up(s.values))}"/>')
    scale = 100.0 if x_kind == "tail" else 1.0
    shown = [{"name": s.name, "p": s.policy, "s": f"s{s.style}", "y": _numbers(s.values)} for s in series]
    return _svg("".join(parts), label, {"px": _pixels(px), "x": _numbers(at * scale), "of": x, "series": shown})


def scatter(
    points: Sequence[Point],
    *,
    x: str,
    y: str,
    label: str,
    kinds: tuple[str, str] = ("log", "log"),
    best: tuple[str, str] = ("low", "low"),
    bound: tuple[float, str] | None = None,
) -> str:
    """Policies by two figures, those that no other beats in both joined by a line.

    Args:
        points: the policies.
        x: name and unit of the horizontal axis.
        y: name and unit of the vertical axis.
        label: what the picture shows.
        kinds: of the axes, see `Axis`.
        best: whether low or high values are good, of each axis.
        bound: a value of the horizontal axis that none can be below, and what it is.
    """
    xs = [p.x for p in points] + ([bound[0]] if bound else [])
    across, up = (
        spanning(xs, _LEFT, _RIGHT, kind=kinds[0]),
        spanning([p.y for p in points], _BOTTOM, _TOP, kind=kinds[1]),
    )
    parts = [_frame(across, up, x, y)]
    if bound is not None:
        edge = across.at(bound[0])
        parts.append(
            f'<rect class="beyond" x="{_LEFT}" y="{_TOP}" width="{edge - _LEFT:.1f}" height="{_BOTTOM - _TOP}"/>'
        )
        parts.append(line(edge, _TOP, edge, _BOTTOM, "bound"))
        parts.append(text(edge + 6.0, _BOTTOM - 8.0, bound[1], "note"))
    front = frontier([(p.x, p.y) for p in points], best)
    if len(front) > 1:
        corner = steps([points[i].x for i in front], [points[i].y for i in front])
        parts.append(f'<path class="front" d="{path(across(corner[0]), up(corner[1]))}"/>')
    places = list(zip(across([p.x for p in points]).tolist(), up([p.y for p in points]).tolist(), strict=True))
    frame = (_LEFT, _TOP - 4.0, _RIGHT + 10.0, _BOTTOM)
    for p, (a, b), spot in zip(points, places, free_labels(places, [p.name for p in points], frame), strict=True):
        tip = f'data-tip="{escape(p.tip or p.name)}" tabindex="0"'
        name = "" if spot is None else text(spot[0], spot[1], p.name, f"tag t{p.style}", spot[2])
        parts.append(
            f'<g {_of(p.policy)} {tip}><circle class="dot f{p.style}" cx="{a:.1f}" cy="{b:.1f}" r="5"/>{name}</g>'
        )
    return _svg("".join(parts), label)


def frontier(points: Sequence[tuple[float, float]], best: tuple[str, str]) -> list[int]:
    """Numbers of the points that no other beats in both values, by the first value.

    Example:
        >>> frontier([(1.0, 5.0), (2.0, 3.0), (3.0, 4.0)], ("low", "low"))
        [0, 1]
    """
    signs = [1.0 if way == "low" else -1.0 for way in best]
    values = [(signs[0] * a, signs[1] * b) for a, b in points]
    order = sorted(range(len(points)), key=lambda i: values[i])
    kept: list[int] = []
    for i in order:
        if not kept or values[i][1] < values[kept[-1]][1]:
            kept.append(i)
    return sorted(kept, key=lambda i: points[i][0])


def ranges(rows: Sequence[tuple[Point, Sequence[float | None]]], *, x: str, label: str, kind: str = "log") -> str:
    """A line per policy from the first of its values to the last, with a mark on each: p50, p90, p99."""
    values = [v for _, row in rows for v in row if v is not None]
    left, top, step = 132.0, 34.0, 22.0
    height = top + step * len(rows) + 40.0
    across = spanning(values, left, _RIGHT, kind=kind, from_zero=kind == "linear")
    bottom = height - 38.0
    parts = [_grid(across, top - 10.0, bottom), text(_RIGHT, height - 6.0, x, "axis", "end")]
    for k, (p, row) in enumerate(rows):
        y = top + step * k + 6.0
        known = [across.at(v) for v in row if v is not None]
        tip = f'data-tip="{escape(p.tip or p.name)}" tabindex="0"'
        marks = "".join(
            f'<circle class="dot f{p.style}" cx="{a:.1f}" cy="{y}" r="{5.0 - i}"/>' for i, a in enumerate(known)
        )
        rule = line(min(known), y, max(known), y, f"range s{p.style}") if known else ""
        parts.append(f"<g {tip}>{text(left - 10.0, y + 3.5, _cut(p.name), 'label', 'end')}{rule}{marks}</g>")
    return _svg("".join(parts), label, height=height)


def bars(points: Sequence[Point], *, x: str, label: str, bound: tuple[float, str] | None = None) -> str:
    """A bar per policy with its interval and value; a bound as a dashed line."""
    left, top, step = 132.0, 24.0, 26.0
    height = top + step * len(points) + 44.0
    ends = [p.x + (p.half or 0.0) for p in points] + ([bound[0]] if bound else [])
    across = spanning([0.0, *ends], left, _RIGHT - 44.0, from_zero=True)
    bottom = height - 38.0
    parts = [_grid(across, top - 8.0, bottom), text(_RIGHT, height - 6.0, x, "axis", "end")]
    for k, p in enumerate(points):
        y, end = top + step * k, across.at(p.x)
        whisker = ""
        if p.half:
            low, high = across.at(p.x - p.half), across.at(p.x + p.half)
            whisker = line(low, y + 7.0, high, y + 7.0, "whisker")
        value = text(across.at(p.x + (p.half or 0.0)) + 6.0, y + 11.0, number(p.x), "value")
        body = (
            f'<rect class="bar f{p.style}" x="{left}" y="{y}" width="{max(end - left, 0.5):.1f}" height="14" rx="2"/>'
        )
        tip = f'data-tip="{escape(p.tip or p.name)}" tabindex="0"'
        name = text(left - 10.0, y + 11.0, _cut(p.name), "label", "end")
        parts.append(f"<g {tip}>{name}{body}{whisker}{value}</g>")
    if bound is not None:
        edge = across.at(bound[0])
        parts.append(line(edge, top - 8.0, edge, bottom, "bound"))
        parts.append(text(edge, top - 12.0, bound[1], "note", "middle" if edge < _RIGHT - 90.0 else "end"))
    return _svg("".join(parts), label, height=height)


_STRIPS = ((24.0, 82.0), (108.0, 176.0), (202.0, 246.0))


def timeline(
    data: Mapping[str, Any],
    *,
    label: str,
    end_s: float,
    most_waiting: float,
    most_running: float,
    most_context: float = 0.0,
) -> str:
    """Queue, batch and KV use of one policy over time, preemptions marked.

    Args:
        data: "time_s" and lists as long, see `infermax_gym.evaluation.details.sampled_timeline`; those that are not
            known are left out.
        label: what the picture shows.
        end_s: where the axis ends, so that policies can be compared.
        most_waiting: requests at the top of the queue's strip.
        most_running: requests at the top of the batch's strip.
        most_context: tokens at the top of the last strip, where the KV use is not known.
    """
    time_s = np.asarray(data["time_s"], np.float64)
    across = Axis(0.0, max(end_s, 1e-9), _LEFT, _RIGHT)
    px = across(time_s)
    waiting = np.asarray(data["num_waiting"], np.float64)
    has_phases = "num_prefills" in data
    decodes = np.asarray(data["num_decodes" if has_phases else "num_running"], np.float64)
    prefills = np.asarray(data["num_prefills"], np.float64) if has_phases else np.zeros_like(decodes)
    series = [("waiting", "q", waiting)]
    series += [("prefills", "pf", prefills), ("decodes", "d", decodes)] if has_phases else [("running", "d", decodes)]
    parts = []
    top, bottom = _STRIPS[0]
    parts.append(_strip(across, Axis(0.0, most_waiting, bottom, top), "waiting requests", "q", px, waiting, None))
    top, bottom = _STRIPS[1]
    both = Axis(0.0, most_running, bottom, top)
    title = "running: decodes, prefills above" if has_phases else "running requests"
    parts.append(_strip(across, both, title, "d", px, decodes, None))
    if has_phases:
        parts.append(f'<path class="fill-pf" d="{area(px, both(decodes + prefills), both(decodes))}"/>')
    top, bottom = _STRIPS[2]
    if "kv_use" in data:
        used = 100.0 * np.asarray(data["kv_use"], np.float64)
        preempted = np.asarray(data["num_preemptions"], np.int64)
        parts.append(_strip(across, Axis(0.0, 100.0, bottom, top), "KV blocks held, %", "kv", px, used, preempted))
        series += [("KV use, %", "kv", used), ("preemptions", "pre", preempted.astype(np.float64))]
    else:
        context = np.asarray(data["context_tokens"], np.float64)
        up = Axis(0.0, max(most_context, 1.0), bottom, top)
        parts.append(_strip(across, up, "context of running requests, tokens", "kv", px, context, None))
        series.append(("context tokens", "kv", context))
    parts.append(_x_ticks(across, bottom, "seconds"))
    shown = [{"name": name, "p": -1, "s": f"k-{kind}", "y": _numbers(values)} for name, kind, values in series]
    hover = {"px": _pixels(px), "x": _numbers(time_s), "of": "time, s", "series": shown}
    return _svg("".join(parts), label, hover, height=284.0)


def _strip(
    across: Axis,
    up: Axis,
    title: str,
    kind: str,
    px: NDArray[np.float64],
    values: NDArray[np.float64],
    preempted: NDArray[np.int64] | None,
) -> str:
    ground = np.full(len(px), up.start)
    parts = [text(_LEFT, up.end - 7.0, title, f"strip k-{kind}")]
    for value in (0.0, up.high):
        parts.append(line(_LEFT, up.at(value), _RIGHT, up.at(value), "grid"))
        parts.append(text(_LEFT - 6.0, up.at(value) + 3.5, tick_label(round(value)), "tick", "end"))
    parts.append(f'<path class="fill-{kind}" d="{area(px, up(values), ground)}"/>')
    parts.append(f'<path class="edge-{kind}" d="{path(px, up(values))}"/>')
    if preempted is not None and preempted.any():
        count = int(preempted.sum())
        ticks = "".join(f"M{x:.1f} {up.end + 1.0:.1f}v9" for x in px[preempted > 0].tolist())
        parts.append(f'<path class="preempted" d="{ticks}"/>')
        parts.append(
            text(_RIGHT, up.end - 7.0, f"{count:,} preemption{'s' if count > 1 else ''}", "strip k-pre", "end")
        )
    return "".join(parts)


def _frame(across: Axis, up: Axis, x: str, y: str) -> str:
    parts = []
    for value, name in up.ticks():
        at = up.at(value)
        parts += [line(_LEFT, at, _RIGHT, at, "grid"), text(_LEFT - 6.0, at + 3.5, name, "tick", "end")]
    return "".join(parts) + text(4.0, 14.0, y, "axis") + _x_ticks(across, _BOTTOM, x)


def _x_ticks(across: Axis, bottom: float, x: str) -> str:
    parts = [line(_LEFT, bottom, _RIGHT, bottom, "base")]
    for value, name in across.ticks():
        at = across.at(value)
        parts += [line(at, bottom, at, bottom + 4.0, "base"), _tick_name(at, bottom + 17.0, name)]
    return "".join(parts) + text(_RIGHT, bottom + 33.0, x, "axis", "end")


def _tick_name(at: float, y: float, name: str) -> str:
    """Under its tick; at the right edge so that it ends there."""
    return text(at, y, name, "tick", "middle" if at < _RIGHT - 8.0 else "end")


def _grid(across: Axis, top: float, bottom: float) -> str:
    parts = []
    for value, name in across.ticks(5):
        at = across.at(value)
        parts += [line(at, top, at, bottom, "grid"), _tick_name(at, bottom + 15.0, name)]
    return "".join(parts)


def _svg(inside: str, label: str, hover: Mapping[str, Any] | None = None, height: float = HEIGHT) -> str:
    data = "" if hover is None else f" data-hover='{_json(hover)}'"
    box = f'viewBox="0 0 {WIDTH:g} {height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{escape(label)}"{data}>{inside}</svg>'


def _json(data: Mapping[str, Any]) -> str:
    """JSON within single quotes: its own quotes stay, which a picture has thousands of."""
    text = json.dumps(data, separators=(",", ":"))
    for sign, code in (("&", "&amp;"), ("'", "&#x27;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, code)
    return text


def _of(policy: int) -> str:
    return "" if policy < 0 else f'data-p="{policy}"'


def _cut(name: str, most: int = 19) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]


def _pixels(values: NDArray[np.float64]) -> list[float]:
    return [round(v, 1) for v in values.tolist()]
