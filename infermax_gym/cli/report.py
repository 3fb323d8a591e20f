"""`infermax report`: what a command wrote, as one HTML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from infermax_gym import files
from infermax_gym.cli import output
from infermax_gym.cli.errors import InputError


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="What bench, tune, capacity or optimal wrote with --out, replay with --report, or train.py.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.html", help="Where the page goes.", show_default="DIR/report.html"),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write each picture there, as SVG.", show_default="none"),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also print the table of a comparison.")] = False,
) -> None:
    """Write a report to open in a browser, and print what it says."""
    from infermax_gym.viewer.folder import FolderError, page_of
    from infermax_gym.viewer.page import render, standalone

    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; expected what a command wrote with --out DIR")
    try:
        title, page = page_of(folder)
    except FolderError as error:
        raise InputError(str(error)) from None
    target = out or folder / "report.html"
    output.writable_file(target)
    if table:
        _print_table(folder)
    output.write_text(target, render(page, title))
    if pictures is not None:
        where = output.writable_folder(pictures)
        for picture in (p for section in page.sections for p in section.pictures):
            output.write_text(where / f"{picture.file_name}.svg", standalone(picture))
    for sentence in page.answer:
        print(sentence)
    print(f"report: {target}")


def _print_table(folder: Path) -> None:
    from infermax_gym.evaluation import render_comparison, render_run

    file = folder / "summary.json"
    if not file.exists():
        raise InputError(f"{file}: --table shows what bench wrote, and there is no such file")
    document = json.loads(files.read_text(file))
    render = render_run if len(document["policies"]) == 1 else render_comparison
    try:
        render(document, output.console())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: lacks a figure of a comparison ({error!r})") from None
