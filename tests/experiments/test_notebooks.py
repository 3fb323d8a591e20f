"""Notebooks are what their sources give, run through, and stay small."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from experiments.notebooks.make import SOURCES, TARGET, empty_cell, run_cells, split_cells

NAMES = [path.stem for path in sorted(SOURCES.glob("*.py"))]
SMALLER: dict[str, dict[str, Any]] = {
    "calibrate_to_my_server": {"NUM_REQUESTS": 40},
    "choose_a_scheduler": {"NUM_REQUESTS": 200, "NUM_SEEDS": 1},
    "five_minute_rule": {"NUM_CLIENTS": 1_000},
    "my_first_agent": {"NUM_DECISIONS": 2_048, "NUM_TEST_EPISODES": 1},
    "preemption_with_proofs": {"PROMPTS": (16,), "TIME_LIMIT_S": 4},
}
"""Values of the parameters cell with which a notebook runs in seconds. Those that have none are fast as they are."""

NEEDED = {"my_first_agent": "sb3_contrib", "preemption_with_proofs": "ortools"}
MOST_BYTES = 60_000


def source_of(name: str) -> list[tuple[str, str]]:
    return split_cells((SOURCES / f"{name}.py").read_text(encoding="utf-8"))


def notebook_of(name: str) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads((TARGET / f"{name}.ipynb").read_text(encoding="utf-8"))
    return notebook


def kinds(cell: dict[str, Any]) -> list[str]:
    return [output["output_type"] for output in cell.get("outputs", [])]


@pytest.fixture(autouse=True)
def pictures_without_a_screen() -> Iterator[None]:
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra viewer")
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    yield
    matplotlib.use(before)


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_have_the_cells_of_their_sources(name: str) -> None:
    notebook = notebook_of(name)
    without = [{**cell, "outputs": []} if "outputs" in cell else cell for cell in notebook["cells"]]
    assert without == [empty_cell(number, *cell) for number, cell in enumerate(source_of(name))]
    assert notebook["nbformat"] == 4


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run(name: str) -> None:
    pytest.importorskip(NEEDED.get(name, "matplotlib"), reason="needs an extra")
    made, shown = run_cells(source_of(name), SMALLER.get(name)), notebook_of(name)["cells"]
    assert [kinds(cell) for cell in made] == [kinds(cell) for cell in shown]
    if name not in SMALLER:
        printed = [[output.get("text") for output in cell.get("outputs", [])] for cell in (*made, *shown)]
        assert printed[: len(made)] == printed[len(made) :]


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_small_and_have_a_picture(name: str) -> None:
    outputs = [output for cell in notebook_of(name)["cells"] for output in cell.get("outputs", [])]
    pictures = [base64.b64decode(output["data"]["image/png"]) for output in outputs if "data" in output]
    assert pictures and all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert max(map(len, pictures)) <= MOST_BYTES
    assert all(output["data"]["text/plain"] for output in outputs if "data" in output), "what the picture shows"
    assert sum(len(output.get("text", "")) for output in outputs) <= MOST_BYTES


def test_every_notebook_has_a_source() -> None:
    assert [path.stem for path in sorted(TARGET.glob("*.ipynb"))] == NAMES


def test_cells_of_a_script() -> None:
    text = '"""About."""\n\n# %% [markdown]\n# # Title\n#\n# Text.\n\n# %% tags=["parameters"]\nx = 2\n'
    text += "\n# %%\nprint(x + 1)\n"
    cells = split_cells(text)
    assert cells == [("markdown", "# Title\n\nText."), ("parameters", "x = 2"), ("code", "print(x + 1)")]
    assert run_cells(cells)[2]["outputs"][0]["text"] == "3\n"
    assert run_cells(cells, {"x": 4})[2]["outputs"][0]["text"] == "5\n"
    assert empty_cell(1, *cells[1])["metadata"] == {"tags": ["parameters"]}
