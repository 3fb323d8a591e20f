"""What `render()` shows: a few lines of text, a view for a terminal, or a picture of the episode so far.

They only look: they work on a copy of the engine and change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.kernel.group import disband
from infermax_gym.engine.state import Engine
from infermax_gym.envs.paint import DECODE, INK, KV, PAGE, PREFILL, QUEUE, RULE, SOFT, Canvas, Colour
from infermax_gym.envs.scheduling.episode import Moment, Run, moment_of
from infermax_gym.envs.scheduling.legal import fill_mask
from infermax_gym.envs.status import RUNNING_ON

if TYPE_CHECKING:
    from rich.console import RenderableType

History: TypeAlias = Sequence[Moment]
"""The moments of every decision so far."""

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
    total = int(core["num_requests"] + core["num_unsent"])
    to_come = total - int(core["next_arrival"])
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


def draw_view(run: Run, history: History, width: int, height: int) -> RenderableType:
    """The same as a panel for a terminal, with the past: what `infermax watch` shows of a policy."""
    from infermax_gym.envs.terminal import Past, draw, view_of

    engine = run.engine.copy()
    disband(engine.core)
    view = view_of(engine)
    past = [Past(m.num_waiting, m.num_decodes + m.num_prefills, m.used, view.num_preemptions) for m in history]
    return draw("agent", view, past, min(width, 120), height)


# The picture.

_HEIGHT, _WIDTH = 640, 900
_EDGE, _LEFT, _RIGHT = 24, 74, 858
_TOPS = (92, 248, 404)
_CARDS = (*((top, _EDGE, top + 144, _WIDTH - _EDGE) for top in _TOPS), (560, _EDGE, 622, _WIDTH - _EDGE))
_MOST_POINTS = 1500


def draw_picture(run: Run, history: History) -> NDArray[np.uint8]:
    """The episode so far as a picture: the queue, the batch and the KV cache over time, and who holds the cache now.

    Args:
        run: the episode.
        history: see `History`; the present is added to it.

    Returns:
        (640, 900, 3) uint8.
    """
    engine = run.engine.copy()
    disband(engine.core)
    canvas = Canvas(_HEIGHT, _WIDTH, _CARDS)
    _headline(canvas, engine.record[0])
    past = _thinned([*history, moment_of(engine)])
    waiting, prefills, decodes = past["num_waiting"], past["num_prefills"], past["num_decodes"]
    times, running = past["clock_s"], decodes + prefills
    _panel(canvas, _TOPS[0], times, [(waiting, "waiting", QUEUE)], max(5.0, float(waiting.max())))
    both = [(running, "prefills", PREFILL), (decodes, "decodes", DECODE)]
    _panel(canvas, _TOPS[1], times, both, max(5.0, float(running.max())))
    _panel(canvas, _TOPS[2], times, [(100.0 * past["used"], "KV cache %", KV)], 100.0)
    _holders(canvas, engine)
    return canvas.pixels


def _thinned(moments: Sequence[Moment]) -> dict[str, NDArray[np.float64]]:
    """(k,) float64 for each field of a moment: at most so many of the moments, the last among them."""
    kept = moments[-1 :: -(len(moments) // _MOST_POINTS + 1)][::-1]
    return dict(zip(Moment._fields, np.array(kept, np.float64).T, strict=True))


def _headline(canvas: Canvas, core: Any) -> None:
    """The clock, how far the episode is, and its totals."""
    total, finished = int(core["num_requests"] + core["num_unsent"]), int(core["num_finished"])
    canvas.text(24, _EDGE, f"{core['clock_s']:,.1f} s", INK, 4)
    facts = [f"{finished:,} of {total:,} finished"]
    if core["num_rejected"]:
        facts.append(f"{int(core['num_rejected']):,} rejected")
    facts += [_count(int(core["num_preemptions"]), "preemption"), _count(int(core["num_iterations"]), "iteration")]
    canvas.text_to(40, _WIDTH - _EDGE, "     ".join(facts), SOFT, 1)
    done = float(core["num_finished"] + core["num_rejected"]) / max(total, 1)
    canvas.box(66, _EDGE, 70, _WIDTH - _EDGE, RULE)
    canvas.box(66, _EDGE, 70, _EDGE + round(done * (_WIDTH - 2 * _EDGE)), INK)


def _panel(
    canvas: Canvas,
    top: int,
    times: NDArray[np.float64],
    curves: list[tuple[NDArray[np.float64], str, Colour]],
    most: float,
) -> None:
    """Curves over time with their names and values now above, and a scale at the left; the largest comes first."""
    frame = (top + 40, _LEFT, top + 128, _RIGHT)
    height = frame[2] - frame[0] - 1
    for share in (0.0, 0.5, 1.0):
        line = frame[2] - 1 - round(share * height)
        canvas.box(line, _LEFT, line + 1, _RIGHT, RULE)
        canvas.text_to(line - 4, _LEFT - 8, f"{share * most:,.0f}", SOFT, 1)
    for values, _, colour in curves:
        canvas.steps(frame, times, values, most, colour)
    left, above = _LEFT, 0.0
    for values, name, colour in reversed(curves):
        left = canvas.text(top + 15, left, f"{name} {values[-1] - above:,.0f}    ", colour, 2)
        above = float(values[-1]) if len(curves) > 1 else 0.0


def _holders(canvas: Canvas, engine: Engine) -> None:
    """A strip of the KV cache now: a piece per running request, as wide as the blocks it holds."""
    core, req = engine.record[0], engine.requests
    blocks = int(core["num_blocks"])
    order = engine.arrays["run"][: int(core["num_running"])]
    ends = np.cumsum(req["held"][order]) / blocks
    starts = ends - req["held"][order] / blocks
    colours = [PREFILL if prefill else DECODE for prefill in req["in_prefill"][order]]
    canvas.box(588, _LEFT, 606, _RIGHT, PAGE)
    width = _RIGHT - _LEFT
    canvas.strip(588, 606, _LEFT + starts * width, _LEFT + ends * width - 1.0, colours)
    used = f"{blocks - core['free_blocks']:,} of {blocks:,} blocks"
    canvas.text(571, _LEFT, f"KV cache now: {used}, a piece per running request", SOFT, 1)
