"""`infermax report`: show again what `bench --out` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from infermax_gym import files
from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="Folder that bench --out wrote.")],
) -> None:
    """Print the table of a stored comparison."""
    from infermax_gym.evaluation.report import render_comparison, render_run

    document = _read(folder / "summary.json")
    render = render_run if len(document["policies"]) == 1 else render_comparison
    try:
        render(document, output.console())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'summary.json'}: lacks a figure of a comparison ({error!r})") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(files.read_text(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected what bench --out DIR wrote") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("schema") != 1 or not document.get("policies"):
        raise InputError(f'{path}: expected an object with "schema": 1 and "policies"')
    return document
