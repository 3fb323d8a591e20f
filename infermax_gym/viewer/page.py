"""A report as one HTML file: it needs no network, no library and, but for sorting and pointing, no script.

Everything that comes from a name, a trace or a file is escaped; a content security policy forbids every request and
every script but the one below.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from infermax_gym.viewer.svg import escape

NUM_STYLES = 12


@dataclass(frozen=True)
class Picture:
    """One chart.

    Attributes:
        title: above it.
        svg: the chart, see `charts.py`.
        note: how to read it.
        policy: number of the policy that it shows alone; -1 where it shows several.
    """

    title: str
    svg: str
    note: str = ""
    policy: int = -1

    @property
    def file_name(self) -> str:
        """The title as a name of a file, without an ending."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:60] or "picture"


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place.

    Attributes:
        text: as people read it.
        value: what it is sorted by; None sorts last.
        is_best: whether it is marked.
    """

    text: str
    value: float | str | None
    is_best: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, its unit or kind, and whether it holds numbers."""

    title: str
    unit: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells; `policies` are the legend's numbers of the rows, -1 for none."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    policies: Sequence[int] = ()
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A headline, how to read what follows, and tables, pictures or lines of code."""

    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    code: Sequence[str] = ()
    is_wide: bool = False


@dataclass
class Legend:
    """Policies by number: which colour each has, and whether it is shown at first."""

    names: list[str] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    styles: dict[str, int] = field(default_factory=dict)

    def add(self, names: Sequence[str], shown: Sequence[str]) -> None:
        """Take policies in, in this order; those shown at first get their colours first."""
        self.shown.update(shown)
        self.names += [name for name in names if name not in self.names]
        for name in [*shown, *names]:
            self.styles.setdefault(name, len(self.styles) % NUM_STYLES)

    def number(self, name: str) -> int:
        """The number of a policy; -1 if it is not one of the legend."""
        return self.names.index(name) if name in self.names else -1

    def style(self, name: str) -> int:
        """The number of its colour."""
        return self.styles.get(name, 0)


@dataclass
class Page:
    """A report.

    Attributes:
        answer: what it says, in sentences; the first is the answer.
        facts: what was asked, by name.
        legend: its policies.
        sections: its parts.
        notes: what a reader has to know.
    """

    answer: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    legend: Legend = field(default_factory=Legend)
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def render(page: Page, title: str = "infermax report") -> str:
    """The HTML text of a report."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src '{_digest(script)}'"
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
    )
    first, *more = page.answer or ["Nothing had finished."]
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{_prose(value)}</dd></div>" for name, value in page.facts)
    top = (
        f'<header><p class="kicker">{escape(title)}</p><h1>{_prose(first)}</h1>'
        + "".join(f'<p class="lead">{_prose(sentence)}</p>' for sentence in more)
        + f'<dl class="facts">{facts}</dl></header>'
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
    foot = f"<footer>{f'<ul>{notes}</ul>' if notes else ''}</footer>"
    parts = "".join(_section(section, page.legend) for section in page.sections)
    body = f'<body>\n<main>{top}{_legend(page.legend)}{parts}{foot}</main>\n<div id="tip" role="status" hidden></div>'
    return f"{head}{body}\n<script>\n{script}</script>\n</body>\n</html>\n"


def standalone(picture: Picture) -> str:
    """A chart as an SVG file of its own, in the light colours."""
    rules = _asset("page.css").split("/* charts */")[1].split("/* end of charts */")[0]
    palette = _asset("page.css").split("/* palette */")[1].split("/* end of palette */")[0]
    style = f"<style>{palette}svg{{font-family:system-ui,sans-serif;background:#fff}}{rules}</style>"
    bare = re.sub(r" data-hover='[^']*'", "", picture.svg)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + bare.replace(">", f">{style}", 1) + "\n"


def _prose(sentence: str) -> str:
    return escape(sentence.replace("<=", "≤"))


def _legend(legend: Legend) -> str:
    if len(legend.names) < 2:
        return ""
    chips = []
    for k, name in enumerate(legend.names):
        on = "true" if name in legend.shown else "false"
        chips.append(
            f'<button type="button" class="chip s{legend.style(name)}" data-chip="{k}" aria-pressed="{on}">'
            f"<i></i>{escape(name)}</button>"
        )
    every = '<button type="button" class="chip all" data-chip="all">all</button>'
    return f'<nav class="legend" aria-label="Policies shown">{"".join(chips)}{every}</nav>'


def _section(section: Section, legend: Legend) -> str:
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    tables = "".join(_table(table, legend) for table in section.tables)
    code = "".join(f"<pre><code>{escape(text)}</code></pre>" for text in section.code)
    pictures = "".join(_figure(picture) for picture in section.pictures)
    grid = f'<div class="pictures{" wide" if section.is_wide else ""}">{pictures}</div>' if pictures else ""
    return f"<section><h2>{escape(section.title)}</h2>{note}{tables}{code}{grid}</section>"


def _figure(picture: Picture) -> str:
    whose = "" if picture.policy < 0 else f' data-p="{picture.policy}"'
    note = f"<p>{escape(picture.note)}</p>" if picture.note else ""
    save = "".join(
        f'<button type="button" data-save="{kind}" aria-label="Save as {kind.upper()}">{kind.upper()}</button>'
        for kind in ("svg", "png")
    )
    return (
        f'<figure{whose} data-name="{picture.file_name}"><figcaption><h3>{escape(picture.title)}</h3>'
        f'<span class="save">{save}</span></figcaption>{note}{picture.svg}</figure>'
    )


def _table(table: Table, legend: Legend) -> str:
    heads = "".join(
        f'<th scope="col"{"" if c.is_number else " class=name"}><button type="button">{escape(c.title)}'
        f"<small>{escape(c.unit)}</small></button></th>"
        for c in table.columns
    )
    rows = []
    for k, cells in enumerate(table.rows):
        number = table.policies[k] if table.policies else -1
        dot = "" if number < 0 else f'<i class="s{legend.style(legend.names[number])}"></i>'
        shown = []
        for column, cell in zip(table.columns, cells, strict=True):
            kind = "" if column.is_number else "name"
            kind += " best" if cell.is_best else ""
            value = "" if cell.value is None else escape(cell.value)
            mark = dot if column is table.columns[0] else ""
            shown.append(f'<td class="{kind.strip()}" data-v="{value}">{mark}{escape(cell.text)}</td>')
        rows.append(f"<tr>{''.join(shown)}</tr>")
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>{caption}'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """The script's name in a content security policy; it stands between the tags with the newline before it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
