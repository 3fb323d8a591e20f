"""Results to standard output and to files; files appear whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from infermax_gym import files
from infermax_gym.cli.errors import InputError

if TYPE_CHECKING:
    import typer
    from rich.console import Console

    from infermax_gym.evaluation import Run

_PIPED_WIDTH = 120


def console() -> Console:
    """Standard output for people; 120 columns wide where it is no terminal, unless COLUMNS says otherwise."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else _PIPED_WIDTH
    return Console(width=width, highlight=False)


def progress_console() -> Console:
    """Standard error, for progress."""
    from rich.console import Console

    return Console(stderr=True)


def warn(message: str) -> None:
    """One line on standard error, about what is left out or comes twice."""
    print(f"infermax: warning: {' '.join(message.split())}", file=sys.stderr)


def say_compiling() -> None:
    """One line on standard error, before the first run after an installation or an edit."""
    print(
        "infermax: compiling the simulator for this machine, once (some minutes; later runs find it on disk) ...",
        file=sys.stderr,
        flush=True,
    )


def to_json(document: Mapping[str, Any], indent: int | None = 2) -> str:
    """The document as JSON; numbers that JSON has no name for become null."""
    return json.dumps(_finite(document), indent=indent, allow_nan=False)


def writable_folder(path: Path) -> Path:
    """The folder `path`, made if need be, before long work starts."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot write into this folder ({error.strerror})") from None
    return path


def claimed_folder(path: Path, context: typer.Context) -> Path:
    """`writable_folder`, and no other run's until the command ends: two would mix their files."""
    folder = writable_folder(path)
    try:
        context.with_resource(files.locked(folder))
    except OSError as error:
        raise InputError(str(error)) from None
    return folder


def writable_file(path: Path | None) -> None:
    """Check, before long work starts, that `path` can be written."""
    if path is None:
        return
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; expected the name of a file")
    if not os.path.isdir(path.parent):
        raise InputError(f"{path}: the folder {path.parent} does not exist")
    writable_folder(path.parent)


@contextmanager
def atomic(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place only once it is complete."""
    try:
        with files.atomic_text(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def write_text(path: Path, text: str) -> None:
    """Put `text` into a file that takes its place only once it is complete."""
    with atomic(path) as file:
        file.write(text)


def results_csv(runs: Sequence[Run]) -> str:
    """One line per policy and seed, every figure a column; what a run does not have stays empty."""
    from infermax_gym.evaluation import flatten

    text = io.StringIO()
    rows = [
        {"policy": run.policy, "seed": run.seed, "information": run.information, **flatten(_finite(run.figures))}
        for run in runs
    ]
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
