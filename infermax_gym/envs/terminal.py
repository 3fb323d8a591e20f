"""An engine at work, for a terminal: queue, batch, KV cache and who holds it, and how it got there.

`infermax watch` and `render_mode="human"` show the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infermax_gym.engine.state import Engine

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

QUEUE, DECODE, PREFILL, KV, ALARM = "#f0798a", "#58b4d8", "#f2c36b", "#9da1e6", "#ff5c75"
SOFT, TRACK = "grey58", "grey23"

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = " ▁▂▃▄▅▆▇█"
_LABEL = 9


class Holder(NamedTuple):
    """A running request: its number, whether it is in prefill, and its tokens: in KV, known, and generated."""

    number: int
    in_prefill: bool
    computed: int
    known: int
    generated: int


class Past(NamedTuple):
    """What a view remembers of a moment: waiting, running, share of KV blocks held, preemptions so far."""

    num_waiting: int
    num_running: int
    used: float
    num_preemptions: int


@dataclass(frozen=True)
class View:
    """An engine at a moment.

    Attributes:
        clock_s: its clock, seconds.
        num_requests: of the whole run.
        num_finished: requests.
        num_rejected: requests.
        num_waiting: requests.
        num_prefills: running requests.
        num_decodes: running requests.
        used: share of them that is held.
        num_preemptions: so far.
        latency_s: mean of the requests that have finished; nan if none has.
        ttft_s: mean of the requests that have a token; nan if none has.
        holders: running requests, in the engine's order.
    """

    clock_s: float
    num_requests: int
    num_finished: int
    num_rejected: int
    num_waiting: int
    num_prefills: int
    num_decodes: int
    used: float
    num_preemptions: int
    latency_s: float
    ttft_s: float
    holders: tuple[Holder, ...]

    @property
    def past(self) -> Past:
        """What is remembered of it."""
        return Past(self.num_waiting, self.num_prefills + self.num_decodes, self.used, self.num_preemptions)


def view_of(engine: Engine) -> View:
    """An engine now; its groups must be disbanded."""
    core, req = engine.record[0], engine.requests
    order = engine.arrays["run"][: int(core["num_running"])]
    holders = [
        Holder(int(q["number"]), bool(q["in_prefill"]), int(q["computed"]), int(q["prompt"] + q["generated"]), int(g))
        for q, g in zip(req[order], req["generated"][order], strict=True)
    ]
    prefills = int(core["num_running_prefills"])
    return View(
        clock_s=float(core["clock_s"]),
        num_requests=int(core["num_requests"] + core["num_unsent"]),
        num_finished=int(core["num_finished"]),
        num_rejected=int(core["num_rejected"]),
        num_waiting=int(core["num_waiting"]),
        num_prefills=prefills,
        num_decodes=len(holders) - prefills,
        used=1.0 - float(core["free_blocks"]) / float(core["num_blocks"]),
        num_preemptions=int(core["num_preemptions"]),
        latency_s=_mean(req["finish_s"] - req["arrival_s"]),
        ttft_s=_mean(req["first_token_s"] - req["arrival_s"]),
        holders=tuple(holders),
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def draw(
    title: str, view: View, past: Sequence[Past], width: int, height: int, tops: tuple[float, float] | None = None
) -> RenderableType:
    """The view as a panel of rich.

    Args:
        title: of the panel, such as a policy.
        view: the engine now.
        past: the moments before, evenly far apart.
        width: characters, at least 40.
        height: lines, at least 14; the running requests get what is left of them.
        tops: waiting and running requests at the top of their lines; what suits this view by default.
    """
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    inside = width - 4
    lines = [*_figures(view, inside), Text(""), *_history(view, past, inside, tops), Text("")]
    lines += _holders(view, inside, height - 2 - len(lines))
    name = Text(f" {title} ", style="bold white")
    clock = Text(f" {view.clock_s:,.2f} s ", style="bold white")
    body = Text("\n").join(lines)
    body.no_wrap, body.overflow = True, "crop"
    return Panel(
        body, title=name, title_align="left", subtitle=clock, subtitle_align="right", box=box.ROUNDED,
        border_style=TRACK, width=width, height=height, padding=(0, 1),
    )  # fmt: skip


def _figures(view: View, width: int) -> list[Text]:
    from rich.text import Text

    done = view.num_finished + view.num_rejected
    count = f" {done:,} of {view.num_requests:,}"
    progress = bar([(done / max(view.num_requests, 1), "white")], max(width - _LABEL - len(count), 4))
    first = Text.assemble(("finished".ljust(_LABEL), SOFT), progress, count)
    times = Text.assemble(
        ("latency".ljust(_LABEL), SOFT), (_seconds(view.latency_s).ljust(11), "bold"),
        ("TTFT ", SOFT), (_seconds(view.ttft_s).ljust(11), "bold"),
        (f"{view.num_preemptions:,}", f"bold {ALARM}" if view.num_preemptions else "bold"),
        (" preempted" if width < 56 else f" preemption{'' if view.num_preemptions == 1 else 's'}", SOFT),
    )  # fmt: skip
    return [first, times]


def most_of(moments: Sequence[Past]) -> tuple[float, float]:
    """The most waiting and the most running requests of these moments, at least a few."""
    waiting, running = (max((float(p[k]) for p in moments), default=0.0) for k in range(2))
    return max(waiting, 4.0), max(running, 4.0)


def _history(view: View, past: Sequence[Past], width: int, tops: tuple[float, float] | None) -> list[Text]:
    from rich.text import Text

    moments = [*past, view.past]
    room = max(width - _LABEL - 7, 8)
    shown = _thinned(moments, room)
    preempted = np.diff([p.num_preemptions for p in shown], prepend=shown[0].num_preemptions) > 0
    most_waiting, most_running = most_of(moments) if tops is None else tops
    rows = (
        ("waiting", f"{view.num_waiting:,}", [p.num_waiting for p in shown], QUEUE, most_waiting),
        ("running", f"{view.past.num_running:,}", [p.num_running for p in shown], DECODE, most_running),
        ("KV cache", f"{100.0 * view.used:.0f} %", [p.used for p in shown], KV, 1.0),
    )
    lines = []
    for label, value, values, colour, top in rows:
        spark = sparkline(values, top, colour)
        lines.append(Text.assemble((label.ljust(_LABEL), SOFT), (value.rjust(6) + " ", f"bold {colour}"), spark))
    marks = "".join("▲" if hit else " " for hit in preempted)
    lines.append(Text.assemble(("preempted".ljust(_LABEL + 7), SOFT), (marks, ALARM)))
    shares = [(view.num_decodes / most_running, DECODE), (view.num_prefills / most_running, PREFILL)]
    both = f" {view.num_decodes:,} decode, {view.num_prefills:,} prefill"
    lines.append(Text.assemble(("batch".ljust(_LABEL), SOFT), bar(shares, max(width - _LABEL - len(both), 4)), both))
    return lines


def _holders(view: View, width: int, room: int) -> list[Text]:
    """A bar per running request, as long as its known tokens; filled as far as they are in the KV cache."""
    from rich.text import Text

    if room < 2:
        return []
    head = Text("request".rjust(7) + "  KV tokens, generated after the line", style=SOFT)
    most = room - 1 if len(view.holders) < room else room - 2
    shown = view.holders[:most]
    longest = max((h.known for h in view.holders), default=1)
    space = max(width - 17, 6)
    lines = [head]
    for holder in shown:
        prompt = holder.known - holder.generated
        colour = PREFILL if holder.in_prefill else DECODE
        size = max(space * holder.known / longest, 1.0)
        part = bar([(holder.computed / holder.known, colour)], math.ceil(size))
        if holder.generated and prompt < holder.known:
            at = min(int(math.ceil(size) * prompt / holder.known), math.ceil(size) - 1)
            part = Text.assemble(part[:at], ("│", f"white on {colour}"), part[at + 1 :])
        part.pad_right(space - len(part.plain))
        lines.append(Text.assemble((f"{holder.number:>7,}  ", SOFT), part, f"{holder.computed:>8,}"))
    if len(view.holders) > len(shown):
        lines.append(Text(f"{'':>9}and {len(view.holders) - len(shown):,} more", style=SOFT))
    return lines


def bar(shares: Sequence[tuple[float, str]], width: int) -> Text:
    """Shares of a whole side by side, each in its colour, to an eighth of a character."""
    from rich.text import Text

    text = Text()
    at = 0
    end = 0.0
    for share, colour in shares:
        end += share
        eighths = round(8.0 * width * min(max(end, 0.0), 1.0))
        whole, rest = divmod(eighths, 8)
        if whole > at:
            text.append("█" * (whole - at), colour)
            at = whole
        if rest and at < width and share > 0.0:
            text.append(_EIGHTHS[rest], f"{colour} on {TRACK}")
            at += 1
    text.append(" " * (width - at), f"on {TRACK}")
    return text


def sparkline(values: Sequence[float], most: float, colour: str) -> Text:
    """Values over time, a character each."""
    from rich.text import Text

    levels = [0 if v <= 0 else max(1, min(8, round(8.0 * v / most))) for v in values]
    return Text("".join(_LEVELS[level] for level in levels), style=colour)


def _thinned(moments: Sequence[Past], most: int) -> list[Past]:
    """At most so many moments, the last among them."""
    if len(moments) <= most:
        return list(moments)
    places = np.linspace(0, len(moments) - 1, most).round().astype(int)
    return [moments[i] for i in places.tolist()]


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.2f} s" if value < 100.0 else f"{value:,.0f} s"
