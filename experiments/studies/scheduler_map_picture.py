"""The picture of `scheduler_map`: for each objective a grid of winners, coloured by kind, with name and gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

COLOURS = {"default": "#eceff1", "today": "#9fcbe8", "published": "#f6c667", "ours": "#5fb79b"}
"""Told apart by everybody: grey, sky blue, yellow and green differ in lightness, too."""
MEANING = {
    "default": "level with the default",
    "today": "a setting of today's engines",
    "published": "a published rule",
    "ours": "a rule or agent of this project",
}
INK, FAINT = "#1c2733", "#5b6773"
STYLE = {"font.size": 8, "svg.fonttype": "path", "svg.hashsalt": "infermax_gym"}


def draw(
    path: Path,
    panels: Mapping[str, Sequence[Sequence[Any]]],
    rows: Sequence[tuple[str, float]],
    engines: Sequence[str],
) -> None:
    """Draw the map.

    Args:
        path: FILE.svg or FILE.png.
        panels: objective, then a `Winner` for each row and engine.
        rows: traffic and load.
        engines: MODEL@GPU[xN], one for each column.
    """
    with mpl.rc_context(STYLE):
        import matplotlib.pyplot as plt

        height = len(panels) * (0.3 * len(rows) + 0.9) + 0.5
        figure, found = plt.subplots(len(panels), 1, figsize=(10.4, height), facecolor="white", squeeze=False)
        for axes, (objective, grid) in zip(found[:, 0], panels.items(), strict=True):
            _panel(axes, objective, grid, rows, engines)
        handles = [FancyBboxPatch((0, 0), 1, 1, facecolor=colour, edgecolor="none") for colour in COLOURS.values()]
        figure.legend(handles, [MEANING[kind] for kind in COLOURS], loc="lower center", ncols=4, frameon=False)
        figure.subplots_adjust(left=0.115, right=0.995, top=1 - 0.78 / height, bottom=0.42 / height, hspace=0.2)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _panel(
    axes: Axes, objective: str, grid: Sequence[Sequence[Any]], rows: Sequence[tuple[str, float]], engines: Sequence[str]
) -> None:
    place, spans = 0.0, dict[str, list[float]]()
    for k, ((traffic, load), line) in enumerate(zip(rows, grid, strict=True)):
        place += 0.22 if k and traffic != rows[k - 1][0] else 0.0
        spans.setdefault(traffic, []).append(place + 0.5)
        axes.text(-0.06, place + 0.5, f"{load:g}", ha="right", va="center", color=FAINT)
        for column, one in enumerate(line):
            _cell(axes, column, place, objective, one)
        place += 1.0
    for traffic, middles in spans.items():
        axes.text(-0.36, sum(middles) / len(middles), traffic, ha="right", va="center", color=INK, fontsize=9)
    for column, engine in enumerate(engines):
        model, _, gpu = engine.partition("@")
        axes.text(column + 0.5, -0.62, model, ha="center", va="bottom", color=INK, fontsize=7.5)
        axes.text(column + 0.5, -0.12, gpu.upper().replace("X", " × "), ha="center", va="bottom", color=FAINT)
    axes.text(-1.05, -1.3, f"{objective}, against vLLM's default", ha="left", va="bottom", fontsize=11, color=INK)
    axes.text(-0.06, -0.12, "load", ha="right", va="bottom", color=FAINT)
    axes.set(xlim=(0, len(engines)), ylim=(place, 0))
    axes.axis("off")


def _cell(axes: Axes, column: int, place: float, objective: str, one: Any) -> None:
    kind = one.kind if one.clear else "default"
    box = FancyBboxPatch(
        (column + 0.03, place + 0.05),
        0.94,
        0.9,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=COLOURS[kind],
        edgecolor="none",
    )
    axes.add_patch(box)
    if kind == "default":
        axes.text(column + 0.5, place + 0.5, "level", ha="center", va="center", color=FAINT, fontsize=7)
        return
    axes.text(column + 0.5, place + 0.33, shown(objective, one.ratio.value), ha="center", va="center", color=INK)
    axes.text(column + 0.5, place + 0.72, short(one.name), ha="center", va="center", color=INK, fontsize=6)


def shown(objective: str, ratio: float) -> str:
    """A ratio as the share gained, a multiple where goodput at least doubles."""
    if objective == "goodput" and ratio >= 2.0:
        return f"{ratio:.1f} ×" if ratio < 9.95 else "> 10 ×"
    return f"{ratio - 1.0:+.0%}".replace("-", "\u2212")


def short(name: str) -> str:
    """A policy's name, as short as it stays plain."""
    for long, brief in (("shortest-prompt-first", "shortest-prompt"), ("least-attained-service", "least-attained")):
        name = name.replace(long, brief)
    return name.replace("max-utilization", "max-util").replace("any-engine-goodput", "any-engine-gp")
