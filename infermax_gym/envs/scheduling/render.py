"""What `render()` shows: a few lines of text, or a picture of the episode so far.

Both only look: they work on a copy of the engine and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.state import Engine
from infermax_gym.envs.scheduling.episode import Run
from infermax_gym.envs.scheduling.legal import fill_mask
from infermax_gym.envs.status import RUNNING_ON

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History: TypeAlias = Sequence[tuple[float, ...]]
"""(clock_s, waiting, decodes, prefills, share of KV blocks used) at every decision so far."""

MOST_ROWS = 8
"""Slots that the text shows of either kind."""

_BAR = 40


def draw_ansi(run: Run) -> str:
    """A compact live view: clock, KV cache, who runs, who waits, and the visible slots with their action numbers."""
    engine = run.engine.copy()
    disband(engine.core)
    core = engine.record[0]
    lines = [_clock(core), _memory(core), _running(core, run), _waiting(core, engine)]
    if run.lane.record["status"][0] == RUNNING_ON and (run.lane.slots >= 0).any():
        waiting, running = _waiting_table(run, engine), _running_table(run, engine)
        width = max(len(line) for line in waiting)
        pairs = zip_longest(waiting, running, fillvalue="")
        lines += ["", *(f"{left:<{width}}   {right}".rstrip() for left, right in pairs)]
    return "\n".join(lines) + "\n"


def _clock(core: Any) -> str:
    total, to_come = int(core["num_requests"]), int(core["num_requests"] - core["next_arrival"])
    ended = f"{core['num_finished']:,} finished, {core['num_rejected']:,} rejected"
    return (
        f"{_seconds(core['clock_s'])}  {total:,} requests: {ended}, {to_come:,} to come; "
        f"{core['num_preemptions']:,} preemptions"
    )


def _memory(core: Any) -> str:
    used, blocks = int(core["num_blocks"] - core["free_blocks"]), int(core["num_blocks"])
    filled = -(-_BAR * used // blocks)
    bar = "#" * filled + "." * (_BAR - filled)
    return f"KV cache  [{bar}] {100.0 * used / blocks:3.0f} %, {used:,} of {blocks:,} blocks"


def _running(core: Any, run: Run) -> str:
    prefills = int(core["num_running_prefills"])
    decodes = int(core["num_running"]) - prefills
    demand = int(run.lane.record["demand"][0])
    needs = f"; the next tokens of the decodes take {_count(demand, 'block')}" if demand else ""
    both = f"{_count(decodes, 'decode')}, {_count(prefills, 'prefill')}"
    return f"running   {core['num_running']:,} of {core['max_num_seqs']:,} sequences: {both}{needs}"


def _waiting(core: Any, engine: Engine) -> str:
    if not core["num_waiting"]:
        return "waiting   nobody"
    req = engine.requests
    oldest = float(core["clock_s"]) - float(req["arrival_s"][req["place"] == 1].min())
    tokens = f"{core['waiting_tokens']:,} tokens"
    return f"waiting   {_count(int(core['num_waiting']), 'request')}, {tokens}, the oldest for {_seconds(oldest)}"


def _waiting_table(run: Run, engine: Engine) -> list[str]:
    layout = run.lane.record[0]
    shown = run.lane.slots[: layout["num_waiting_slots"]]
    req, clock_s, mask = engine.requests, float(engine.record["clock_s"][0]), _mask(run)
    rows = [["ADMIT", "request", "waits s", "known", "out"]]
    for slot in range(min(int((shown >= 0).sum()), MOST_ROWS)):
        r = int(shown[slot])
        q = req[r]
        action = int(layout["num_chunk_budgets"]) + slot
        known = int(q["prompt"] + q["generated"])
        rows.append([_legal(mask, action), f"{r}", f"{clock_s - q['arrival_s']:.2f}", f"{known}", f"{q['generated']}"])
    return _aligned(rows, int((shown >= 0).sum()))


def _running_table(run: Run, engine: Engine) -> list[str]:
    layout = run.lane.record[0]
    positions = run.lane.slots[layout["num_waiting_slots"] :]
    req, order, mask = engine.requests, engine.arrays["run"], _mask(run)
    first = int(layout["num_chunk_budgets"] + layout["num_waiting_slots"])
    rows = [["PREEMPT", "request", "phase", "known", "out", "in KV", "blocks"]]
    for slot in range(min(int((positions >= 0).sum()), MOST_ROWS)):
        r = int(order[positions[slot]])
        q = req[r]
        phase = "prefill" if q["in_prefill"] else "decode"
        known = int(q["prompt"] + q["generated"])
        figures = [f"{known}", f"{q['generated']}", f"{q['computed']}", f"{q['held']}"]
        rows.append([_legal(mask, first + slot), f"{r}", phase, *figures])
    return _aligned(rows, int((positions >= 0).sum()))


def _mask(run: Run) -> NDArray[np.int8]:
    layout = run.lane.record[0]
    sizes = ("num_chunk_budgets", "num_waiting_slots", "num_running_slots")
    mask = np.zeros(sum(int(layout[size]) for size in sizes), np.int8)
    fill_mask(run.engine.core, run.lane.core, mask)
    return mask


def _legal(mask: NDArray[np.int8], action: int) -> str:
    return f"{action}" if mask[action] else "-"


def _aligned(rows: list[list[str]], num_slots: int) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if num_slots > MOST_ROWS:
        lines.append(f"and {num_slots - MOST_ROWS} more".rjust(len(lines[0])))
    return lines


def _seconds(value: float) -> str:
    return f"{value:,.2f} s"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# The picture.

_INK, _SOFT, _GRID, _PAPER = "#22262e", "#7b8494", "#e6e9ee", "#ffffff"
_QUEUE, _DECODE, _PREFILL, _KV = "#d1495b", "#2b7a9b", "#edae49", "#5b5f97"
_SIZE_INCHES, _DPI = (9.0, 6.4), 100
_LEFT, _RIGHT = 0.075, 0.97
_MOST_POINTS = 1500


def draw_picture(run: Run, history: History) -> NDArray[np.uint8]:
    """The episode so far as a picture: the queue, the batch and the KV cache over time, and who holds the cache now.

    Args:
        run: the episode.
        history: see `History`; the present is added to it.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; one line.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "render_mode='rgb_array' needs matplotlib: pip install 'infermax-gym[viewer]'", name="matplotlib"
        ) from None
    engine = run.engine.copy()
    disband(engine.core)
    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, facecolor=_PAPER)
    canvas = FigureCanvasAgg(figure)
    _headline(figure, engine.record[0])
    times, waiting, decodes, prefills, used = _thinned(engine.record[0], history)
    queue, batch, cache = (_panel(figure, bottom, times[-1]) for bottom in (0.68, 0.435, 0.19))
    _fill(queue, times, 0.0 * waiting, waiting, _QUEUE)
    _fill(batch, times, decodes, decodes + prefills, _PREFILL)
    _fill(batch, times, 0.0 * decodes, decodes, _DECODE)
    _fill(cache, times, 0.0 * used, 100.0 * used, _KV)
    _name(queue, ("waiting", f"{waiting[-1]:,.0f}", _QUEUE))
    _name(batch, ("decodes", f"{decodes[-1]:,.0f}", _DECODE), ("prefills", f"{prefills[-1]:,.0f}", _PREFILL))
    _name(cache, ("KV cache", f"{100.0 * used[-1]:.0f} %", _KV))
    queue.set_ylim(0.0, max(5.0, 1.12 * waiting.max()))
    batch.set_ylim(0.0, max(5.0, 1.12 * (decodes + prefills).max()))
    for axes in (queue, batch):
        axes.tick_params(labelbottom=False)
    cache.set_ylim(0.0, 112.0)
    cache.set_yticks([0, 50, 100], ["0", "50", "100 %"])
    cache.axhline(100.0, color=_SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    cache.set_xlabel("simulated seconds", color=_SOFT, fontsize=9, labelpad=3)
    _holders(figure, engine)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba(), np.uint8)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(pixels[..., :3])


