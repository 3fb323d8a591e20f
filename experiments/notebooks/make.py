"""Make examples/notebooks/*.ipynb from the cells beside this file, with what they print and draw.

    python -m experiments.notebooks.make [NAME ...]

Sources are Python scripts in percent format. A cell that is tagged as parameters holds sizes, which tests make smaller.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "cells"
TARGET = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
MARK = "# %%"
PARAMETERS = 'tags=["parameters"]'
_KINDS = {"": "code", "[markdown]": "markdown", PARAMETERS: "parameters"}
_DPI = 110
_NUM_COLOURS = 64


def split_cells(text: str) -> list[tuple[str, str]]:
    """The cells of a script in percent format, each a kind ("markdown", "code" or "parameters") and its text."""
    cells = []
    for part in text.split(f"\n{MARK}")[1:]:
        head, _, body = part.partition("\n")
        kind, body = _KINDS[head.strip()], body.strip()
        if kind == "markdown":
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
        cells.append((kind, body))
    return cells


def run_cells(cells: Sequence[tuple[str, str]], changed: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run the code cells in order in one namespace; return the cells in notebook format 4.5.

    Args:
        cells: kinds and texts.
        changed: values that take the place of those of the parameters cell.
    """
    names: dict[str, Any] = {"__name__": "notebook"}
    made: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells):
        cell = empty_cell(number, kind, text)
        if kind != "markdown":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
                exec(compile(text, f"cell {number}", "exec"), names)
            if kind == "parameters":
                names.update(changed or {})
            if printed.getvalue():
                cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
            cell["outputs"] += _pictures()
        made.append(cell)
    return made


def empty_cell(number: int, kind: str, text: str) -> dict[str, Any]:
    """A cell in notebook format 4.5 that was not run."""
    metadata = {"tags": ["parameters"]} if kind == "parameters" else {}
    shape = "markdown" if kind == "markdown" else "code"
    cell: dict[str, Any] = {"cell_type": shape, "id": f"cell-{number}", "metadata": metadata, "source": text}
    return cell if shape == "markdown" else cell | {"execution_count": None, "outputs": []}


def _pictures() -> list[dict[str, Any]]:
    """The open figures as outputs, as Jupyter shows them at the end of a cell; closes them."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return []
    found = []
    for number in pyplot.get_fignums():
        figure = pyplot.figure(number)
        data = {"image/png": base64.b64encode(_png(figure)).decode(), "text/plain": figure.get_label()}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return found


def _png(figure: Any) -> bytes:
    """A figure in few colours, which makes a small file."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png", facecolor="white")
    Image.open(drawn).convert("RGB").quantize(_NUM_COLOURS).save(small, "png", optimize=True)
    return small.getvalue()


def main() -> None:
    """Run the sources and write their notebooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [path.stem for path in sorted(SOURCES.glob("*.py"))]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"notebooks to make (all): {', '.join(names)}")
    import matplotlib

    matplotlib.use("agg")
    for name in parser.parse_args().names or names:
        began, began_cpu = time.perf_counter(), time.process_time()
        cells = run_cells(split_cells((SOURCES / f"{name}.py").read_text(encoding="utf-8")))
        kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (TARGET / f"{name}.ipynb").write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        print(f"{name}: {wall_s:.0f} s, {cpu_s:.0f} s of processor time")


if __name__ == "__main__":
    main()
