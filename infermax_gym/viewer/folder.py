"""From a folder that a command wrote to a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infermax_gym import files
from infermax_gym.viewer.comparison import comparison_page
from infermax_gym.viewer.others import capacity_page, optimal_page, replay_page, tune_page
from infermax_gym.viewer.page import Page

Document = Mapping[str, Any]


class FolderError(ValueError):
    """A folder that no report can be made of; one line."""


def _comparison(document: Document, folder: Path) -> Page:
    if not document.get("policies"):
        raise FolderError(f'{folder / "summary.json"}: expected an object with "policies", and at least one of them')
    curve = folder / "curve.csv"
    return comparison_page(document, _details(folder), curve.read_text("utf-8") if curve.exists() else None)


def _replay(document: Document, folder: Path) -> Page:
    return replay_page(document, _details(folder))


_KINDS: Mapping[str, tuple[str, Callable[[Document, Path], Page]]] = {
    "tune.json": ("tune", lambda document, _: tune_page(document)),
    "summary.json": ("bench", _comparison),
    "capacity.json": ("capacity", lambda document, _: capacity_page(document)),
    "replay.json": ("replay", _replay),
    "optimal.json": ("optimal", lambda document, _: optimal_page(document)),
}
"""What a folder may hold, the command that wrote it, and what makes a report of it; the first that is there counts."""


def page_of(folder: Path) -> tuple[str, Page]:
    """The report of a folder, and what it is called.

    Raises:
        FolderError: nothing that a command wrote is there, or it cannot be read.
    """
    for name, (command, build) in _KINDS.items():
        file = folder / name
        if not file.exists():
            continue
        document = _read(file)
        try:
            kind = "train" if (folder / "curve.csv").exists() and name == "summary.json" else command
            return f"infermax {kind}" if kind != "train" else "train.py", build(document, folder)
        except FolderError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise FolderError(f"{file}: lacks a figure of `infermax {command}` ({error!r})") from None
    raise FolderError(f"{folder}: holds none of {', '.join(_KINDS)}, which the commands write with --out DIR")


def _details(folder: Path) -> Document | None:
    file = folder / "details.json"
    return _read(file) if file.exists() else None


def _read(file: Path) -> Document:
    try:
        document = json.loads(files.read_text(file))
    except OSError as error:
        raise FolderError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{file}: not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("schema") != 1:
        raise FolderError(f'{file}: expected an object with "schema": 1')
    return document
