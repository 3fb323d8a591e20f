"""Sections of a page that a command writes, between markers."""

from __future__ import annotations

import re
from pathlib import Path

from rich.table import Table


def put(page: str, marker: str, section: str) -> str:
    """The page with a section between its markers, at the end if they are not there yet."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    block = f"{begin}\n{section.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"


def show(section: str, marker: str, out: Path | None) -> None:
    """Print a section, or put it into the page."""
    if out is None:
        print(section)
        return
    page = out.read_text(encoding="utf-8") if out.exists() else "# Validation\n"
    out.write_text(put(page, marker, section), encoding="utf-8")


def markdown(table: Table) -> str:
    """A table in Markdown; columns after the first that hold digits stand right."""
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    sides = ["--:" if any(cell[:1].isdigit() for cell in cells) else "---" for cells in columns]
    head = "| " + " | ".join(str(column.header) for column in table.columns) + " |"
    lines = ["| " + " | ".join(row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join([head, "|" + "|".join(sides) + "|", *lines])
