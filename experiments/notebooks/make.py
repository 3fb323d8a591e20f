"""Make examples/notebooks/*.ipynb from the cells beside this file, with their printed output.

python -m experiments.notebooks.make
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "cells"
TARGET = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
MARK = "# %%"


def split_cells(text: str) -> list[tuple[str, str]]:
    """The cells of a script in percent format, each a kind ("markdown" or "code") and its text."""
    cells = []
    for part in text.split(f"\n{MARK}")[1:]:
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", body.strip()))
    return cells


def run_cells(cells: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Run the code cells in order in one namespace; return the cells in notebook format 4.5."""
    names: dict[str, Any] = {"__name__": "notebook"}
    made: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text}
        if kind == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, f"cell {number}", "exec"), names)
            stream = {"output_type": "stream", "name": "stdout", "text": printed.getvalue()}
            cell |= {"execution_count": None, "outputs": [stream] if stream["text"] else []}
        made.append(cell)
    return made


def main() -> None:
    """Run every source and write its notebook."""
    for source in sorted(SOURCES.glob("*.py")):
        kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        cells = run_cells(split_cells(source.read_text()))
        notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (TARGET / f"{source.stem}.ipynb").write_text(json.dumps(notebook, indent=1) + "\n")


if __name__ == "__main__":
    main()
