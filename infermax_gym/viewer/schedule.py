"""Schedules of a few requests as pictures: who is in which iteration, and how full the KV memory is.

One pair of panels per schedule, all on the same clock: above, a row per request (prefills, refills after a
preemption, decodes, idling with its KV); below, the KV tokens held by all of them against the capacity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine import Iteration, SimulationResult
from infermax_gym.files import atomic

PREFILL, REFILL, DECODE, HELD = "prefill", "refill after preemption", "decode", "idle, keeps its KV"

_COLOURS = {PREFILL: "#2f6db3", REFILL: "#d1495b", DECODE: "#8fbcd9", HELD: "#e4e4e4"}
_INK, _FAINT = "#333333", "#9a9a9a"
_MOST_REQUESTS = 64


@dataclass(frozen=True)
class Stay:
    """What one request does in one iteration: `kind` from `start_s` to `end_s`, holding `kv_tokens` at its end."""

    request: int
    start_s: float
    end_s: float
    kind: str
    kv_tokens: int


def stays_of(schedule: Sequence[Iteration], prompts: NDArray[np.int64], outputs: NDArray[np.int64]) -> list[Stay]:
    """Every stay of a request in the KV memory, iteration by iteration.

    Args:
        schedule: the iterations.
        prompts: (n,) prompt tokens.
        outputs: (n,) output tokens.
    """
    resident = np.zeros(len(prompts), np.int64)
    generated = np.zeros(len(prompts), np.int64)
    ready = np.zeros(len(prompts), bool)  # decodes next
    result = []
    for iteration in schedule:
        for r in iteration.preempted:
            resident[r], ready[r] = 0, False
        tokens = dict(iteration.batch)
        for r in sorted({*tokens, *np.flatnonzero(resident).tolist()}):
            kind = HELD
            if r in tokens:
                kind = DECODE if ready[r] else REFILL if generated[r] > 0 else PREFILL
                resident[r] += tokens[r]
                ready[r] = resident[r] == prompts[r] + generated[r]
                generated[r] += ready[r]
            result.append(Stay(r, iteration.start_s, iteration.end_s, kind, int(resident[r])))
            if generated[r] == outputs[r]:
                resident[r] = 0
    return result


def _stays(run: SimulationResult) -> list[Stay]:
    if run.schedule is None:
        raise ValueError("the run has no schedule; simulate with record_schedule=True")
    return stays_of(run.schedule, run.workload.num_prompt_tokens, run.workload.num_output_tokens)


def draw_schedules(runs: Mapping[str, SimulationResult], path: Path, kv_tokens: int | None = None) -> None:
    """Draw schedules one above the other.

    Args:
        runs: titles and runs that recorded their schedules, of at most 64 requests.
        path: picture to write; the ending chooses the format (png, svg, pdf).
        kv_tokens: KV capacity, drawn as a line.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; one line.
        ValueError: too many requests for one picture, or an ending that matplotlib does not know.
    """
    figure = _figure(list(runs.values()))
    grid = figure.add_gridspec(2 * len(runs), 1, height_ratios=[2.2, 1.0] * len(runs))
    end_s = max(run.makespan_s for run in runs.values())
    for k, (title, run) in enumerate(runs.items()):
        stays = _stays(run)
        gantt = figure.add_subplot(grid[2 * k])
        _gantt(gantt, title, run, stays, end_s)
        memory = figure.add_subplot(grid[2 * k + 1], sharex=gantt)
        _memory(memory, stays, kv_tokens)
        if k < len(runs) - 1:
            memory.tick_params(labelbottom=False)
        else:
            memory.set_xlabel("seconds", color=_INK)
    _legend(figure)
    with atomic(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png", dpi=160, bbox_inches="tight", facecolor="white")


def _figure(runs: list[SimulationResult]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "pictures need matplotlib: pip install 'infermax-gym[viewer]'", name="matplotlib"
        ) from None
    most = max(len(run.workload) for run in runs)
    if most > _MOST_REQUESTS:
        raise ValueError(f"{most} requests are too many for a picture; at most {_MOST_REQUESTS}")
    figure = Figure(figsize=(9.0, len(runs) * (1.5 + 0.22 * most) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _gantt(axes: Any, title: str, run: SimulationResult, stays: list[Stay], end_s: float) -> None:
    for kind, colour in _COLOURS.items():
        chosen = [b for b in stays if b.kind == kind]
        axes.barh(
            [b.request for b in chosen],
            [b.end_s - b.start_s for b in chosen],
            left=[b.start_s for b in chosen],
            height=0.72,
            color=colour,
            edgecolor="white",
            linewidth=0.4,
        )
    lost = [(r, i.start_s) for i in run.schedule or () for r in i.preempted]
    axes.plot([t for _, t in lost], [r for r, _ in lost], "x", color=_INK, markersize=5, markeredgewidth=1.3)
    axes.plot(run.finish_s, np.arange(len(run.workload)), "|", color=_INK, markersize=9, markeredgewidth=1.6)
    axes.set_ylim(len(run.workload) - 0.5, -0.5)
    axes.set_xlim(0.0, end_s * 1.01)
    axes.set_yticks(range(len(run.workload)) if len(run.workload) <= 12 else [0, len(run.workload) - 1])
    axes.set_ylabel("request", color=_INK)
    figures = f"makespan {run.makespan_s:.3g} s, mean latency {np.nanmean(run.latency_s):.3g} s"
    count = f"{run.num_iterations} iterations, {run.num_preemptions} preemptions"
    axes.set_title(title, loc="left", color=_INK, fontsize=11, fontweight="bold", pad=16)
    axes.text(0.0, 1.025, f"{figures}, {count}", transform=axes.transAxes, color=_FAINT, fontsize=8.5)
    axes.tick_params(labelbottom=False)
    _plain(axes)


def _memory(axes: Any, stays: list[Stay], kv_tokens: int | None) -> None:
    """KV tokens during every iteration, as they stand at its end."""
    starts = sorted({b.start_s for b in stays})
    ends = {b.start_s: b.end_s for b in stays}
    held = [sum(b.kv_tokens for b in stays if b.start_s == start) for start in starts]
    axes.bar(starts, held, [ends[s] - s for s in starts], align="edge", color="#c9d8e6", edgecolor="white", lw=0.3)
    if kv_tokens is not None:
        axes.axhline(kv_tokens, color=_COLOURS[REFILL], linewidth=1.0, linestyle="--")
        axes.annotate(
            f"capacity {kv_tokens}", (1.0, kv_tokens), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            fontsize=8, color=_COLOURS[REFILL],
        )  # fmt: skip
    axes.set_ylim(0, 1.3 * max([*held, kv_tokens or 0]))
    axes.set_ylabel("KV tokens", color=_INK)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=8.5, length=3)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()]
    handles.append(Line2D([], [], marker="x", color=_INK, linestyle="", markersize=5, label="preempted"))
    handles.append(Line2D([], [], marker="|", color=_INK, linestyle="", markersize=9, label="finished"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
