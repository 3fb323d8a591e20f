"""Notebooks are what their sources give: cells and printed output."""

from __future__ import annotations

import json

import pytest

from experiments.notebooks.make import SOURCES, TARGET, run_cells, split_cells

NAMES = [path.stem for path in sorted(SOURCES.glob("*.py"))]


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_up_to_date(name: str) -> None:
    notebook = json.loads((TARGET / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert run_cells(split_cells((SOURCES / f"{name}.py").read_text(encoding="utf-8"))) == notebook["cells"]
    assert notebook["nbformat"] == 4


def test_every_notebook_has_a_source() -> None:
    assert [path.stem for path in sorted(TARGET.glob("*.ipynb"))] == NAMES


def test_cells_of_a_script() -> None:
    text = '"""About."""\n\n# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 2\n\n# %%\nprint(x + 1)\n'
    cells = split_cells(text)
    assert cells == [("markdown", "# Title\n\nText."), ("code", "x = 2"), ("code", "print(x + 1)")]
    assert run_cells(cells)[2]["outputs"][0]["text"] == "3\n"
