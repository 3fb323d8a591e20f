"""Where the tables of the studies go: to the screen, and to the file that `--out` names."""

from __future__ import annotations

import argparse
from pathlib import Path


class TableFile:
    """Writes a table line by line, so that a long study can be read while it runs."""

    def __init__(self, path: Path | None) -> None:
        """Begin an empty file, or none.

        Args:
            path: the file; folders that it needs are made. None prints only.
        """
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("", encoding="utf-8")

    def add(self, line: str) -> None:
        """Print one line and append it to the file."""
        print(line, flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option `--out`."""
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there too; default: only print it")