def _thinned(core: Any, history: History) -> NDArray[np.float64]:
    """(5, k) float64: the history, at most so many points of it, and the present."""
    kept = history[:: len(history) // _MOST_POINTS + 1]
    decodes = float(core["num_running"] - core["num_running_prefills"])
    used = 1.0 - float(core["free_blocks"]) / float(core["num_blocks"])
    now = (float(core["clock_s"]), float(core["num_waiting"]), decodes, float(core["num_running_prefills"]), used)
    return np.array([*kept, now], np.float64).T


def _headline(figure: Figure, core: Any) -> None:
    """The clock, how far the episode is, and its totals."""
    total, finished = int(core["num_requests"]), int(core["num_finished"])
    title = f"{core['clock_s']:,.1f} s"
    figure.text(_LEFT, 0.93, title, color=_INK, fontsize=17, fontweight="bold", va="baseline")
    facts = [f"{finished:,} of {total:,} finished"]
    if core["num_rejected"]:
        facts.append(f"{int(core['num_rejected']):,} rejected")
    facts += [_count(int(core["num_preemptions"]), "preemption"), _count(int(core["num_iterations"]), "iteration")]
    figure.text(_RIGHT, 0.932, "   ·   ".join(facts), color=_SOFT, fontsize=9.5, ha="right", va="baseline")
    done = float(core["num_finished"] + core["num_rejected"]) / max(total, 1)
    _strip(figure, (0.907, 0.914), [0.0, 0.0], [1.0, done], [_GRID, _INK])


def _panel(figure: Figure, bottom: float, end_s: float) -> Axes:
    axes = figure.add_axes((_LEFT, bottom, _RIGHT - _LEFT, 0.155))
    axes.set_facecolor(_PAPER)
    axes.set_xlim(0.0, max(end_s, 1.0))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_SOFT, labelsize=8.5, length=0, pad=5)
    return axes


