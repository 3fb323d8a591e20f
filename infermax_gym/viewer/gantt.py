"""A schedule of a few requests as a chart: who is in which iteration, and the KV tokens they hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from infermax_gym.engine import Iteration
from infermax_gym.viewer.schedule import DECODE, HELD, PREFILL, REFILL, Stay
from infermax_gym.viewer.svg import Axis, escape, line, number, text

_WIDTH, _LEFT, _RIGHT = 760.0, 52.0, 748.0
_MEMORY = 84.0
_KINDS = {PREFILL: "fill-pp", DECODE: "fill-dd", REFILL: "fill-re", HELD: "fill-hold"}


def gantt(
    stays: Sequence[Stay], schedule: Sequence[Iteration], num_requests: int, kv_tokens: int, *, label: str
) -> str:
    """The chart as SVG.

    Args:
        stays: what each request does in each iteration, see `stays_of`.
        schedule: the iterations.
        num_requests: a line each.
        kv_tokens: the KV capacity.
        label: what the picture shows.
    """
    high = max(5.0, min(22.0, 420.0 / num_requests))
    top, bottom = 30.0, 30.0 + high * num_requests
    across = Axis(0.0, schedule[-1].end_s, _LEFT, _RIGHT)
    parts = [_key()]
    for request in range(num_requests):
        if high >= 11.0 or request % 10 == 0:
            parts.append(text(_LEFT - 8.0, top + high * (request + 0.5) + 4.0, request, "tick", "end"))
    for stay in stays:
        start, end = across.at(stay.start_s), across.at(stay.end_s)
        y = top + high * stay.request
        tip = f"request {stay.request}: {stay.kind}\n{number(stay.start_s)} to {number(stay.end_s)} s"
        tip += f"\n{stay.kv_tokens:,} KV tokens at its end"
        parts.append(
            f'<rect class="{_KINDS[stay.kind]}" data-tip="{escape(tip)}" x="{start:.1f}" y="{y + 1.0:.1f}" '
            f'width="{max(end - start - 0.6, 0.6):.1f}" height="{high - 2.0:.1f}"/>'
        )
    size = min(4.0, high / 3.0)
    crosses = ""
    for iteration in schedule:
        for request in iteration.preempted:
            x, y = across.at(iteration.start_s), top + high * (request + 0.5)
            crosses += (
                f"M{x - size:.1f} {y - size:.1f}l{2 * size:g} {2 * size:g}m{-2 * size:g} 0l{2 * size:g} {-2 * size:g}"
            )
    parts.append(f'<path class="preempted" d="{crosses}"/>')
    parts.append(_memory(stays, schedule, across, bottom + 30.0, kv_tokens))
    height = bottom + 30.0 + _MEMORY + 42.0
    box = f'viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{escape(label)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'


def _memory(stays: Sequence[Stay], schedule: Sequence[Iteration], across: Axis, top: float, kv_tokens: int) -> str:
    bottom = top + _MEMORY
    up = Axis(0.0, 1.05 * kv_tokens, bottom, top)
    held = np.zeros(len(schedule), np.int64)
    place = {iteration.start_s: k for k, iteration in enumerate(schedule)}
    for stay in stays:
        held[place[stay.start_s]] += stay.kv_tokens
    parts = [text(_LEFT, top - 8.0, "KV tokens held", "strip k-kv")]
    for iteration, tokens in zip(schedule, held.tolist(), strict=True):
        start, end, y = across.at(iteration.start_s), across.at(iteration.end_s), up.at(tokens)
        parts.append(
            f'<rect class="fill-kv" x="{start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{bottom - y:.1f}"/>'
        )
    parts.append(line(_LEFT, up.at(kv_tokens), _RIGHT, up.at(kv_tokens), "bound"))
    parts.append(text(_LEFT - 8.0, up.at(kv_tokens) + 4.0, f"{kv_tokens:,}", "tick", "end"))
    parts.append(line(_LEFT, bottom, _RIGHT, bottom, "base"))
    for value, name in across.ticks(8):
        at = across.at(value)
        parts += [line(at, bottom, at, bottom + 4.0, "base"), text(at, bottom + 17.0, name, "tick", "middle")]
    return "".join(parts) + text(_RIGHT, bottom + 34.0, "seconds", "axis", "end")


def _key() -> str:
    parts, x = [], _LEFT
    for kind, style in _KINDS.items():
        parts.append(f'<rect class="{style}" x="{x:.1f}" y="6" width="11" height="11" rx="2"/>')
        parts.append(text(x + 17.0, 15.5, kind, "axis"))
        x += 36.0 + 6.1 * len(kind)
    return "".join(parts)