def _fill(axes: Axes, times: NDArray[Any], low: NDArray[Any], high: NDArray[Any], colour: str) -> None:
    axes.fill_between(times, low, high, step="post", color=colour, alpha=0.28, linewidth=0)
    axes.step(times, high, where="post", color=colour, linewidth=1.4, solid_joinstyle="round")


def _name(axes: Axes, *entries: tuple[str, str, str]) -> None:
    """Name what a panel shows, with the value now, above it."""
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    words: list[Any] = []
    for name, value, colour in entries:
        words.append(TextArea(name, textprops={"color": colour, "fontsize": 10}))
        words.append(TextArea(f"{value}   ", textprops={"color": colour, "fontsize": 10, "fontweight": "bold"}))
    line = HPacker(children=words, align="baseline", pad=0, sep=4)
    axes.add_artist(
        AnchoredOffsetbox(
            "lower left",
            child=line,
            frameon=False,
            pad=0,
            borderpad=0,
            bbox_to_anchor=(0.0, 1.05),
            bbox_transform=axes.transAxes,
        )
    )


def _holders(figure: Figure, engine: Engine) -> None:
    """A strip of the KV cache now: a piece per running request, as wide as the blocks it holds."""
    core, req = engine.record[0], engine.requests
    blocks = int(core["num_blocks"])
    order = engine.arrays["run"][: int(core["num_running"])]
    ends = np.cumsum(req["held"][order]) / blocks
    starts = ends - req["held"][order] / blocks
    colours = [_PREFILL if prefill else _DECODE for prefill in req["in_prefill"][order]]
    _strip(figure, (0.04, 0.075), [0.0, *starts], [1.0, *ends], ["#f1f3f6", *colours], 0.7)
    label = f"KV cache now: {blocks - core['free_blocks']:,} of {blocks:,} blocks, one piece per running request"
    figure.text(_LEFT, 0.085, label, color=_SOFT, fontsize=8.5)


def _strip(
    figure: Figure,
    height: tuple[float, float],
    starts: Sequence[float],
    ends: Sequence[float],
    colours: Sequence[str],
    gap: float = 0.0,
) -> None:
    """Rectangles side by side across the picture; starts and ends run from 0 to 1."""
    from matplotlib.collections import PolyCollection

    low, high = height
    x0 = _LEFT + (_RIGHT - _LEFT) * np.asarray(starts)
    x1 = _LEFT + (_RIGHT - _LEFT) * np.asarray(ends)
    y0, y1 = np.full_like(x0, low), np.full_like(x0, high)
    corners = np.stack([np.stack([x0, x0, x1, x1], 1), np.stack([y0, y1, y1, y0], 1)], 2)
    pieces = PolyCollection(
        list(corners), facecolors=colours, edgecolors=_PAPER, linewidths=gap, transform=figure.transFigure
    )
    figure.add_artist(pieces)
